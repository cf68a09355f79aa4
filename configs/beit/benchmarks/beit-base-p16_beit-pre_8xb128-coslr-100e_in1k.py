# BEiT base, fine-tuned on ImageNet-1k from self-supervised weights of ImageNet-1k, 8 GPUs x 128 images, 224 pixels.
# Run: tools/dist_train.sh configs/beit/benchmarks/beit-base-p16_beit-pre_8xb128-coslr-100e_in1k.py 8
#      --cfg-options model.backbone.init_cfg.checkpoint=PATH   where the weights are elsewhere
# Cost: 86.5 M parameters, 17.6 GFLOPs an image forward.
# Expect 83.2 % top-1 after 800 epochs of pretraining (https://arxiv.org/abs/2106.08254), 83.1 % after 300 (mmpretrain's
# own run, with its pretraining); not measured here.
# For an average of the weights (officially off) add
# custom_hooks = [*_base_.custom_hooks, dict(type='EMAHook', momentum=1e-4)]
_base_ = [
    '../../_base_/models/beit-base-p16.py',
    '../../_base_/datasets/imagenet_finetune.py',
    '../../_base_/schedules/adamw_finetune.py',
    '../../_base_/default_runtime.py',
]
model = dict(
    backbone=dict(init_cfg=dict(checkpoint='work_dirs/beit_beit-base-p16_8xb256-amp-coslr-800e_in1k/epoch_800.pth'))
)
