# BEiT v2 base, fine-tuned on ImageNet-1k after 300 epochs of pretraining, 8 GPUs x 128 images, 224 pixels.
# Run: tools/dist_train.sh configs/beitv2/benchmarks/beit-base-p16_beitv2-pre_8xb128-coslr-100e_in1k.py 8
#      --cfg-options model.backbone.init_cfg.checkpoint=PATH   where the weights are elsewhere
# Cost: 86.5 M parameters, 17.6 GFLOPs an image forward.
# Expect 85.0 % top-1 (unilm:beit2/get_started_for_image_classification.md; mmpretrain's own run has 85.0, too); not
# measured here.
_base_ = 'beit-base-p16_beitv2-1600e-pre_8xb128-coslr-100e_in1k.py'
model = dict(
    backbone=dict(
        drop_path_rate=0.1,
        init_cfg=dict(checkpoint='work_dirs/beitv2_beit-base-p16_8xb256-amp-coslr-300e_in1k/epoch_300.pth'),
    )
)
optim_wrapper = dict(paramwise_cfg=dict(layer_decay_rate=0.65))
