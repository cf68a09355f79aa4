# Official fine-tuning of a base model on ImageNet-22k from self-supervised weights, batch 4096 (unilm:beit/README.md).
# The commands there ask for gradient clipping, too, which their DeepSpeed engine ignores: the published weights were
# trained without. Nothing is evaluated on the way.
_base_ = 'adamw_finetune.py'
lr = 3e-3
warmup_epochs = 5
max_epochs = 90
optim_wrapper = dict(optimizer=dict(lr=lr))
_base_.param_scheduler[0].end = warmup_epochs
_base_.param_scheduler[1].update(begin=warmup_epochs, end=max_epochs, eta_min_ratio=1e-6 / lr)
train_cfg = dict(max_epochs=max_epochs)
val_cfg = None
auto_scale_lr = dict(base_batch_size=4096)
