# BEiT v2 large, intermediate fine-tuning on the labels of ImageNet-22k, 32 GPUs x 128 images, 224 pixels.
# Run: tools/dist_train.sh configs/beitv2/benchmarks/beit-large-p16_beitv2-1600e-pre_32xb128-coslr-90e_in21k.py 32
#      --cfg-options model.backbone.init_cfg.checkpoint=PATH   where the weights are elsewhere
# Cost: 326 M parameters, 61.6 GFLOPs an image forward, 14 M images an epoch.
# No accuracy of these weights is published, only of what is fine-tuned from them; not measured here.
_base_ = 'beit-base-p16_beitv2-1600e-pre_32xb128-coslr-90e_in21k.py'
model = dict(
    backbone=dict(
        arch='large',
        layer_scale=1e-5,
        drop_path_rate=0.2,
        init_cfg=dict(checkpoint='work_dirs/beitv2_beit-large-p16_16xb128-amp-coslr-1600e_in1k/epoch_1600.pth'),
    ),
    head=dict(in_channels=1024),
)
