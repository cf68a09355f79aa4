# The quickstart's fine-tuning on fifty labelled scans: the ImageNet recipe, shrunk. From scratch as it stands; from
# pretrained weights with --cfg-options model.backbone.init_cfg.checkpoint=PATH model.backbone.init_cfg.type=Pretrained
# Run: python tools/train.py configs/beit/quickstart/beit-mini-p4_1xb50-coslr-100e_digits.py
_base_ = '../benchmarks/beit-base-p16_beit-pre_8xb128-coslr-100e_in1k.py'
max_epochs = 100
model = dict(
    data_preprocessor=dict(num_classes=10, mean=[127.5] * 3, std=[127.5] * 3),
    backbone=dict(
        arch=dict(_delete_=True, embed_dims=128, num_layers=6, num_heads=4, feedforward_channels=512),
        img_size=16,
        patch_size=4,
        init_cfg=dict(_delete_=True, type='Pretrained', checkpoint=''),
    ),
    head=dict(num_classes=10, in_channels=128),
)
