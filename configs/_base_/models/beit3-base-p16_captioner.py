# Captions with BEiT-3 base. The head over the words starts from that of pretraining.
model = dict(
    type='mmbeit.Captioner',
    backbone=dict(type='mmbeit.BEiT3', arch='base', img_size=480, drop_path_rate=0.1, with_cp=True),
    mlm_head=dict(type='mmbeit.MaskedTokenHead', label_smoothing=0.1),
    init_cfg=dict(type='Pretrained', checkpoint=''),
)
