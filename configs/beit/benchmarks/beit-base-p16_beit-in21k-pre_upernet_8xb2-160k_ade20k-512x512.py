# UPerNet with BEiT base on ADE20K from weights that were pretrained and fine-tuned on ImageNet-22k, 8 GPUs x 2 images,
# 512 pixels.
# Run: tools/dist_train.sh
#      configs/beit/benchmarks/beit-base-p16_beit-in21k-pre_upernet_8xb2-160k_ade20k-512x512.py 8
#      --cfg-options model.backbone.init_cfg.checkpoint=PATH   where the weights are elsewhere
# Cost: 163 M parameters, 605 GFLOPs an image of 512 x 512 pixels forward.
# The recipe is official; no result of it is published, only of the one at 640 pixels. Not measured here.
_base_ = [
    '../../_base_/models/upernet_beit-base-p16.py',
    '../../_base_/datasets/ade20k.py',
    '../../_base_/schedules/adamw_segmentation.py',
    '../../_base_/segmentation_runtime.py',
]
model = dict(
    backbone=dict(
        init_cfg=dict(checkpoint='work_dirs/beit-base-p16_beit-mim-in21k-pre_16xb256-coslr-90e_in21k/epoch_90.pth')
    )
)
