# UPerNet with BEiT v2 base on ADE20K from weights fine-tuned on ImageNet-22k, 8 GPUs x 2 images, 512 pixels.
# Run: tools/dist_train.sh
#      configs/beitv2/benchmarks/beit-base-p16_beitv2-in21k-pre_upernet_8xb2-160k_ade20k-512x512.py 8
#      --cfg-options model.backbone.init_cfg.checkpoint=PATH   where the weights are elsewhere
# Cost: 163 M parameters, 605 GFLOPs an image of 512 x 512 pixels forward.
# Expect 53.5 % mIoU (unilm:beit2/README.md); not measured here.
_base_ = [
    '../../_base_/models/upernet_beit-base-p16.py',
    '../../_base_/datasets/ade20k.py',
    '../../_base_/schedules/adamw_segmentation.py',
    '../../_base_/segmentation_runtime.py',
]
lr = 5e-5
model = dict(
    backbone=dict(
        drop_path_rate=0.15,
        init_cfg=dict(checkpoint='work_dirs/beit-base-p16_beitv2-1600e-pre_32xb128-coslr-90e_in21k/epoch_90.pth'),
    )
)
optim_wrapper = dict(optimizer=dict(lr=lr), paramwise_cfg=dict(layer_decay_rate=0.85))
