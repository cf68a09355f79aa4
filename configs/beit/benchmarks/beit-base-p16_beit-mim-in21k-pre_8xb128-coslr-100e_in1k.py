# BEiT base, fine-tuned on ImageNet-1k from self-supervised weights of ImageNet-22k, 8 GPUs x 128 images, 224 pixels.
# Run: tools/dist_train.sh configs/beit/benchmarks/beit-base-p16_beit-mim-in21k-pre_8xb128-coslr-100e_in1k.py 8
#      --cfg-options model.backbone.init_cfg.checkpoint=PATH   where the weights are elsewhere
# Cost: 86.5 M parameters, 17.6 GFLOPs an image forward.
# Expect 83.7 % top-1, 96.6 % top-5 (unilm:beit/README.md); not measured here.
_base_ = [
    '../../_base_/models/beit-base-p16.py',
    '../../_base_/datasets/imagenet_finetune_half.py',
    '../../_base_/schedules/adamw_finetune.py',
    '../../_base_/default_runtime.py',
]
model = dict(
    backbone=dict(init_cfg=dict(checkpoint='work_dirs/beit_beit-base-p16_16xb128-amp-coslr-150e_in21k/epoch_150.pth'))
)
