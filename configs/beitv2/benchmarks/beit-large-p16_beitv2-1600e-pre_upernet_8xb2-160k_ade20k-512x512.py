# UPerNet with BEiT v2 large on ADE20K after 1600 epochs of pretraining, 8 GPUs x 2 images, 512 pixels.
# Run: tools/dist_train.sh
#      configs/beitv2/benchmarks/beit-large-p16_beitv2-1600e-pre_upernet_8xb2-160k_ade20k-512x512.py 8
#      --cfg-options model.backbone.init_cfg.checkpoint=PATH   where the weights are elsewhere
# Cost: 440 M parameters, 1,247 GFLOPs an image of 512 x 512 pixels forward.
# Expect 56.7 % mIoU (unilm:beit2/README.md); not measured here.
_base_ = [
    '../../_base_/models/upernet_beit-large-p16.py',
    '../../_base_/datasets/ade20k.py',
    '../../_base_/schedules/adamw_segmentation.py',
    '../../_base_/segmentation_runtime.py',
]
lr = 4e-5
model = dict(
    backbone=dict(
        init_cfg=dict(checkpoint='work_dirs/beitv2_beit-large-p16_16xb128-amp-coslr-1600e_in1k/epoch_1600.pth')
    )
)
optim_wrapper = dict(optimizer=dict(lr=lr), paramwise_cfg=dict(layer_decay_rate=0.9))
