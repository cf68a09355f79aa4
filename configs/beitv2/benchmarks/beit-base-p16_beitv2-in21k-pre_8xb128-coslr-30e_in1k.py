# BEiT v2 base, fine-tuned on ImageNet-1k from weights that were fine-tuned on ImageNet-22k, 8 GPUs x 128 images, 224
# pixels.
# Run: tools/dist_train.sh configs/beitv2/benchmarks/beit-base-p16_beitv2-in21k-pre_8xb128-coslr-30e_in1k.py 8
#      --cfg-options model.backbone.init_cfg.checkpoint=PATH   where the weights are elsewhere
# Cost: 86.5 M parameters, 17.6 GFLOPs an image forward.
# Expect 86.5 % top-1, 98.0 % top-5 (unilm:beit2/get_started_for_image_classification.md); not measured here.
_base_ = [
    '../../_base_/models/beit-base-p16.py',
    '../../_base_/datasets/imagenet_finetune.py',
    '../../_base_/schedules/adamw_finetune.py',
    '../../_base_/default_runtime.py',
]
lr = 5e-5
max_epochs = 30
model = dict(
    backbone=dict(
        init_cfg=dict(checkpoint='work_dirs/beit-base-p16_beitv2-1600e-pre_32xb128-coslr-90e_in21k/epoch_90.pth')
    ),
    train_cfg=None,
)
optim_wrapper = dict(optimizer=dict(lr=lr), paramwise_cfg=dict(layer_decay_rate=0.75))
_base_.param_scheduler[1].update(end=max_epochs, eta_min_ratio=1e-6 / lr)
train_cfg = dict(max_epochs=max_epochs)
