# BEiT large at 384 pixels; else as at 224.
# Run: tools/dist_train.sh configs/beit/benchmarks/beit-large-p16_beit-pre_8xb64-accu2-coslr-50e_in1k-384px.py 8
# Cost: 191 GFLOPs an image forward.
# Expect 86.3 % top-1 (https://arxiv.org/abs/2106.08254); whether the paper's run went straight to 384 pixels, as this
# one does, was not checked. Not measured here.
_base_ = 'beit-large-p16_beit-pre_8xb64-accu2-coslr-50e_in1k.py'
size = 384
model = dict(backbone=dict(img_size=size))
_base_.train_pipeline[2].scale = size
_base_.test_pipeline[1].scale = size  # at this size nothing is cropped off the short side
_base_.test_pipeline[2].crop_size = size
train_dataloader = dict(dataset=dict(pipeline=_base_.train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=_base_.test_pipeline))
test_dataloader = val_dataloader
