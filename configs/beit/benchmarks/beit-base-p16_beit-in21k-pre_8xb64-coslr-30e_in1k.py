# BEiT base, fine-tuned on ImageNet-1k from weights that were pretrained and fine-tuned on ImageNet-22k, 8 GPUs x 64
# images, 224 pixels.
# Run: tools/dist_train.sh configs/beit/benchmarks/beit-base-p16_beit-in21k-pre_8xb64-coslr-30e_in1k.py 8
#      --cfg-options model.backbone.init_cfg.checkpoint=PATH   where the weights are elsewhere
# Cost: 86.5 M parameters, 17.6 GFLOPs an image forward.
# Expect 85.2 % top-1, 97.6 % top-5 (unilm:beit/README.md); not measured here.
_base_ = [
    '../../_base_/models/beit-base-p16.py',
    '../../_base_/datasets/imagenet_finetune_half.py',
    '../../_base_/schedules/adamw_finetune_30e.py',
    '../../_base_/default_runtime.py',
]
model = dict(
    backbone=dict(
        init_cfg=dict(checkpoint='work_dirs/beit-base-p16_beit-mim-in21k-pre_16xb256-coslr-90e_in21k/epoch_90.pth')
    ),
    train_cfg=None,
)
train_dataloader = dict(batch_size=64)
optim_wrapper = dict(paramwise_cfg=dict(layer_decay_rate=0.85))
