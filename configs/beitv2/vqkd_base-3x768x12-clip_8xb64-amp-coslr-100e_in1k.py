# VQ-KD with three decoder layers, the tokenizer that BEiT v2 is pretrained with; 8 GPUs x 64 images.
# Run: tools/dist_train.sh configs/beitv2/vqkd_base-3x768x12-clip_8xb64-amp-coslr-100e_in1k.py 8
# Cost: 108.8 M parameters and, without the teacher's 17.6, 22.3 GFLOPs an image forward.
# Expect 97 % of the codes to be in use (unilm:beit2/TOKENIZER.md); not measured here.
_base_ = 'vqkd_base-1x768x12-clip_8xb64-amp-coslr-100e_in1k.py'
model = dict(num_decoder_layers=3)
