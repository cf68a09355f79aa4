# VQA with BEiT-3 base: the image's class token, a pooler, and a head over the answers.
model = dict(
    type='mmbeit.FusionEncoder',
    backbone=dict(
        type='mmbeit.BEiT3',
        arch='base',
        img_size=480,
        final_norm=False,
        drop_path_rate=0.1,
        init_cfg=dict(type='Pretrained', checkpoint='', prefix='backbone.'),
    ),
    neck=dict(type='mmbeit.Pooler'),
    head=dict(type='mmbeit.VQAHead', num_classes=3129),
)
