# Official fine-tuning: AdamW with a learning rate that decays from the head down to the stem, warm-up from 0, cosine to
# 1e-6 of the undecayed rate (unilm:beit/run_class_finetuning.py). These are the numbers of a base model from
# self-supervised weights (unilm:beit/get_started_for_image_classification.md); the files beside have the others.
lr = 4e-3
warmup_epochs = 20
max_epochs = 100
optim_wrapper = dict(
    type='mmbeit.AutocastOptimWrapper',  # bfloat16; for float16: dict(type='AmpOptimWrapper', dtype='float16')
    optimizer=dict(type='AdamW', lr=lr, betas=(0.9, 0.999), weight_decay=0.05, fused=True),
    constructor='mmbeit.LayerDecayOptimWrapperConstructor',
    paramwise_cfg=dict(layer_decay_rate=0.65),
)
param_scheduler = [
    # From 0: the scheduler multiplies step by step, which an exact 0 would not survive.
    dict(type='LinearLR', start_factor=1e-12, by_epoch=True, begin=0, end=warmup_epochs, convert_to_iter_based=True),
    # The floor is a ratio, so that it is scaled with the layer, as officially.
    dict(
        type='CosineAnnealingLR',
        eta_min_ratio=1e-6 / lr,
        by_epoch=True,
        begin=warmup_epochs,
        end=max_epochs,
        convert_to_iter_based=True,
    ),
]
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=max_epochs, val_interval=1)
val_cfg = dict()
test_cfg = dict()
# For --auto-scale-lr, which compares it with processes x batch_size: recipes that accumulate gradients divide it.
auto_scale_lr = dict(base_batch_size=1024, enable=False)
