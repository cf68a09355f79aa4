# BEiT v2 large, 1600 epochs on ImageNet-1k, 16 GPUs x 128 images; officially 64 x 32.
# Run: tools/dist_train.sh configs/beitv2/beitv2_beit-large-p16_16xb128-amp-coslr-1600e_in1k.py 16
# Cost: 337 M parameters, 66.7 GFLOPs an image forward with the neck, and 17.6 for the tokenizer.
# Expect 87.3 % top-1 after benchmarks/beit-large-p16_beitv2-1600e-pre_8xb64-accu2-coslr-50e_in1k.py
# (unilm:beit2/README.md); not measured here.
_base_ = 'beitv2_beit-base-p16_8xb256-amp-coslr-1600e_in1k.py'
model = dict(backbone=dict(arch='large', layer_scale=1e-5), neck=dict(early_layers=21))
train_dataloader = dict(batch_size=128)
