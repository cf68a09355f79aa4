# Linear probe of BEiT base for segmentation: batch norm and one linear layer on the map of the last block, which is
# frozen with all others, on ADE20K, 8 GPUs x 2 images, 512 pixels.
# Run: tools/dist_train.sh
#      configs/beit/benchmarks/beit-base-p16_beit-pre_linear_8xb2-40k_ade20k-512x512.py 8
#      --cfg-options model.backbone.init_cfg.checkpoint=PATH   where the weights are elsewhere
# Cost: one forward pass of 107 GFLOPs an image, and a gradient for 117,000 weights.
# BEiT's authors published no such probe; this is DINOv2's (https://arxiv.org/abs/2304.07193, and its `BNHead` in
# facebookresearch/dinov2:dinov2/eval/segmentation/models/decode_heads/linear_head.py). Not measured here.
# For the last four blocks instead of one, as in its `ms` variant:
# model = dict(
#     backbone=dict(out_indices=(8, 9, 10, 11)),
#     neck=dict(in_channels=[768] * 4),
#     decode_head=dict(in_channels=[768] * 4, in_index=[0, 1, 2, 3], channels=4 * 768),
# )
_base_ = [
    '../../_base_/models/upernet_beit-base-p16.py',
    '../../_base_/datasets/ade20k.py',
    '../../_base_/schedules/adamw_segmentation.py',
    '../../_base_/segmentation_runtime.py',
]
max_iters = 40_000
model = dict(
    backbone=dict(
        drop_path_rate=0.0,
        out_indices=(11,),
        frozen_stages=12,
        init_cfg=dict(checkpoint='work_dirs/beit_beit-base-p16_8xb256-amp-coslr-800e_in1k/epoch_800.pth'),
    ),
    neck=dict(_delete_=True, type='mmbeit.MapNorm', in_channels=[768], norm_cfg=_base_.norm_cfg),
    decode_head=dict(
        _delete_=True,
        type='FCNHead',
        num_convs=0,
        concat_input=False,
        input_transform='resize_concat',
        in_channels=[768],
        in_index=[0],
        channels=768,
        dropout_ratio=0.0,
        num_classes=150,
        align_corners=False,
    ),
    auxiliary_head=None,
)
# All weights of the probe decay, its norm too, as there.
optim_wrapper = dict(
    _delete_=True,
    type='mmbeit.AutocastOptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-3, betas=(0.9, 0.999), weight_decay=1e-4, fused=True),
)
_base_.param_scheduler[1].end = max_iters + 1
train_cfg = dict(max_iters=max_iters, val_interval=10_000)
default_hooks = dict(checkpoint=dict(interval=10_000))
