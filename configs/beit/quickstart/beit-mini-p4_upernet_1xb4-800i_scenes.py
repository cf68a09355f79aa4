# The quickstart's segmentation: the ADE20K recipe, shrunk to a hundred pictures of 48 x 48 pixels with 11 classes. It
# starts from the weights of pretraining on digits, or from scratch with model.backbone.init_cfg=None.
# Run: python tools/train.py configs/beit/quickstart/beit-mini-p4_upernet_1xb4-800i_scenes.py, after `make scenes`
_base_ = '../benchmarks/beit-base-p16_beit-pre_upernet_8xb2-160k_ade20k-512x512.py'
max_iters = 800
classes = ('ground', *'0123456789')
num_classes = len(classes)
size = 48
width = 64
channels = 48
loss_decode = dict(class_weight=[0.1] + [1.0] * 10)  # most of a picture is ground
model = dict(
    data_preprocessor=dict(mean=[127.5] * 3, std=[127.5] * 3, size=(size, size)),
    backbone=dict(
        arch=dict(_delete_=True, embed_dims=width, num_layers=4, num_heads=2, feedforward_channels=4 * width),
        img_size=size,
        patch_size=4,
        drop_path_rate=0.0,
        out_indices=(0, 1, 2, 3),
        init_cfg=dict(checkpoint='work_dirs/quickstart/pretrain/epoch_90.pth'),
    ),
    neck=dict(in_channels=width),
    decode_head=dict(in_channels=[width] * 4, channels=channels, num_classes=num_classes, loss_decode=loss_decode),
    auxiliary_head=dict(in_channels=width, channels=channels, num_classes=num_classes, loss_decode=loss_decode),
    test_cfg=dict(_delete_=True, mode='whole'),
)
train_pipeline = [
    dict(type='mmbeit.SeedTransforms'),
    dict(type='mmbeit.LoadImageFromFile'),
    dict(type='mmbeit.LoadSegMap', num_classes=num_classes),
    dict(type='RandomResize', scale=(size, size), ratio_range=(1.0, 1.2), keep_ratio=True),
    dict(type='RandomCrop', crop_size=size),
    dict(type='PackSegInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='mmbeit.LoadSegMap', num_classes=num_classes),
    dict(type='PackSegInputs'),
]
pictures = dict(
    _delete_=True,
    type='BaseSegDataset',
    data_root='data/digit_scenes/',
    metainfo=dict(classes=classes),
    reduce_zero_label=True,
)
loader = dict(num_workers=0, persistent_workers=False, pin_memory=False)
train_dataloader = dict(
    batch_size=4,
    dataset=dict(
        data_prefix=dict(img_path='images/training', seg_map_path='annotations/training'),
        pipeline=train_pipeline,
        **pictures,
    ),
    **loader,
)
val_dataloader = dict(
    dataset=dict(
        data_prefix=dict(img_path='images/validation', seg_map_path='annotations/validation'),
        pipeline=test_pipeline,
        **pictures,
    ),
    **loader,
)
test_dataloader = val_dataloader
optim_wrapper = dict(optimizer=dict(lr=3e-3), paramwise_cfg=dict(layer_decay_rate=0.85))
_base_.param_scheduler[0].end = 80
_base_.param_scheduler[1].end = max_iters + 1
train_cfg = dict(max_iters=max_iters, val_interval=max_iters)
default_hooks = dict(logger=dict(interval=20), checkpoint=dict(interval=max_iters))
