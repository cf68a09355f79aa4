# Official training of VQ-KD: batch 512, AdamW at 5e-5 for each 128 images, 10 warm-up epochs, cosine to 1e-5, gradients
# unclipped (unilm:beit2/TOKENIZER.md, run_vqkd_training.py).
lr = 2e-4
max_epochs = 100
optim_wrapper = dict(
    type='mmbeit.AutocastOptimWrapper',  # bfloat16; for float16: dict(type='AmpOptimWrapper', dtype='float16')
    optimizer=dict(type='AdamW', lr=lr, betas=(0.9, 0.99), weight_decay=1e-4, fused=True),
    constructor='mmbeit.LayerDecayOptimWrapperConstructor',
)
param_scheduler = [
    # From 0: the scheduler multiplies step by step, which an exact 0 would not survive.
    dict(type='LinearLR', start_factor=1e-12, by_epoch=True, begin=0, end=10, convert_to_iter_based=True),
    dict(
        type='CosineAnnealingLR',
        eta_min_ratio=1e-5 / lr,
        by_epoch=True,
        begin=10,
        end=max_epochs,
        convert_to_iter_based=True,
    ),
]
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=max_epochs, val_interval=1)
val_cfg = dict()
test_cfg = dict()
auto_scale_lr = dict(base_batch_size=512, enable=False)
