# Retrieval on COCO at 384 pixels. Below `data_root` are train2014/, val2014/ and dataset_coco.json
# (https://cs.stanford.edu/people/karpathy/deepimagesent/caption_datasets.zip).
_base_ = 'beit3_statistics.py'
data_root = 'data/coco'
tokenizer = _base_.tokenizer
train_pipeline = [
    dict(type='mmbeit.SeedTransforms'),
    dict(type='mmbeit.LoadImageFromFile', imdecode_backend='pillow'),
    dict(type='RandomResizedCrop', scale=384, crop_ratio_range=(0.5, 1.0), backend='pillow', interpolation='bicubic'),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='mmbeit.TokenizeText', tokenizer=tokenizer),
    dict(type='PackInputs', algorithm_keys=['text_ids'], meta_keys=['img_path', 'image_id']),
]
test_pipeline = [
    dict(type='LoadImageFromFile', imdecode_backend='pillow'),  # by this name inference finds it
    dict(type='Resize', scale=(384, 384), backend='pillow', interpolation='bicubic'),
    dict(type='mmbeit.TokenizeText', tokenizer=tokenizer),
    dict(
        type='PackInputs',
        algorithm_keys=['text', 'text_ids', 'gt_text_id', 'gt_image_id'],
        meta_keys=['img_path', 'image_id'],
    ),
]
train_dataloader = dict(
    batch_size=192,
    num_workers=8,
    persistent_workers=True,
    pin_memory=True,
    drop_last=True,
    sampler=dict(type='mmbeit.SeededSampler', shuffle=True),
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        type='mmbeit.KarpathyRetrieval',
        data_root=data_root,
        ann_file='dataset_coco.json',
        split=('train', 'restval'),
        pipeline=train_pipeline,
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
        type='mmbeit.KarpathyRetrieval',
        data_root=data_root,
        ann_file='dataset_coco.json',
        split='val',
        pipeline=test_pipeline,
        test_mode=True,
    ),
)
test_dataloader = dict(
    batch_size=64,
    num_workers=8,
    persistent_workers=True,
    pin_memory=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        type='mmbeit.KarpathyRetrieval',
        data_root=data_root,
        ann_file='dataset_coco.json',
        split='test',
        pipeline=test_pipeline,
        test_mode=True,
    ),
)
val_evaluator = dict(type='RetrievalRecall', topk=(1, 5, 10))
test_evaluator = val_evaluator
