# A classifier of large size.
_base_ = 'beit-base-p16.py'
model = dict(
    backbone=dict(arch='large', layer_scale=1e-5, drop_path_rate=0.2),
    head=dict(in_channels=1024),
)
