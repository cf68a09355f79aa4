# Of the third quickstart: questions about pictures of digits, from the weights of its masked data modeling.
# Run: python tools/train.py configs/beit3/quickstart/beit3-mini-p16_beit3-pre_1xb128-coslr-20e_digit-vqa.py
# From scratch: --cfg-options model.backbone.init_cfg=None
# Measured twice: 91.1 and 92.2 % of 1,435 questions right from scratch, 90.2 and 89.5 from masked data modeling.
_base_ = '../benchmarks/beit3-base-p16_beit3-pre_8xb16-coslr-10e_vqav2-480px.py'
data_root = 'data/digit_pairs'
tokenizer = f'{data_root}/text.spm'
answers = f'{data_root}/answer2label.txt'
max_epochs = 20
warmup_epochs = 2
lr = 2e-3
model = dict(
    data_preprocessor=dict(mean=[50] * 3, std=[60] * 3),
    backbone=dict(
        arch=dict(_delete_=True, embed_dims=64, num_layers=3, num_heads=4, feedforward_channels=256),
        img_size=(16, 48),
        vocab_size=84,
        num_text_positions=32,
        drop_path_rate=0.0,
        init='subln',
        init_cfg=dict(checkpoint='work_dirs/quickstart-v3/pretrain/iter_2500.pth'),
    ),
    head=dict(num_classes=12, answers=answers),
)
load = dict(type='mmbeit.LoadImageFromFile', imdecode_backend='cv2')
words = dict(type='mmbeit.TokenizeText', key='question', tokenizer=tokenizer)
score = dict(type='mmbeit.ScoreAnswers', answers=answers)
train_pipeline = [dict(type='mmbeit.SeedTransforms'), load, words, score, _base_.train_pipeline[-1]]
val_pipeline = [load, words, score, _base_.val_pipeline[-1]]
train_dataloader = dict(
    batch_size=128,
    num_workers=1,
    pin_memory=False,
    dataset=dict(
        _delete_=True, **{**_base_.train2014, 'data_root': data_root, 'answers': answers, 'pipeline': train_pipeline}
    ),
)
val_dataloader = dict(
    batch_size=128,
    num_workers=0,
    persistent_workers=False,
    pin_memory=False,
    dataset=dict(
        _delete_=True, **{**_base_.val2014, 'data_root': data_root, 'pipeline': val_pipeline, 'test_mode': True}
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(_delete_=True, type='mmbeit.VQAAccuracy')
test_evaluator = val_evaluator
optim_wrapper = dict(optimizer=dict(lr=lr), paramwise_cfg=dict(head_lr_mult=1))
_base_.param_scheduler[0].end = warmup_epochs
_base_.param_scheduler[1].update(begin=warmup_epochs, end=max_epochs, eta_min_ratio=1e-6 / lr)
train_cfg = dict(max_epochs=max_epochs, val_interval=max_epochs // 2)
default_hooks = dict(logger=dict(interval=50), checkpoint=dict(interval=max_epochs))
