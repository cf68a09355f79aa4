# BEiT v2 large, fine-tuned on ImageNet-1k after 300 epochs of pretraining, 8 GPUs x 64 images x 2 steps, 224 pixels.
# Run: tools/dist_train.sh configs/beitv2/benchmarks/beit-large-p16_beitv2-pre_8xb64-accu2-coslr-50e_in1k.py 8
#      --cfg-options model.backbone.init_cfg.checkpoint=PATH   where the weights are elsewhere
# Cost: 304 M parameters, 61.6 GFLOPs an image forward.
# Expect 86.6 % top-1 (unilm:beit2/get_started_for_image_classification.md); not measured here.
_base_ = 'beit-large-p16_beitv2-1600e-pre_8xb64-accu2-coslr-50e_in1k.py'
lr = 5e-4
model = dict(
    backbone=dict(init_cfg=dict(checkpoint='work_dirs/beitv2_beit-large-p16_16xb128-amp-coslr-300e_in1k/epoch_300.pth'))
)
optim_wrapper = dict(optimizer=dict(lr=lr))
_base_.param_scheduler[1].eta_min_ratio = 1e-6 / lr
