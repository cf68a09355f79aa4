# BEiT v2 large, fine-tuned on ImageNet-1k from weights that were fine-tuned on ImageNet-22k, 8 GPUs x 64 images x 2
# steps, 224 pixels.
# Run: tools/dist_train.sh configs/beitv2/benchmarks/beit-large-p16_beitv2-in21k-pre_8xb64-accu2-coslr-20e_in1k.py 8
#      --cfg-options model.backbone.init_cfg.checkpoint=PATH   where the weights are elsewhere
# Cost: 304 M parameters, 61.6 GFLOPs an image forward.
# Expect 88.4 % top-1, 98.6 % top-5 (unilm:beit2/get_started_for_image_classification.md); not measured here.
_base_ = 'beit-large-p16_beitv2-1600e-pre_8xb64-accu2-coslr-50e_in1k.py'
lr = 7e-5
max_epochs = 20
model = dict(
    backbone=dict(
        drop_path_rate=0.25,
        init_cfg=dict(checkpoint='work_dirs/beit-large-p16_beitv2-1600e-pre_32xb128-coslr-90e_in21k/epoch_90.pth'),
    ),
    train_cfg=None,
)
optim_wrapper = dict(optimizer=dict(lr=lr))
_base_.param_scheduler[1].update(end=max_epochs, eta_min_ratio=1e-6 / lr)
train_cfg = dict(max_epochs=max_epochs)
