# Official fine-tuning of a large model on ImageNet-1k from self-supervised weights, batch 1024 in two steps of 512
# (unilm:beit/get_started_for_image_classification.md).
_base_ = 'adamw_finetune.py'
lr = 1e-3
warmup_epochs = 5
max_epochs = 50
optim_wrapper = dict(accumulative_counts=2, optimizer=dict(lr=lr), paramwise_cfg=dict(layer_decay_rate=0.75))
_base_.param_scheduler[0].end = warmup_epochs
_base_.param_scheduler[1].update(begin=warmup_epochs, end=max_epochs, eta_min_ratio=1e-6 / lr)
train_cfg = dict(max_epochs=max_epochs)
auto_scale_lr = dict(base_batch_size=512)
