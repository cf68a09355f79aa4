# The second quickstart's tokenizer: VQ-KD on what the first quickstart's BEiT has learned of the digits without labels.
# Run: python tools/train.py configs/beitv2/quickstart/vqkd_beit-teacher_digits.py, after `make quickstart`
_base_ = 'vqkd_digits.py'
max_epochs = 25
model = dict(
    tokenizer=dict(
        arch=dict(embed_dims=64, num_layers=2, num_heads=2, feedforward_channels=256), num_codes=128, revive_below=0.1
    ),
    teacher=dict(
        _delete_=True,
        type='mmbeit.BEiTTeacher',
        backbone=dict(
            arch=dict(embed_dims=64, num_layers=4, num_heads=2, feedforward_channels=256),
            img_size=16,
            patch_size=4,
            rel_pos_bias='shared',
        ),
        mean=[0.5] * 3,
        std=[0.5] * 3,
        init_cfg=dict(type='Pretrained', checkpoint='work_dirs/quickstart/pretrain/epoch_90.pth'),
    ),
)
train_pipeline = [
    dict(type='mmbeit.SeedTransforms'),
    dict(type='mmbeit.LoadImage', on_error='skip'),
    dict(type='torchvision/RandomResizedCrop', size=16, scale=(0.5, 1.0), interpolation='bicubic'),
    dict(type='PackInputs'),
]
train_dataloader = dict(num_workers=1, dataset=dict(pipeline=train_pipeline))
_base_.param_scheduler[1].end = max_epochs
train_cfg = dict(max_epochs=max_epochs, val_interval=max_epochs)
default_hooks = dict(checkpoint=dict(interval=max_epochs))
