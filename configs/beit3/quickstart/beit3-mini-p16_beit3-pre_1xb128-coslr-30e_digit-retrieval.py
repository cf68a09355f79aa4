# Of the third quickstart: finding pictures of digits by captions, and captions by pictures, from the weights of its
# masked data modeling, without a contrastive tuning in between.
# Run: python tools/train.py configs/beit3/quickstart/beit3-mini-p16_beit3-pre_1xb128-coslr-30e_digit-retrieval.py
# From scratch: --cfg-options model.init_cfg=None
# Measured twice, R@1 among 300: 46.0 and 63.7 % for texts, 44.3 and 59.3 % for images; from scratch it learns nothing
# in this time.
_base_ = '../benchmarks/beit3-base-p16_beit3-itc-pre_16xb192-coslr-15e_coco-retrieval-384px.py'
data_root = 'data/digit_pairs'
tokenizer = f'{data_root}/text.spm'
max_epochs = 30
lr = 2.5e-3
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
    init_cfg=dict(checkpoint='work_dirs/quickstart-v3/pretrain/iter_2500.pth'),
)
load = dict(type='mmbeit.LoadImageFromFile', imdecode_backend='cv2')
words = dict(type='mmbeit.TokenizeText', tokenizer=tokenizer, max_length=30)
train_dataloader = dict(
    batch_size=128,
    num_workers=1,
    pin_memory=False,
    dataset=dict(
        data_root=data_root,
        split='train',
        pipeline=[dict(type='mmbeit.SeedTransforms'), load, words, _base_.train_pipeline[-1]],
    ),
)
val_dataloader = dict(
    batch_size=100,
    num_workers=0,
    persistent_workers=False,
    pin_memory=False,
    dataset=dict(data_root=data_root, split='val', pipeline=[load, words, _base_.test_pipeline[-1]]),
)
test_dataloader = val_dataloader
optim_wrapper = dict(optimizer=dict(lr=lr), paramwise_cfg=dict(layer_decay_rate=1.0))
_base_.param_scheduler[0].end = 1
_base_.param_scheduler[1].update(begin=1, end=max_epochs, eta_min_ratio=1e-6 / lr)
train_cfg = dict(max_epochs=max_epochs, val_interval=10)
default_hooks = dict(logger=dict(interval=20), checkpoint=dict(interval=max_epochs))
