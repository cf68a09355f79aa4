# ImageNet-22k, scaled to [-1, 1] as ImageNet-1k in `imagenet_finetune_half.py`.
_base_ = 'imagenet21k_finetune.py'
mean = [127.5] * 3
std = [127.5] * 3
data_preprocessor = dict(mean=mean, std=std)
_base_.train_pipeline[4].hparams.pad_val = [round(x) for x in mean]
_base_.train_pipeline[5].update(mean=mean, std=std)
train_pipeline = _base_.train_pipeline
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
