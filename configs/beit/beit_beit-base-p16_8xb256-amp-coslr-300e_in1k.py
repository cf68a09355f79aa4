# BEiT base, 300 epochs on ImageNet-1k, 8 GPUs x 256 images.
# Run: tools/dist_train.sh configs/beit/beit_beit-base-p16_8xb256-amp-coslr-300e_in1k.py 8
# Cost: three eighths of the 800-epoch recipe.
# Expect 83.1 % top-1 after fine-tuning with benchmarks/beit-base-p16_beit-pre_8xb128-coslr-100e_in1k.py
# (mmpretrain's own run of this schedule, configs/beit/README.md there); not measured here.
_base_ = 'beit_beit-base-p16_8xb256-amp-coslr-800e_in1k.py'
max_epochs = 300
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-12, by_epoch=True, begin=0, end=10, convert_to_iter_based=True),
    dict(
        type='CosineAnnealingLR',
        eta_min_ratio=1e-5 / 1.5e-3,
        by_epoch=True,
        begin=10,
        end=max_epochs,
        convert_to_iter_based=True,
    ),
]
train_cfg = dict(max_epochs=max_epochs)
