# A classifier of BEiT-3's vision alone, base size: mean of the patches, norm, one linear layer. The official files hold
# the text as well, which is left out.
_base_ = 'beit-base-p16.py'
model = dict(
    backbone=dict(
        _delete_=True,
        type='mmbeit.BEiT3',
        arch='base',
        modalities='vision',
        img_size=224,
        final_norm=False,
        drop_path_rate=0.15,
        out_type='avg_featmap',
        init_cfg=dict(type='Pretrained', checkpoint='', prefix='backbone.'),
    ),
    head=dict(init_cfg=dict(a=-2e-5, b=2e-5)),  # 0.02, cut at itself, scaled by 0.001
)
