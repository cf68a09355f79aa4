# Official fine-tuning of BEiT-3 on images with texts, ten epochs without layer decay; recipes have the other numbers
# (unilm:beit3/get_started/). The warm-up and the floor are those of adamw_finetune.py.
_base_ = 'adamw_finetune.py'
lr = 4e-5
warmup_epochs = 1
max_epochs = 10
optim_wrapper = dict(optimizer=dict(lr=lr), paramwise_cfg=dict(layer_decay_rate=1.0))
_base_.param_scheduler[0].end = warmup_epochs
_base_.param_scheduler[1].update(begin=warmup_epochs, end=max_epochs, eta_min_ratio=1e-6 / lr)
train_cfg = dict(max_epochs=max_epochs)
auto_scale_lr = dict(base_batch_size=256)
