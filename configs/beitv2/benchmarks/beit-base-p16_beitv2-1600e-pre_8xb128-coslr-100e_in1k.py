# BEiT v2 base, fine-tuned on ImageNet-1k after 1600 epochs of pretraining, 8 GPUs x 128 images, 224 pixels.
# Run: tools/dist_train.sh configs/beitv2/benchmarks/beit-base-p16_beitv2-1600e-pre_8xb128-coslr-100e_in1k.py 8
#      --cfg-options model.backbone.init_cfg.checkpoint=PATH   where the weights are elsewhere
# Cost: 86.5 M parameters, 17.6 GFLOPs an image forward.
# Expect 85.5 % top-1, 97.5 % top-5 (unilm:beit2/README.md); not measured here.
_base_ = [
    '../../_base_/models/beit-base-p16.py',
    '../../_base_/datasets/imagenet_finetune.py',
    '../../_base_/schedules/adamw_finetune.py',
    '../../_base_/default_runtime.py',
]
lr = 5e-4
model = dict(
    backbone=dict(
        drop_path_rate=0.2,
        init_cfg=dict(checkpoint='work_dirs/beitv2_beit-base-p16_8xb256-amp-coslr-1600e_in1k/epoch_1600.pth'),
    )
)
optim_wrapper = dict(optimizer=dict(lr=lr), paramwise_cfg=dict(layer_decay_rate=0.6))
_base_.param_scheduler[1].eta_min_ratio = 1e-6 / lr
