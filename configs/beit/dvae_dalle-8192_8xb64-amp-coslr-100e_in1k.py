# A discrete VAE of the size of DALL-E's, on any folder of images, 8 GPUs x 64 images of 256 x 256 pixels.
# Run: tools/dist_train.sh configs/beit/dvae_dalle-8192_8xb64-amp-coslr-100e_in1k.py 8
# Cost: 98 M parameters. The schedule follows https://arxiv.org/abs/2102.12092, appendix A.2, but for the number of
# updates (theirs: 3 M on 250 M images); there is no published run of this recipe.
# On other images: --cfg-options train_dataloader.dataset.data_root=DIR val_dataloader.dataset.data_root=DIR
_base_ = '../_base_/default_runtime.py'
max_epochs = 100
model = dict(
    type='mmbeit.DiscreteVAE',
    num_codes=8192,
    data_preprocessor=dict(type='mmbeit.MIMDataPreprocessor', mean=[0.0] * 3, std=[255.0] * 3),
)
train_pipeline = [
    dict(type='mmbeit.SeedTransforms'),
    dict(type='mmbeit.LoadImage', on_error='skip'),
    dict(type='torchvision/RandomResizedCrop', size=256, scale=(0.5, 1.0), interpolation='bicubic'),
    dict(type='torchvision/RandomHorizontalFlip'),
    dict(type='PackInputs'),
]
val_pipeline = [
    dict(type='mmbeit.LoadImage'),
    dict(type='torchvision/Resize', size=256, interpolation='bicubic'),
    dict(type='torchvision/CenterCrop', size=256),
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
    sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        type='CustomDataset', data_root='data/imagenet/', data_prefix='val', with_label=False, pipeline=val_pipeline
    ),
)
val_evaluator = dict(type='mmbeit.CodebookUsage')
test_dataloader = val_dataloader
test_evaluator = val_evaluator
custom_hooks = [
    dict(type='mmbeit.StepSeedHook'),
    dict(type='mmbeit.TrimLogHook'),
    dict(type='mmbeit.AnnealHook', attr='temperature', start=1.0, end=1 / 16, num_iters=150_000),
    dict(type='mmbeit.AnnealHook', attr='kl_weight', start=0.0, end=6.6, num_iters=5000),
]
optim_wrapper = dict(
    type='mmbeit.AutocastOptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-4, betas=(0.9, 0.999), weight_decay=1e-4, fused=True),
    constructor='mmbeit.LayerDecayOptimWrapperConstructor',
)
param_scheduler = dict(
    type='CosineAnnealingLR', eta_min_ratio=1.25e-2, by_epoch=True, end=max_epochs, convert_to_iter_based=True
)
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=max_epochs, val_interval=1)
val_cfg = dict()
test_cfg = dict()
auto_scale_lr = dict(base_batch_size=512, enable=False)
