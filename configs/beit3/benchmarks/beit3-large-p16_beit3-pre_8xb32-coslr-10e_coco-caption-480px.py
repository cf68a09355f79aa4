# Captions of COCO with BEiT-3 large, 8 GPUs x 32 images, 480 pixels.
# Run: tools/dist_train.sh configs/beit3/benchmarks/beit3-large-p16_beit3-pre_8xb32-coslr-10e_coco-caption-480px.py 8
#      --cfg-options model.init_cfg.checkpoint=PATH   where the weights are elsewhere
# Cost: 739 M parameters, 332 GFLOPs an image with 64 words forward.
# Expect CIDEr 143.2 (unilm:beit3/README.md); not measured here.
_base_ = 'beit3-base-p16_beit3-pre_8xb32-coslr-10e_coco-caption-480px.py'
lr = 8e-6
model = dict(
    backbone=dict(arch='large'),
    init_cfg=dict(checkpoint='https://github.com/addf400/files/releases/download/beit3/beit3_large_patch16_224.pth'),
)
optim_wrapper = dict(optimizer=dict(lr=lr))
_base_.param_scheduler[1].eta_min_ratio = 1e-6 / lr
