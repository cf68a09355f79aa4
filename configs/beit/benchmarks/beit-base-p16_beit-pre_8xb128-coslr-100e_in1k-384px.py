# BEiT base at 384 pixels; else as at 224.
# Run: tools/dist_train.sh configs/beit/benchmarks/beit-base-p16_beit-pre_8xb128-coslr-100e_in1k-384px.py 8
# Cost: 55.5 GFLOPs an image forward.
# The official instructions change nothing but the size (unilm:beit/get_started_for_image_classification.md); there is
# no published result of this very run. Not measured here.
_base_ = 'beit-base-p16_beit-pre_8xb128-coslr-100e_in1k.py'
size = 384
model = dict(backbone=dict(img_size=size))
_base_.train_pipeline[2].scale = size
_base_.test_pipeline[1].scale = size  # at this size nothing is cropped off the short side
_base_.test_pipeline[2].crop_size = size
train_dataloader = dict(dataset=dict(pipeline=_base_.train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=_base_.test_pipeline))
test_dataloader = val_dataloader
