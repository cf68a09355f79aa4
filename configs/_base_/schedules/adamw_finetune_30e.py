# Official fine-tuning on ImageNet-1k from weights that were fine-tuned on ImageNet-22k, batch 512
# (unilm:beit/get_started_for_image_classification.md). Recipes set the layer decay. The weight decay is theirs: as
# good as none.
_base_ = 'adamw_finetune.py'
lr = 2e-5
warmup_epochs = 5
max_epochs = 30
optim_wrapper = dict(optimizer=dict(lr=lr, weight_decay=1e-8))
_base_.param_scheduler[0].end = warmup_epochs
_base_.param_scheduler[1].update(begin=warmup_epochs, end=max_epochs, eta_min_ratio=1e-6 / lr)
train_cfg = dict(max_epochs=max_epochs)
auto_scale_lr = dict(base_batch_size=512)
