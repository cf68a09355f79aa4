# Pretraining of BEiT-3 (paper, appendix): batch 6144, AdamW, 10k steps of warm-up, cosine. Where it ends is not
# published: 1e-5, as for BEiT.
optim_wrapper = dict(
    type='mmbeit.AutocastOptimWrapper',  # bfloat16; for float16: dict(type='AmpOptimWrapper', dtype='float16')
    optimizer=dict(type='AdamW', lr=1e-3, betas=(0.9, 0.98), eps=1e-6, weight_decay=0.05, fused=True),
    constructor='mmbeit.LayerDecayOptimWrapperConstructor',
    clip_grad=dict(max_norm=3.0),
)
max_iters = 1_000_000
param_scheduler = [
    # From 0: the scheduler multiplies step by step, which an exact 0 would not survive.
    dict(type='LinearLR', start_factor=1e-12, by_epoch=False, begin=0, end=10_000),
    dict(type='CosineAnnealingLR', eta_min_ratio=1e-5 / 1e-3, by_epoch=False, begin=10_000, end=max_iters),
]
train_cfg = dict(type='IterBasedTrainLoop', max_iters=max_iters)
auto_scale_lr = dict(base_batch_size=6144, enable=False)
