# UPerNet with BEiT large on ADE20K from weights that were pretrained and fine-tuned on ImageNet-22k, 8 GPUs x 1 image x
# 2 steps, 640 pixels; else as at 512. Iterations are of 8 images: 320,000 of them are 160,000 updates.
# Run: tools/dist_train.sh
#      configs/beit/benchmarks/beit-large-p16_beit-in21k-pre_upernet_8xb1-accu2-320k_ade20k-640x640.py 8
#      --cfg-options model.backbone.init_cfg.checkpoint=PATH   where the weights are elsewhere
# Cost: 441 M parameters, 1,993 GFLOPs an image of 640 x 640 pixels forward.
# Expect 56.7 % mIoU, and 57.0 % with `tools/test.py --tta` (unilm:beit/README.md); not measured here.
_base_ = 'beit-large-p16_beit-in21k-pre_upernet_8xb2-160k_ade20k-512x512.py'
warmup_iters = 3000
max_iters = 320_000
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
train_dataloader = dict(batch_size=1, dataset=dict(pipeline=_base_.train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=_base_.test_pipeline))
test_dataloader = val_dataloader
optim_wrapper = dict(accumulative_counts=2)
_base_.param_scheduler[0].end = warmup_iters + 1
_base_.param_scheduler[1].end = max_iters + 1
train_cfg = dict(max_iters=max_iters, val_interval=32_000)
default_hooks = dict(checkpoint=dict(interval=32_000))
auto_scale_lr = dict(base_batch_size=8)
