# The quickstart's tokenizer: the ImageNet recipe, shrunk to scans of 16 x 16 pixels. One token stands for 4 x 4.
# Run: python tools/train.py configs/beit/quickstart/dvae_digits.py, after `make digits`
_base_ = '../dvae_dalle-8192_8xb64-amp-coslr-100e_in1k.py'
max_epochs = 20
# The third term: without it five of the 128 codes were in use in the end, with it seventy.
model = dict(num_codes=128, width=32, num_groups=3, num_blocks=1, usage_weight=2.0)
train_dataloader = dict(
    batch_size=64,
    num_workers=0,
    persistent_workers=False,
    pin_memory=False,
    dataset=dict(
        data_root='data/digits/',
        pipeline=[
            dict(type='mmbeit.SeedTransforms'),
            dict(type='mmbeit.LoadImage', on_error='skip'),
            dict(type='torchvision/RandomResizedCrop', size=16, scale=(0.5, 1.0), interpolation='bicubic'),
            dict(type='PackInputs'),
        ],
    ),
)
val_dataloader = dict(
    batch_size=128,
    num_workers=0,
    persistent_workers=False,
    dataset=dict(
        data_root='data/digits/',
        pipeline=[
            dict(type='mmbeit.LoadImage'),
            dict(type='torchvision/Resize', size=16, interpolation='bicubic'),
            dict(type='PackInputs'),
        ],
    ),
)
test_dataloader = val_dataloader
custom_hooks = [
    dict(type='mmbeit.StepSeedHook'),
    dict(type='mmbeit.AnnealHook', attr='temperature', start=1.0, end=1 / 16),
    dict(type='mmbeit.AnnealHook', attr='kl_weight', start=0.0, end=0.1, num_iters=200),
]
optim_wrapper = dict(optimizer=dict(lr=5e-3))
param_scheduler = dict(end=max_epochs)
train_cfg = dict(max_epochs=max_epochs, val_interval=5)
default_hooks = dict(logger=dict(interval=10), checkpoint=dict(interval=max_epochs, max_keep_ckpts=1))
