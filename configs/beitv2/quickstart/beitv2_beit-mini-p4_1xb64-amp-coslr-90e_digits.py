# The second quickstart's pretraining: the ImageNet recipe of BEiT v2, shrunk to scans of 16 x 16 pixels, patches of
# 4 x 4, 4 blocks, of which the third is the early one.
# Run: python tools/train.py configs/beitv2/quickstart/beitv2_beit-mini-p4_1xb64-amp-coslr-90e_digits.py
_base_ = '../beitv2_beit-base-p16_8xb256-amp-coslr-1600e_in1k.py'
max_epochs = 90
model = dict(
    data_preprocessor=dict(mean=[127.5] * 3, std=[127.5] * 3),
    backbone=dict(
        arch=dict(_delete_=True, embed_dims=64, num_layers=4, num_heads=2, feedforward_channels=256),
        img_size=16,
        patch_size=4,
        drop_path_rate=0.0,
    ),
    neck=dict(early_layers=3),
    target_generator=dict(
        arch=dict(embed_dims=64, num_layers=2, num_heads=2, feedforward_channels=256),
        img_size=16,
        patch_size=4,
        num_codes=128,
        init_cfg=dict(checkpoint='work_dirs/quickstart-v2/vqkd/epoch_25.pth'),
    ),
)
train_dataloader = dict(
    batch_size=64,
    num_workers=1,
    pin_memory=False,
    dataset=dict(
        data_root='data/digits/',
        pipeline=[
            dict(type='mmbeit.SeedTransforms'),
            dict(type='mmbeit.LoadImage', on_error='skip'),
            dict(
                type='mmbeit.RandomResizedCropTwoViews',
                size=16,
                target_size=16,
                scale=(0.5, 1.0),
                target_interpolation='bicubic',
            ),
            dict(type='mmbeit.BlockwiseMask', grid=4, num_masked=6, min_block=1, exact=True),
            dict(type='PackInputs'),
        ],
    ),
)
optim_wrapper = dict(optimizer=dict(lr=5e-3))
_base_.param_scheduler[1].end = max_epochs
train_cfg = dict(max_epochs=max_epochs)
default_hooks = dict(logger=dict(interval=22), checkpoint=dict(interval=max_epochs))
