# BEiT v2 base, 300 epochs on ImageNet-1k, 8 GPUs x 256 images; officially 16 x 128.
# Run: tools/dist_train.sh configs/beitv2/beitv2_beit-base-p16_8xb256-amp-coslr-300e_in1k.py 8
# Cost: three sixteenths of the 1600-epoch recipe.
# Expect 85.0 % top-1 after benchmarks/beit-base-p16_beitv2-pre_8xb128-coslr-100e_in1k.py
# (unilm:beit2/get_started_for_image_classification.md; mmpretrain's own run has 85.0, too); not measured here.
_base_ = 'beitv2_beit-base-p16_8xb256-amp-coslr-1600e_in1k.py'
max_epochs = 300
model = dict(backbone=dict(drop_path_rate=0.0))
optim_wrapper = dict(optimizer=dict(betas=(0.9, 0.98)))
_base_.param_scheduler[1].end = max_epochs
train_cfg = dict(max_epochs=max_epochs)
