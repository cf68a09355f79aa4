# The third quickstart's pretraining: masked data modeling, shrunk to pictures of 16 x 48 pixels, 3 blocks of width 64.
# Of a batch of 64 half are pairs, since these are what the tasks are about.
# Run: python tools/train.py configs/beit3/quickstart/beit3_beit3-mini-p16_1xb64-coslr-2500_digit-image-text.py
_base_ = '../beit3_beit3-base-p16_16xb384-amp-coslr-1000k_image-text.py'
data_root = 'data/digit_pairs'
tokenizer = f'{data_root}/text.spm'
max_iters = 2500
size = (16, 48)
model = dict(
    data_preprocessor=dict(mean=[50] * 3, std=[60] * 3),  # of these pictures, so that the ground is near 0
    backbone=dict(
        arch=dict(_delete_=True, embed_dims=64, num_layers=3, num_heads=4, feedforward_channels=256),
        img_size=size,
        vocab_size=84,
        num_text_positions=32,
        drop_path_rate=0.0,
    ),
    target_generator=dict(
        arch=dict(embed_dims=64, num_layers=2, num_heads=2, feedforward_channels=128),
        img_size=size,
        patch_size=16,
        num_codes=128,
        init_cfg=dict(checkpoint='work_dirs/quickstart-v3/vqkd/epoch_12.pth'),
    ),
)
image_steps = [
    dict(type='mmbeit.LoadImage'),
    dict(type='mmbeit.RandomResizedCropTwoViews', size=size, target_size=size, scale=(1.0, 1.0), ratio=(3.0, 3.0)),
    dict(type='mmbeit.BlockwiseMask', grid=(1, 3), num_masked=1, min_block=1, exact=True),
]
words = dict(type='mmbeit.TokenizeText', tokenizer=tokenizer, max_length=30)
pack = _base_.pack
train_dataloader = dict(
    batch_size=64,
    num_workers=1,
    pin_memory=False,
    dataset=dict(
        ratio=dict(image=1, text=1, pair=2),
        groups=dict(
            image=dict(data_root=data_root, data_prefix='train2014', pipeline=[*image_steps, pack]),
            text=dict(
                data_root=data_root,
                pipeline=[
                    words,
                    dict(type='mmbeit.MaskText', tokenizer=tokenizer, probability=0.15, mask_end=False),
                    pack,
                ],
            ),
            pair=dict(
                data_root=data_root,
                pipeline=[
                    *image_steps,
                    words,
                    dict(type='mmbeit.MaskText', tokenizer=tokenizer, probability=0.5, mask_end=False),
                    pack,
                ],
            ),
        ),
    ),
)
optim_wrapper = dict(optimizer=dict(lr=5e-3))
_base_.param_scheduler[0].end = 250
_base_.param_scheduler[1].update(begin=250, end=max_iters)
train_cfg = dict(max_iters=max_iters)
default_hooks = dict(logger=dict(interval=50), checkpoint=dict(interval=max_iters))
