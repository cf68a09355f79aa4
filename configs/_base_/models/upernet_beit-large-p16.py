# UPerNet on BEiT large.
_base_ = 'upernet_beit-base-p16.py'
model = dict(
    backbone=dict(arch='large', layer_scale=1e-6, drop_path_rate=0.2, out_indices=(7, 11, 15, 23)),
    neck=dict(in_channels=1024),
    decode_head=dict(in_channels=[1024, 1024, 1024, 1024], channels=1024),
    auxiliary_head=dict(in_channels=1024),
)
