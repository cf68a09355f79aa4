# Official fine-tuning on ADE20K, 160,000 steps of 16 images (unilm:beit/semantic_segmentation/configs/beit/upernet/,
# beit2/ likewise). The learning rate is linear from 1e-6 of itself during the warm-up, times linear to 0 over the whole
# training. These numbers are those of a base model from weights fine-tuned on ImageNet-22k; recipes have the others.
lr = 3e-5
warmup_iters = 1500
max_iters = 160_000
optim_wrapper = dict(
    type='mmbeit.AutocastOptimWrapper',  # bfloat16; for float16: dict(type='AmpOptimWrapper', dtype='float16')
    optimizer=dict(type='AdamW', lr=lr, betas=(0.9, 0.999), weight_decay=0.05, fused=True),
    constructor='mmbeit.LayerDecayOptimWrapperConstructor',
    # The class token is decayed, too: the official list of what is not has its name without 'backbone.'.
    paramwise_cfg=dict(layer_decay_rate=0.9, no_decay=()),
)
# A schedule of mmengine arrives at its last value one step before `end`.
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-6, by_epoch=False, begin=0, end=warmup_iters + 1),
    dict(type='PolyLR', power=1.0, eta_min=0.0, by_epoch=False, begin=0, end=max_iters + 1),
]
train_cfg = dict(type='IterBasedTrainLoop', max_iters=max_iters, val_interval=16_000)
val_cfg = dict()
test_cfg = dict()
# For --auto-scale-lr, which compares it with processes x batch_size: recipes that accumulate gradients divide it.
auto_scale_lr = dict(base_batch_size=16, enable=False)
