# Unlabelled images for VQ-KD: a folder, searched with its subfolders (unilm:beit2/datasets.py, build_vqkd_dataset).
train_pipeline = [
    dict(type='mmbeit.SeedTransforms'),
    dict(type='mmbeit.LoadImage', on_error='skip'),
    dict(type='torchvision/RandomResizedCrop', size=224, scale=(0.08, 1.0), interpolation='bicubic'),
    dict(type='torchvision/RandomHorizontalFlip'),
    dict(type='PackInputs'),
]
test_pipeline = [
    dict(type='mmbeit.LoadImage'),
    dict(type='torchvision/Resize', size=256, interpolation='bicubic'),
    dict(type='torchvision/CenterCrop', size=224),
    dict(type='PackInputs'),
]
train_dataloader = dict(
    batch_size=64,
    num_workers=8,
    persistent_workers=True,
    pin_memory=True,
    drop_last=True,
    sampler=dict(type='mmbeit.SeededSampler', shuffle=True),
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        type='CustomDataset', data_root='data/imagenet/', data_prefix='train', with_label=False, pipeline=train_pipeline
    ),
)
val_dataloader = dict(
    batch_size=64,
    num_workers=8,
    persistent_workers=True,
    pin_memory=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        type='CustomDataset', data_root='data/imagenet/', data_prefix='val', with_label=False, pipeline=test_pipeline
    ),
)
val_evaluator = dict(type='mmbeit.CodebookUsage')
test_dataloader = val_dataloader
test_evaluator = val_evaluator
