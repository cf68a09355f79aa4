# ADE20K with the 150 classes of the scene parsing benchmark, unpacked where mmseg expects it, in crops of 512 pixels
# (unilm:beit/semantic_segmentation/configs/_base_/datasets/ade20k.py). A label of 0 in a file is ignored.
num_classes = 150
train_pipeline = [
    dict(type='mmbeit.SeedTransforms'),
    dict(type='mmbeit.LoadImageFromFile'),
    dict(type='mmbeit.LoadSegMap', num_classes=num_classes),
    dict(type='RandomResize', scale=(2048, 512), ratio_range=(0.5, 2.0), keep_ratio=True),
    dict(type='RandomCrop', crop_size=512, cat_max_ratio=0.75),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PhotoMetricDistortion'),
    dict(type='PackSegInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),  # by this name mmseg's inference finds it
    dict(type='Resize', scale=(2048, 512), keep_ratio=True),
    dict(type='mmbeit.LoadSegMap', num_classes=num_classes),
    dict(type='PackSegInputs'),
]
# Six sizes, each as it is and mirrored. Officially they are 0.5 to 1.75 times 512 pixels, but a short side never
# becomes smaller than the window, and so the first three are one (`SETR_Resize`, unilm:beit/semantic_segmentation/
# mmcv_custom/resize_transform.py). The long side has no limit there.
tta_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(
        type='TestTimeAug',
        transforms=[
            [
                dict(type='ResizeShortestEdge', scale=side, max_size=1_000_000)
                for side in (512, 512, 512, 640, 768, 896)
            ],
            [dict(type='RandomFlip', prob=prob) for prob in (0.0, 1.0)],
            [dict(type='mmbeit.LoadSegMap', num_classes=num_classes)],
            [dict(type='PackSegInputs')],
        ],
    ),
]
train_dataloader = dict(
    batch_size=2,
    num_workers=4,
    persistent_workers=True,
    pin_memory=True,
    sampler=dict(type='mmbeit.SeededInfiniteSampler', shuffle=True),
    dataset=dict(
        type='ADE20KDataset',
        data_root='data/ade/ADEChallengeData2016',
        data_prefix=dict(img_path='images/training', seg_map_path='annotations/training'),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=4,
    persistent_workers=True,
    pin_memory=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='ADE20KDataset',
        data_root='data/ade/ADEChallengeData2016',
        data_prefix=dict(img_path='images/validation', seg_map_path='annotations/validation'),
        pipeline=test_pipeline,
    ),
)
val_evaluator = dict(type='IoUMetric', iou_metrics=['mIoU'])
test_dataloader = val_dataloader
test_evaluator = val_evaluator
