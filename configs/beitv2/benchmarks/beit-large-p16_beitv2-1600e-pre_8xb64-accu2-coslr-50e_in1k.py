# BEiT v2 large, fine-tuned on ImageNet-1k after 1600 epochs of pretraining, 8 GPUs x 64 images x 2 steps, 224 pixels.
# Run: tools/dist_train.sh configs/beitv2/benchmarks/beit-large-p16_beitv2-1600e-pre_8xb64-accu2-coslr-50e_in1k.py 8
#      --cfg-options model.backbone.init_cfg.checkpoint=PATH   where the weights are elsewhere
# Cost: 304 M parameters, 61.6 GFLOPs an image forward.
# Expect 87.3 % top-1, 98.2 % top-5 (unilm:beit2/README.md); not measured here.
_base_ = [
    '../../_base_/models/beit-large-p16.py',
    '../../_base_/datasets/imagenet_finetune.py',
    '../../_base_/schedules/adamw_finetune_50e.py',
    '../../_base_/default_runtime.py',
]
lr = 2e-4
model = dict(
    backbone=dict(
        init_cfg=dict(checkpoint='work_dirs/beitv2_beit-large-p16_16xb128-amp-coslr-1600e_in1k/epoch_1600.pth')
    )
)
train_dataloader = dict(batch_size=64)
optim_wrapper = dict(optimizer=dict(lr=lr), paramwise_cfg=dict(layer_decay_rate=0.8))
_base_.param_scheduler[1].eta_min_ratio = 1e-6 / lr
