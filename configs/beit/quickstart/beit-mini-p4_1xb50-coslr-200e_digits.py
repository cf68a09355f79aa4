# The quickstart's fine-tuning on fifty labelled scans: the ImageNet recipe, shrunk. From scratch as it stands; from
# pretrained weights with --cfg-options model.backbone.init_cfg.checkpoint=PATH
# Run: python tools/train.py configs/beit/quickstart/beit-mini-p4_1xb50-coslr-200e_digits.py
_base_ = '../benchmarks/beit-base-p16_beit-pre_8xb128-coslr-100e_in1k.py'
max_epochs = 200
data_preprocessor = dict(num_classes=10, mean=[127.5] * 3, std=[127.5] * 3)
model = dict(
    backbone=dict(
        arch=dict(_delete_=True, embed_dims=64, num_layers=4, num_heads=2, feedforward_channels=256),
        img_size=16,
        patch_size=4,
    ),
    head=dict(
        num_classes=10,
        in_channels=64,
        loss=dict(_delete_=True, type='CrossEntropyLoss'),
    ),
    train_cfg=None,
)
train_dataloader = dict(
    batch_size=50,
    num_workers=0,
    persistent_workers=False,
    pin_memory=False,
    dataset=dict(
        _delete_=True,
        type='CustomDataset',
        data_root='data/digits/',
        data_prefix='train',
        ann_file='labelled_0.txt',
        pipeline=[
            dict(type='mmbeit.SeedTransforms'),
            dict(type='LoadImageFromFile'),
            dict(
                type='RandomResizedCrop',
                scale=16,
                crop_ratio_range=(0.5, 1.0),
                backend='pillow',
                interpolation='bicubic',
            ),
            dict(type='PackInputs'),
        ],
    ),
)
val_dataloader = dict(
    batch_size=360,
    num_workers=0,
    persistent_workers=False,
    pin_memory=False,
    dataset=dict(
        _delete_=True,
        type='CustomDataset',
        data_root='data/digits/',
        data_prefix='val',
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='Resize', scale=16, backend='pillow', interpolation='bicubic'),
            dict(type='PackInputs'),
        ],
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(topk=(1,))
test_evaluator = val_evaluator
optim_wrapper = dict(optimizer=dict(lr=3e-3), paramwise_cfg=dict(layer_decay_rate=0.85))
_base_.param_scheduler[0].end = 10
_base_.param_scheduler[1].begin = 10
_base_.param_scheduler[1].end = max_epochs
train_cfg = dict(max_epochs=max_epochs, val_interval=50)
default_hooks = dict(logger=dict(interval=20), checkpoint=dict(interval=max_epochs))
