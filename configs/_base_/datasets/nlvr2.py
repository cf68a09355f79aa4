# NLVR2 at 224 pixels. Below `data_root` are images/train/, dev/ and test1/ (test-P), and train.json, dev.json and
# test1.json of https://github.com/lil-lab/nlvr. Of a sentence each image is augmented by itself, as officially.
_base_ = 'beit3_statistics.py'
data_root = 'data/nlvr2'
tokenizer = _base_.tokenizer
train_pipeline = [
    dict(type='mmbeit.SeedTransforms'),
    dict(
        type='ApplyToList',
        scatter_key='img_path',
        transforms=[
            dict(type='mmbeit.LoadImageFromFile', imdecode_backend='pillow'),
            dict(
                type='RandomResizedCrop',
                scale=224,
                crop_ratio_range=(0.5, 1.0),
                backend='pillow',
                interpolation='bicubic',
            ),
            dict(type='RandomFlip', prob=0.5, direction='horizontal'),
        ],
        collate_keys=['img', 'img_shape', 'ori_shape'],
    ),
    dict(type='mmbeit.TokenizeText', tokenizer=tokenizer),
    dict(type='PackInputs', algorithm_keys=['text', 'text_ids'], meta_keys=['img_path']),
]
test_pipeline = [
    dict(
        type='ApplyToList',
        scatter_key='img_path',
        transforms=[
            dict(type='LoadImageFromFile', imdecode_backend='pillow'),  # by this name inference finds it
            dict(type='Resize', scale=(224, 224), backend='pillow', interpolation='bicubic'),
        ],
        collate_keys=['img', 'img_shape', 'ori_shape'],
    ),
    dict(type='mmbeit.TokenizeText', tokenizer=tokenizer),
    dict(type='PackInputs', algorithm_keys=['text', 'text_ids'], meta_keys=['img_path']),
]
train_dataloader = dict(
    batch_size=32,
    num_workers=8,
    persistent_workers=True,
    pin_memory=True,
    drop_last=True,
    sampler=dict(type='mmbeit.SeededSampler', shuffle=True),
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        type='mmbeit.NLVR2',
        data_root=data_root,
        data_prefix='images/train',
        ann_file='train.json',
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=48,
    num_workers=8,
    persistent_workers=True,
    pin_memory=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        type='mmbeit.NLVR2',
        data_root=data_root,
        data_prefix='dev',
        ann_file='dev.json',
        pipeline=test_pipeline,
        test_mode=True,
    ),
)
test_dataloader = dict(
    batch_size=48,
    num_workers=8,
    persistent_workers=True,
    pin_memory=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        type='mmbeit.NLVR2',
        data_root=data_root,
        data_prefix='test1',
        ann_file='test1.json',
        pipeline=test_pipeline,
        test_mode=True,
    ),
)
val_evaluator = dict(type='Accuracy')
test_evaluator = val_evaluator
