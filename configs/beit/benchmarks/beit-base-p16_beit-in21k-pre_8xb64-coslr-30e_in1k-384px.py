# BEiT base from weights fine-tuned on ImageNet-22k, at 384 pixels; else as at 224.
# Run: tools/dist_train.sh configs/beit/benchmarks/beit-base-p16_beit-in21k-pre_8xb64-coslr-30e_in1k-384px.py 8
# Cost: 55.5 GFLOPs an image forward.
# Expect 86.8 % top-1, 98.1 % top-5 (unilm:beit/get_started_for_image_classification.md);
# not measured here.
_base_ = 'beit-base-p16_beit-in21k-pre_8xb64-coslr-30e_in1k.py'
size = 384
model = dict(backbone=dict(img_size=size))
_base_.train_pipeline[2].scale = size
_base_.test_pipeline[1].scale = size  # at this size nothing is cropped off the short side
_base_.test_pipeline[2].crop_size = size
train_dataloader = dict(dataset=dict(pipeline=_base_.train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=_base_.test_pipeline))
test_dataloader = val_dataloader
