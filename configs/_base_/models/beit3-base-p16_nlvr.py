# NLVR2 with BEiT-3 base: class token and `<s>` of the sentence with each of the two images, and a head.
model = dict(
    type='mmbeit.FusionEncoder',
    backbone=dict(
        type='mmbeit.BEiT3',
        arch='base',
        img_size=224,
        drop_path_rate=0.2,
        init_cfg=dict(type='Pretrained', checkpoint='', prefix='backbone.'),
    ),
    head=dict(type='mmbeit.NLVRHead'),
)
