# BEiT-3 base, its vision alone, fine-tuned on ImageNet-1k, 8 GPUs x 128 images, 224 pixels.
# Run: tools/dist_train.sh configs/beit3/benchmarks/beit3-base-p16_beit3-pre_8xb128-coslr-50e_in1k.py 8
#      --cfg-options model.backbone.init_cfg.checkpoint=PATH   where the weights are elsewhere
# Cost: 86.7 M parameters, 17.6 GFLOPs an image forward.
# Expect 85.4 % top-1, 97.6 % top-5 (unilm:beit3/README.md); not measured here.
_base_ = [
    '../../_base_/models/beit3-base-p16_classifier.py',
    '../../_base_/datasets/imagenet_finetune.py',
    '../../_base_/schedules/adamw_finetune.py',
    '../../_base_/default_runtime.py',
]
lr = 7e-4
warmup_epochs = 5
max_epochs = 50
model = dict(
    backbone=dict(
        init_cfg=dict(checkpoint='https://github.com/addf400/files/releases/download/beit3/beit3_base_patch16_224.pth'),
    )
)
optim_wrapper = dict(optimizer=dict(lr=lr))
_base_.param_scheduler[0].end = warmup_epochs
_base_.param_scheduler[1].update(begin=warmup_epochs, end=max_epochs, eta_min_ratio=1e-6 / lr)
train_cfg = dict(max_epochs=max_epochs)
_base_.test_pipeline[1].scale = 224  # the whole short side
val_dataloader = dict(dataset=dict(pipeline=_base_.test_pipeline))
test_dataloader = val_dataloader
