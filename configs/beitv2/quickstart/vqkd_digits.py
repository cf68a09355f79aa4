# VQ-KD on scans of 16 x 16 pixels, one token for 4 x 4: the ImageNet recipe, shrunk, and kept from losing codes.
# Run: python tools/train.py configs/beitv2/quickstart/vqkd_digits.py, after `make digits`
# The teacher has random weights: enough to see what becomes of a codebook, and nothing to download. With
# --cfg-options model.tokenizer.revive_below=0 the quantizer is the official one. What both give, here and on
# data/tiles/ (tools/dataset_converters/tiles.py), is in tools/benchmarks/results/codebook_usage_cpu_202611.md.
_base_ = '../vqkd_base-1x768x12-clip_8xb64-amp-coslr-100e_in1k.py'
max_epochs = 40
model = dict(
    tokenizer=dict(
        arch=dict(_delete_=True, embed_dims=64, num_layers=2, num_heads=2, feedforward_channels=128),
        img_size=16,
        patch_size=4,
        num_codes=512,
        revive_below=0.1,
    ),
    teacher=dict(
        _delete_=True,
        type='mmbeit.TimmTeacher',
        model_name='vit_tiny_patch16_224',
        stride=4,
        img_size=16,
        patch_size=4,
        embed_dim=64,
        depth=2,
        num_heads=2,
    ),
)
pipeline = [  # uncropped: a crop shows other patches than those that are evaluated
    dict(type='mmbeit.SeedTransforms'),
    dict(type='mmbeit.LoadImage'),
    dict(type='torchvision/Resize', size=16, interpolation='bicubic'),
    dict(type='PackInputs'),
]
train_dataloader = dict(
    num_workers=0,
    persistent_workers=False,
    pin_memory=False,
    dataset=dict(data_root='data/digits/', pipeline=pipeline),
)
val_dataloader = dict(
    batch_size=128,
    num_workers=0,
    persistent_workers=False,
    pin_memory=False,
    dataset=dict(data_root='data/digits/', pipeline=pipeline[1:]),
)
test_dataloader = val_dataloader
custom_hooks = [
    dict(type='mmbeit.StepSeedHook'),
    dict(type='mmbeit.CodebookHook', interval=20, min_usage=2, patience=10),
]
optim_wrapper = dict(optimizer=dict(lr=1e-3))
_base_.param_scheduler[0].end = 2
_base_.param_scheduler[1].update(begin=2, end=max_epochs)
train_cfg = dict(max_epochs=max_epochs, val_interval=10)
default_hooks = dict(logger=dict(interval=20), checkpoint=dict(interval=max_epochs, max_keep_ckpts=1))
