# BEiT base as in beit_beit-base-p16_8xb256-amp-coslr-800e_in1k.py, with views that are made at less cost: distributed
# in the same way but for rounding, from other random draws, coloured on the GPU. docs/performance.md has the figures.
# Run: tools/dist_train.sh configs/beit/beit_beit-base-p16_8xb256-amp-coslr-800e_in1k-fast-views.py 8
# Cost: that of the other recipe, with a third of the work for the processors that load images.
# Expect what the other recipe gives; not measured here.
_base_ = 'beit_beit-base-p16_8xb256-amp-coslr-800e_in1k.py'
train_pipeline = [
    dict(type='mmbeit.SeedTransforms'),
    dict(type='mmbeit.LoadTwoViews', size=224, target_size=112, on_error='skip'),
    dict(type='mmbeit.JitterViews', brightness=0.4, contrast=0.4, saturation=0.4, flip_prob=0.5, on_device=True),
    dict(type='mmbeit.BlockwiseMask', grid=14, num_masked=75),
    dict(type='PackInputs'),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
