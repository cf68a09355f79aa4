# BEiT base, 300 epochs on ImageNet-1k, 8 GPUs x 256 images.
# Run: tools/dist_train.sh configs/beit/beit_beit-base-p16_8xb256-amp-coslr-300e_in1k.py 8
# Cost: three eighths of the 800-epoch recipe.
# Expect 83.1 % top-1 after fine-tuning with benchmarks/beit-base-p16_beit-pre_8xb128-coslr-100e_in1k.py
# (mmpretrain's own run of this schedule, configs/beit/README.md there); not measured here.
_base_ = 'beit_beit-base-p16_8xb256-amp-coslr-800e_in1k.py'
max_epochs = 300
_base_.param_scheduler[1].end = max_epochs
train_cfg = dict(max_epochs=max_epochs)
