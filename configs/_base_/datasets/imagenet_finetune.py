# Labelled images in a folder per class, at 224 pixels, augmented as timm's `create_transform` does for BEiT: crop,
# flip, RandAugment rand-m9-mstd0.5-inc1, erasing (unilm:beit/datasets.py). Statistics are ImageNet's, for weights that
# were pretrained with them; `imagenet_finetune_half.py` has those of the official weights of ImageNet-22k.
_base_ = 'imagenet_statistics.py'
mean, std = _base_.mean, _base_.std
data_preprocessor = dict(num_classes=1000, mean=mean, std=std, to_rgb=True)
train_pipeline = [
    dict(type='mmbeit.SeedTransforms'),
    dict(type='LoadImageFromFile'),
    dict(type='RandomResizedCrop', scale=224, backend='pillow', interpolation='bicubic'),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(
        type='RandAugment',
        policies='timm_increasing',
        num_policies=2,
        total_level=10,
        magnitude_level=9,
        magnitude_std=0.5,
        hparams=dict(pad_val=[round(x) for x in mean[::-1]], interpolation='bicubic'),
    ),
    dict(type='mmbeit.RandomErasing', mean=mean[::-1], std=std[::-1]),  # images are BGR up to the preprocessor
    dict(type='PackInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='ResizeEdge', scale=256, edge='short', backend='pillow', interpolation='bicubic'),
    dict(type='CenterCrop', crop_size=224),
    dict(type='PackInputs'),
]
train_dataloader = dict(
    batch_size=128,
    num_workers=8,
    persistent_workers=True,
    pin_memory=True,
    drop_last=True,
    sampler=dict(type='mmbeit.SeededSampler', shuffle=True),
    collate_fn=dict(type='default_collate'),
    dataset=dict(type='ImageNet', data_root='data/imagenet/', split='train', pipeline=train_pipeline),
)
val_dataloader = dict(
    batch_size=128,
    num_workers=8,
    persistent_workers=True,
    pin_memory=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='default_collate'),
    dataset=dict(type='ImageNet', data_root='data/imagenet/', split='val', pipeline=test_pipeline),
)
val_evaluator = dict(type='Accuracy', topk=(1, 5))
test_dataloader = val_dataloader
test_evaluator = val_evaluator
