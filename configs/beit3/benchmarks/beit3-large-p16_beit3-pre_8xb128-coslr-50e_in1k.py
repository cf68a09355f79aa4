# BEiT-3 large, its vision alone, fine-tuned on ImageNet-1k, 8 GPUs x 128 images, 224 pixels.
# Run: tools/dist_train.sh configs/beit3/benchmarks/beit3-large-p16_beit3-pre_8xb128-coslr-50e_in1k.py 8
#      --cfg-options model.backbone.init_cfg.checkpoint=PATH   where the weights are elsewhere
# Cost: 305 M parameters, 61.7 GFLOPs an image forward.
# Expect 87.6 % top-1, 98.3 % top-5 (unilm:beit3/README.md); not measured here.
_base_ = 'beit3-base-p16_beit3-pre_8xb128-coslr-50e_in1k.py'
lr = 2e-4
model = dict(
    backbone=dict(
        arch='large',
        drop_path_rate=0.25,
        with_cp=True,
        init_cfg=dict(
            checkpoint='https://github.com/addf400/files/releases/download/beit3/beit3_large_patch16_224.pth'
        ),
    ),
    head=dict(in_channels=1024),
)
optim_wrapper = dict(optimizer=dict(lr=lr), paramwise_cfg=dict(layer_decay_rate=0.8))
_base_.param_scheduler[1].eta_min_ratio = 1e-6 / lr
