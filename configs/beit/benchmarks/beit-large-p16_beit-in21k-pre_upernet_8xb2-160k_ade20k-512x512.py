# UPerNet with BEiT large on ADE20K from weights that were pretrained and fine-tuned on ImageNet-22k, 8 GPUs x 2 images,
# 512 pixels.
# Run: tools/dist_train.sh
#      configs/beit/benchmarks/beit-large-p16_beit-in21k-pre_upernet_8xb2-160k_ade20k-512x512.py 8
#      --cfg-options model.backbone.init_cfg.checkpoint=PATH   where the weights are elsewhere
# Cost: 440 M parameters, 1,247 GFLOPs an image of 512 x 512 pixels forward.
# The recipe is official; no result of it is published, only of the one at 640 pixels. Not measured here.
_base_ = [
    '../../_base_/models/upernet_beit-large-p16.py',
    '../../_base_/datasets/ade20k.py',
    '../../_base_/schedules/adamw_segmentation.py',
    '../../_base_/segmentation_runtime.py',
]
lr = 2e-5
model = dict(
    backbone=dict(
        init_cfg=dict(
            checkpoint='work_dirs/beit-large-p16_beit-mim-in21k-pre_16xb64-accu2-coslr-90e_in21k/epoch_90.pth'
        )
    )
)
optim_wrapper = dict(optimizer=dict(lr=lr), paramwise_cfg=dict(layer_decay_rate=0.95))
