# BEiT v2 large, 300 epochs on ImageNet-1k, 16 GPUs x 128 images; officially 64 x 32.
# Run: tools/dist_train.sh configs/beitv2/beitv2_beit-large-p16_16xb128-amp-coslr-300e_in1k.py 16
# Cost: three sixteenths of the 1600-epoch recipe.
# Expect 86.6 % top-1 after benchmarks/beit-large-p16_beitv2-pre_8xb64-accu2-coslr-50e_in1k.py
# (unilm:beit2/get_started_for_image_classification.md); not measured here.
_base_ = 'beitv2_beit-base-p16_8xb256-amp-coslr-300e_in1k.py'
model = dict(backbone=dict(arch='large', layer_scale=1e-5), neck=dict(early_layers=21))
train_dataloader = dict(batch_size=128)
