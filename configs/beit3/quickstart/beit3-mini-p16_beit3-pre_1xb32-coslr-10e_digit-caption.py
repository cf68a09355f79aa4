# Of the third quickstart: captions of pictures of digits, from the weights of its masked data modeling.
# Run: python tools/train.py configs/beit3/quickstart/beit3-mini-p16_beit3-pre_1xb32-coslr-10e_digit-caption.py
# From scratch: --cfg-options model.init_cfg=None
# Measured twice: 86.3 and 87.3 % of 300 captions exactly right, 87.7 and 87.0 from scratch.
_base_ = '../benchmarks/beit3-base-p16_beit3-pre_8xb32-coslr-10e_coco-caption-480px.py'
data_root = 'data/digit_pairs'
tokenizer = f'{data_root}/text.spm'
max_epochs = 10
lr = 4e-3
model = dict(
    data_preprocessor=dict(mean=[50] * 3, std=[60] * 3),
    backbone=dict(
        arch=dict(_delete_=True, embed_dims=64, num_layers=3, num_heads=4, feedforward_channels=256),
        img_size=(16, 48),
        vocab_size=84,
        num_text_positions=32,
        drop_path_rate=0.0,
        with_cp=False,
        init='subln',
    ),
    tokenizer=tokenizer,
    mask_id=83,
    max_length=16,
    init_cfg=dict(checkpoint='work_dirs/quickstart-v3/pretrain/iter_2500.pth'),
)
load = dict(type='mmbeit.LoadImageFromFile', imdecode_backend='cv2')
train_pipeline = [
    dict(type='mmbeit.SeedTransforms'),
    load,
    dict(type='mmbeit.TokenizeText', key='gt_caption', tokenizer=tokenizer, max_length=30),
    dict(type='mmbeit.MaskText', tokenizer=tokenizer, probability=0.5),
    _base_.train_pipeline[-1],
]
train_dataloader = dict(
    batch_size=32,
    num_workers=1,
    pin_memory=False,
    dataset=dict(data_root=data_root, split='train', pipeline=train_pipeline),
)
val_dataloader = dict(
    batch_size=100,
    num_workers=0,
    persistent_workers=False,
    pin_memory=False,
    dataset=dict(data_root=data_root, split='val', pipeline=[load, _base_.test_pipeline[-1]]),
)
test_dataloader = val_dataloader
val_evaluator = dict(_delete_=True, type='mmbeit.CaptionExactMatch')
test_evaluator = val_evaluator
optim_wrapper = dict(optimizer=dict(lr=lr))
_base_.param_scheduler[1].update(end=max_epochs, eta_min_ratio=1e-6 / lr)
train_cfg = dict(max_epochs=max_epochs, val_interval=5)
default_hooks = dict(logger=dict(interval=50), checkpoint=dict(interval=max_epochs))
