# Retrieval with BEiT-3 base as a dual encoder. Projections and temperature start from those of the contrastive tuning.
model = dict(
    type='mmbeit.DualEncoder',
    backbone=dict(type='mmbeit.BEiT3', arch='base', img_size=384, drop_path_rate=0.2, with_cp=True),
    head=dict(type='mmbeit.ContrastiveHead'),
    init_cfg=dict(type='Pretrained', checkpoint=''),
)
