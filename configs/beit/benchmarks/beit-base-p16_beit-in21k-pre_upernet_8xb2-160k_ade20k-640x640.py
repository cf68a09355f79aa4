# UPerNet with BEiT base on ADE20K from weights that were pretrained and fine-tuned on ImageNet-22k, 8 GPUs x 2 images,
# 640 pixels; else as at 512.
# Run: tools/dist_train.sh
#      configs/beit/benchmarks/beit-base-p16_beit-in21k-pre_upernet_8xb2-160k_ade20k-640x640.py 8
#      --cfg-options model.backbone.init_cfg.checkpoint=PATH   where the weights are elsewhere
# Cost: 163 M parameters, 962 GFLOPs an image of 640 x 640 pixels forward.
# Expect 53.6 % mIoU, and 54.2 % with `tools/test.py --tta` (unilm:beit/README.md); not measured here.
_base_ = 'beit-base-p16_beit-in21k-pre_upernet_8xb2-160k_ade20k-512x512.py'
model = dict(
    data_preprocessor=dict(size=(640, 640)),
    backbone=dict(img_size=640),
    test_cfg=dict(crop_size=(640, 640), stride=(426, 426)),
)
_base_.train_pipeline[3].scale = _base_.test_pipeline[1].scale = (2560, 640)
_base_.train_pipeline[4].crop_size = 640
_base_.tta_pipeline[1].transforms[0] = [
    dict(type='ResizeShortestEdge', scale=side, max_size=1_000_000) for side in (640, 640, 640, 800, 960, 1120)
]
train_dataloader = dict(dataset=dict(pipeline=_base_.train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=_base_.test_pipeline))
test_dataloader = val_dataloader
