# Unlabelled images for BEiT v2: larger crops than in v1, as many pixels for the tokenizer as for the backbone, and
# exactly 75 patches masked (unilm:beit2/PRETRAINING.md, beit2/datasets.py, beit2/masking_generator.py).
_base_ = 'imagenet_mim.py'
_base_.train_pipeline[4].update(target_size=224, scale=(0.2, 1.0), target_interpolation='bicubic')
_base_.train_pipeline[5].exact = True
train_pipeline = _base_.train_pipeline
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
