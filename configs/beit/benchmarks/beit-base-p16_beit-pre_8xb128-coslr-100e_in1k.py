# BEiT base, fine-tuned on ImageNet-1k from self-supervised weights, 8 GPUs x 128 images, 224 pixels.
# Run: tools/dist_train.sh configs/beit/benchmarks/beit-base-p16_beit-pre_8xb128-coslr-100e_in1k.py 8
#      --cfg-options model.backbone.init_cfg.checkpoint=work_dirs/.../epoch_800.pth
# Expect 83.2 % top-1 after 800 epochs of pretraining on ImageNet-1k (https://arxiv.org/abs/2106.08254, table 1),
# 83.1 % after 300 (mmpretrain's own run); not measured here.
_base_ = [
    '../../_base_/datasets/imagenet_finetune.py',
    '../../_base_/schedules/adamw_finetune.py',
    '../../_base_/default_runtime.py',
]
model = dict(
    type='ImageClassifier',
    backbone=dict(
        type='mmbeit.BEiT',
        arch='base',
        img_size=224,
        patch_size=16,
        rel_pos_bias='per_block',
        layer_scale=0.1,
        drop_path_rate=0.1,
        out_type='avg_featmap',
        init_cfg=dict(
            type='Pretrained',
            checkpoint='work_dirs/beit_beit-base-p16_8xb256-amp-coslr-800e_in1k/epoch_800.pth',
            prefix='backbone.',
        ),
    ),
    head=dict(
        type='LinearClsHead',
        num_classes=1000,
        in_channels=768,
        loss=dict(type='LabelSmoothLoss', label_smooth_val=0.1, mode='original'),
        init_cfg=dict(type='TruncNormal', layer='Linear', std=2e-5),  # 0.02, scaled by 0.001
    ),
    train_cfg=dict(augments=[dict(type='Mixup', alpha=0.8), dict(type='CutMix', alpha=1.0)]),
)
