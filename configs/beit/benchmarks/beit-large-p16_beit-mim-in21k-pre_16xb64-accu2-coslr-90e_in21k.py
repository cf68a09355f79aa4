# BEiT large, intermediate fine-tuning on the labels of ImageNet-22k, 16 GPUs x 64 images x 2 steps, 224 pixels.
# Run: tools/dist_train.sh configs/beit/benchmarks/beit-large-p16_beit-mim-in21k-pre_16xb64-accu2-coslr-90e_in21k.py 16
#      --cfg-options model.backbone.init_cfg.checkpoint=PATH   where the weights are elsewhere
# Cost: 326 M parameters, 61.6 GFLOPs an image forward, 14 M images an epoch.
# No accuracy of these weights is published, only of what is fine-tuned from them; not measured here.
_base_ = [
    '../../_base_/models/beit-large-p16.py',
    '../../_base_/datasets/imagenet21k_finetune_half.py',
    '../../_base_/schedules/adamw_finetune_90e.py',
    '../../_base_/default_runtime.py',
]
lr = 2e-3
model = dict(
    backbone=dict(init_cfg=dict(checkpoint='work_dirs/beit_beit-large-p16_16xb128-amp-coslr-150e_in21k/epoch_150.pth')),
    head=dict(num_classes=_base_.data_preprocessor.num_classes),
    train_cfg=None,
)
train_dataloader = dict(batch_size=64)
optim_wrapper = dict(accumulative_counts=2, optimizer=dict(lr=lr), paramwise_cfg=dict(layer_decay_rate=0.75))
_base_.param_scheduler[1].eta_min_ratio = 1e-6 / lr
auto_scale_lr = dict(base_batch_size=1024)
