# A classifier of base size: mean of the patches, norm, one linear layer. Recipes name the weights to start from.
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
        init_cfg=dict(type='Pretrained', checkpoint='', prefix='backbone.'),
    ),
    head=dict(
        type='LinearClsHead',
        num_classes=1000,
        in_channels=768,
        loss=dict(type='LabelSmoothLoss', label_smooth_val=0.1, mode='original'),
        init_cfg=dict(type='TruncNormal', layer='Linear', std=2e-5),  # 0.02, scaled by 0.001
    ),
    # Only for weights that have not seen labels yet; the others switch it off with `train_cfg=None`.
    train_cfg=dict(augments=[dict(type='Mixup', alpha=0.8), dict(type='CutMix', alpha=1.0)]),
)
