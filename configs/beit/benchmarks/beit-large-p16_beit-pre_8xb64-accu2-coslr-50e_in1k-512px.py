# BEiT large at 512 pixels; else as at 224.
# Run: tools/dist_train.sh configs/beit/benchmarks/beit-large-p16_beit-pre_8xb64-accu2-coslr-50e_in1k-512px.py 8
# Cost: 362 GFLOPs an image forward.
# The official instructions change nothing but the size (unilm:beit/get_started_for_image_classification.md); there is
# no published result of this very run. Not measured here.
_base_ = 'beit-large-p16_beit-pre_8xb64-accu2-coslr-50e_in1k.py'
size = 512
model = dict(backbone=dict(img_size=size))
_base_.train_pipeline[2].scale = size
_base_.test_pipeline[1].scale = size  # at this size nothing is cropped off the short side
_base_.test_pipeline[2].crop_size = size
train_dataloader = dict(dataset=dict(pipeline=_base_.train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=_base_.test_pipeline))
test_dataloader = val_dataloader
