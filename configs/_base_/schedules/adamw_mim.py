# Official pretraining of BEiT v1: batch 2048, AdamW, 10 warm-up epochs, cosine to 1e-5 (unilm:beit/README.md).
optim_wrapper = dict(
    type='mmbeit.AutocastOptimWrapper',  # bfloat16; for float16: dict(type='AmpOptimWrapper', dtype='float16')
    optimizer=dict(type='AdamW', lr=1.5e-3, betas=(0.9, 0.999), weight_decay=0.05, fused=True),
    constructor='mmbeit.LayerDecayOptimWrapperConstructor',
    clip_grad=dict(max_norm=3.0),
)
max_epochs = 800
param_scheduler = [
    # From 0: the scheduler multiplies step by step, which an exact 0 would not survive.
    dict(type='LinearLR', start_factor=1e-12, by_epoch=True, begin=0, end=10, convert_to_iter_based=True),
    dict(
        type='CosineAnnealingLR',
        eta_min_ratio=1e-5 / 1.5e-3,
        by_epoch=True,
        begin=10,
        end=max_epochs,
        convert_to_iter_based=True,
    ),
]
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=max_epochs)
auto_scale_lr = dict(base_batch_size=2048, enable=False)
