# Captions of COCO at 480 pixels. Below `data_root` are train2014/, val2014/, dataset_coco.json
# (https://cs.stanford.edu/people/karpathy/deepimagesent/caption_datasets.zip), and the references of BLIP,
# https://storage.googleapis.com/sfr-vision-language-research/datasets/coco_karpathy_{val,test}_gt.json. These need
# pycocoevalcap and Java; without Java add tokenizer='words' to the evaluators.
_base_ = 'beit3_statistics.py'
data_root = 'data/coco'
tokenizer = _base_.tokenizer
train_pipeline = [
    dict(type='mmbeit.SeedTransforms'),
    dict(type='mmbeit.LoadImageFromFile', imdecode_backend='pillow'),
    dict(type='RandomResizedCrop', scale=480, crop_ratio_range=(0.5, 1.0), backend='pillow', interpolation='bicubic'),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='mmbeit.RandAugment'),  # overflow='wrap' makes the official mistakes, too
    dict(type='mmbeit.TokenizeText', key='gt_caption', tokenizer=tokenizer, max_length=32),
    dict(type='mmbeit.MaskText', tokenizer=tokenizer, probability=0.7),
    dict(
        type='PackInputs',
        algorithm_keys=['text_ids', 'masked_text_ids', 'text_mask'],
        meta_keys=['img_path', 'image_id'],
    ),
]
test_pipeline = [
    dict(type='LoadImageFromFile', imdecode_backend='pillow'),  # by this name inference finds it
    dict(type='Resize', scale=(480, 480), backend='pillow', interpolation='bicubic'),
    dict(type='PackInputs', algorithm_keys=['gt_caption'], meta_keys=['img_path', 'image_id']),
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
        type='mmbeit.KarpathyCaption',
        data_root=data_root,
        ann_file='dataset_coco.json',
        split=('train', 'restval'),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=16,
    num_workers=8,
    persistent_workers=True,
    pin_memory=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        type='mmbeit.KarpathyCaption',
        data_root=data_root,
        ann_file='dataset_coco.json',
        split='val',
        pipeline=test_pipeline,
        test_mode=True,
    ),
)
test_dataloader = dict(
    batch_size=16,
    num_workers=8,
    persistent_workers=True,
    pin_memory=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        type='mmbeit.KarpathyCaption',
        data_root=data_root,
        ann_file='dataset_coco.json',
        split='test',
        pipeline=test_pipeline,
        test_mode=True,
    ),
)
val_evaluator = dict(type='mmbeit.CaptionScores', ann_file=f'{data_root}/coco_karpathy_val_gt.json')
test_evaluator = dict(type='mmbeit.CaptionScores', ann_file=f'{data_root}/coco_karpathy_test_gt.json')
