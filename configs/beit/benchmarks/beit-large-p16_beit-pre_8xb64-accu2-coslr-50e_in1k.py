# BEiT large, fine-tuned on ImageNet-1k from self-supervised weights of ImageNet-1k, 8 GPUs x 64 images x 2 steps.
# Run: tools/dist_train.sh configs/beit/benchmarks/beit-large-p16_beit-pre_8xb64-accu2-coslr-50e_in1k.py 8
#      --cfg-options model.backbone.init_cfg.checkpoint=PATH   where the weights are elsewhere
# Cost: 304 M parameters, 61.6 GFLOPs an image forward.
# The schedule is the official one for weights of ImageNet-22k (unilm:beit/get_started_for_image_classification.md);
# the paper's large model of ImageNet-1k has 86.3 % top-1, at 384 pixels (https://arxiv.org/abs/2106.08254). Not
# measured here.
_base_ = [
    '../../_base_/models/beit-large-p16.py',
    '../../_base_/datasets/imagenet_finetune.py',
    '../../_base_/schedules/adamw_finetune_50e.py',
    '../../_base_/default_runtime.py',
]
model = dict(
    backbone=dict(init_cfg=dict(checkpoint='work_dirs/beit_beit-large-p16_16xb128-amp-coslr-800e_in1k/epoch_800.pth'))
)
train_dataloader = dict(batch_size=64)
