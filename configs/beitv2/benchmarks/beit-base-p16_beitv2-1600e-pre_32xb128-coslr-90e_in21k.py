# BEiT v2 base, intermediate fine-tuning on the labels of ImageNet-22k, 32 GPUs x 128 images, 224 pixels.
# Run: tools/dist_train.sh configs/beitv2/benchmarks/beit-base-p16_beitv2-1600e-pre_32xb128-coslr-90e_in21k.py 32
#      --cfg-options model.backbone.init_cfg.checkpoint=PATH   where the weights are elsewhere
# Cost: 103 M parameters, 17.6 GFLOPs an image forward, 14 M images an epoch.
# No accuracy of these weights is published, only of what is fine-tuned from them; not measured here.
_base_ = [
    '../../_base_/models/beit-base-p16.py',
    '../../_base_/datasets/imagenet21k_finetune.py',
    '../../_base_/schedules/adamw_finetune_90e.py',
    '../../_base_/default_runtime.py',
]
lr = 6e-4
warmup_epochs = 20
model = dict(
    backbone=dict(
        init_cfg=dict(checkpoint='work_dirs/beitv2_beit-base-p16_8xb256-amp-coslr-1600e_in1k/epoch_1600.pth'),
    ),
    head=dict(num_classes=_base_.data_preprocessor.num_classes),
)
optim_wrapper = dict(optimizer=dict(lr=lr), paramwise_cfg=dict(layer_decay_rate=0.75))
_base_.param_scheduler[0].end = warmup_epochs
_base_.param_scheduler[1].update(begin=warmup_epochs, eta_min_ratio=1e-6 / lr)
