# The quickstart's pretraining: the ImageNet recipe, shrunk to scans of 16 x 16 pixels, patches of 4 x 4, 4 blocks.
# Run: python tools/train.py configs/beit/quickstart/beit_beit-mini-p4_1xb64-amp-coslr-90e_digits.py
_base_ = '../beit_beit-base-p16_8xb256-amp-coslr-800e_in1k.py'
max_epochs = 90
model = dict(
    data_preprocessor=dict(mean=[127.5] * 3, std=[127.5] * 3),
    backbone=dict(
        arch=dict(_delete_=True, embed_dims=64, num_layers=4, num_heads=2, feedforward_channels=256),
        img_size=16,
        patch_size=4,
        drop_path_rate=0.0,
    ),
    target_generator=dict(
        num_codes=128,
        width=32,
        num_groups=3,
        num_blocks=1,
        decoder=True,  # for the pictures
        init_cfg=dict(checkpoint='work_dirs/quickstart/dvae/epoch_20.pth'),
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
            dict(type='mmbeit.RandomResizedCropTwoViews', size=16, target_size=16, scale=(0.5, 1.0)),
            dict(type='mmbeit.BlockwiseMask', grid=4, num_masked=6, min_block=1),
            dict(type='PackInputs'),
        ],
    ),
)
optim_wrapper = dict(optimizer=dict(lr=5e-3))
_base_.param_scheduler[1].end = max_epochs
train_cfg = dict(max_epochs=max_epochs)
default_hooks = dict(logger=dict(interval=22), checkpoint=dict(interval=max_epochs))
