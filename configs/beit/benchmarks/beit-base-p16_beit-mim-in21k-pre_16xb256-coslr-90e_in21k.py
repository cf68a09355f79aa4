# BEiT base, intermediate fine-tuning on the labels of ImageNet-22k, 16 GPUs x 256 images, 224 pixels.
# Run: tools/dist_train.sh configs/beit/benchmarks/beit-base-p16_beit-mim-in21k-pre_16xb256-coslr-90e_in21k.py 16
#      --cfg-options model.backbone.init_cfg.checkpoint=PATH   where the weights are elsewhere
# Cost: 103 M parameters, 17.6 GFLOPs an image forward, 14 M images an epoch.
# No accuracy of these weights is published, only of what is fine-tuned from them; not measured here.
_base_ = [
    '../../_base_/models/beit-base-p16.py',
    '../../_base_/datasets/imagenet21k_finetune_half.py',
    '../../_base_/schedules/adamw_finetune_90e.py',
    '../../_base_/default_runtime.py',
]
model = dict(
    backbone=dict(
        drop_path_rate=0.2,
        init_cfg=dict(checkpoint='work_dirs/beit_beit-base-p16_16xb128-amp-coslr-150e_in21k/epoch_150.pth'),
    ),
    head=dict(num_classes=_base_.data_preprocessor.num_classes),
    train_cfg=None,
)
train_dataloader = dict(batch_size=256)
