# Unlabelled images for BEiT v1: a folder, searched with its subfolders. The order and the constants of the
# augmentation are the official ones (unilm:beit/datasets.py, DataAugmentationForBEiT).
_base_ = 'imagenet_statistics.py'
train_pipeline = [
    dict(type='mmbeit.SeedTransforms'),
    dict(type='mmbeit.LoadImage', on_error='skip'),
    dict(type='torchvision/ColorJitter', brightness=0.4, contrast=0.4, saturation=0.4),
    dict(type='torchvision/RandomHorizontalFlip'),
    # The DALL-E tokenizer makes one token of 8 x 8 pixels: 112 pixels for the 14 x 14 patches of the view.
    dict(type='mmbeit.RandomResizedCropTwoViews', size=224, target_size=112),
    dict(type='mmbeit.BlockwiseMask', grid=14, num_masked=75),
    dict(type='PackInputs'),
]
train_dataloader = dict(
    batch_size=256,
    num_workers=8,
    persistent_workers=True,
    pin_memory=True,
    drop_last=True,
    sampler=dict(type='mmbeit.SeededSampler', shuffle=True),
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        type='CustomDataset',
        data_root='data/imagenet/',
        data_prefix='train',
        with_label=False,
        pipeline=train_pipeline,
    ),
)
