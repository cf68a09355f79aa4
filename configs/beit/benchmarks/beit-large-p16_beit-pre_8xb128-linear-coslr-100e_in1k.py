# Linear probe of BEiT large after every block, on ImageNet-1k, 8 GPUs x 128 images, 224 pixels. The best block counts.
# Run: tools/dist_train.sh configs/beit/benchmarks/beit-large-p16_beit-pre_8xb128-linear-coslr-100e_in1k.py 8
#      --cfg-options model.backbone.init_cfg.checkpoint=PATH   where the weights are elsewhere
# Cost: one forward pass of 61.6 GFLOPs an image, and a gradient for 49.2 M weights on top of the frozen backbone.
# No result of this run is published with the code; not measured here.
_base_ = 'beit-base-p16_beit-pre_8xb128-linear-coslr-100e_in1k.py'
model = dict(
    backbone=dict(
        arch='large',
        layer_scale=1e-5,
        out_indices=list(range(24)),
        frozen_stages=24,
        init_cfg=dict(checkpoint='work_dirs/beit_beit-large-p16_16xb128-amp-coslr-800e_in1k/epoch_800.pth'),
    ),
    head=dict(in_channels=1024, num_blocks=24),
)
