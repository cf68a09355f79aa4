# UPerNet with BEiT base on ADE20K from self-supervised weights of ImageNet-1k, 8 GPUs x 2 images, 512 pixels.
# Run: tools/dist_train.sh
#      configs/beit/benchmarks/beit-base-p16_beit-pre_upernet_8xb2-160k_ade20k-512x512.py 8
#      --cfg-options model.backbone.init_cfg.checkpoint=PATH   where the weights are elsewhere
# Cost: 163 M parameters, 605 GFLOPs an image of 512 x 512 pixels forward.
# The recipe is official, recommended there for weights that have not seen labels yet; with the code no result of it is
# published, and it was not measured here.
_base_ = [
    '../../_base_/models/upernet_beit-base-p16.py',
    '../../_base_/datasets/ade20k.py',
    '../../_base_/schedules/adamw_segmentation.py',
    '../../_base_/segmentation_runtime.py',
]
lr = 7e-4
model = dict(
    backbone=dict(init_cfg=dict(checkpoint='work_dirs/beit_beit-base-p16_8xb256-amp-coslr-800e_in1k/epoch_800.pth'))
)
optim_wrapper = dict(optimizer=dict(lr=lr), paramwise_cfg=dict(layer_decay_rate=0.65))
