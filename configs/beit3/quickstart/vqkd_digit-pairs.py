# The third quickstart's visual tokenizer: VQ-KD on pictures of digits, a token for 16 x 16 pixels.
# Run: python tools/train.py configs/beit3/quickstart/vqkd_digit-pairs.py, after `make digit-pairs`
# The teacher has random weights, so the tokens say what a patch looks like: there are no photographs for CLIP here, and
# nothing is downloaded.
_base_ = '../../beitv2/quickstart/vqkd_digits.py'
data_root = 'data/digit_pairs'
max_epochs = 12
size = (16, 48)
model = dict(
    tokenizer=dict(img_size=size, patch_size=16, num_codes=128),
    teacher=dict(
        _delete_=True,
        type='mmbeit.BEiTTeacher',
        backbone=dict(
            arch=dict(embed_dims=64, num_layers=1, num_heads=2, feedforward_channels=128),
            img_size=size,
            patch_size=16,
        ),
        mean=[0.2] * 3,
        std=[0.24] * 3,
    ),
)
pipeline = [
    dict(type='mmbeit.SeedTransforms'),
    dict(type='mmbeit.LoadImage'),
    dict(type='PackInputs'),
]
train_dataloader = dict(batch_size=128, dataset=dict(data_root=data_root, data_prefix='train2014', pipeline=pipeline))
val_dataloader = dict(dataset=dict(data_root=data_root, data_prefix='val2014', pipeline=pipeline[1:]))
test_dataloader = val_dataloader
optim_wrapper = dict(optimizer=dict(lr=2e-3))
_base_.param_scheduler[0].end = 1
_base_.param_scheduler[1].update(begin=1, end=max_epochs)
train_cfg = dict(max_epochs=max_epochs, val_interval=max_epochs)
default_hooks = dict(checkpoint=dict(interval=max_epochs))
