# BEiT large, fine-tuned on ImageNet-1k from self-supervised weights of ImageNet-22k, 8 GPUs x 64 images x 2 steps.
# Run: tools/dist_train.sh configs/beit/benchmarks/beit-large-p16_beit-mim-in21k-pre_8xb64-accu2-coslr-50e_in1k.py 8
#      --cfg-options model.backbone.init_cfg.checkpoint=PATH   where the weights are elsewhere
# Cost: 304 M parameters, 61.6 GFLOPs an image forward.
# Expect 86.0 % top-1, 97.6 % top-5 (unilm:beit/README.md); not measured here.
_base_ = [
    '../../_base_/models/beit-large-p16.py',
    '../../_base_/datasets/imagenet_finetune_half.py',
    '../../_base_/schedules/adamw_finetune_50e.py',
    '../../_base_/default_runtime.py',
]
model = dict(
    backbone=dict(init_cfg=dict(checkpoint='work_dirs/beit_beit-large-p16_16xb128-amp-coslr-150e_in21k/epoch_150.pth'))
)
train_dataloader = dict(batch_size=64)
