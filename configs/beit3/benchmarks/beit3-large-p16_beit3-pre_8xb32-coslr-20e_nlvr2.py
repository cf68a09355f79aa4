# NLVR2 with BEiT-3 large, 8 GPUs x 32 sentences with two images each, 224 pixels.
# Run: tools/dist_train.sh configs/beit3/benchmarks/beit3-large-p16_beit3-pre_8xb32-coslr-20e_nlvr2.py 8
#      --cfg-options model.backbone.init_cfg.checkpoint=PATH   where the weights are elsewhere
# Cost: 681 M parameters, 159 GFLOPs a sentence with its images forward.
# Expect 88.5 % on dev, 89.4 % on test-P (unilm:beit3/README.md); not measured here.
_base_ = 'beit3-base-p16_beit3-pre_8xb32-coslr-20e_nlvr2.py'
lr = 3e-4
model = dict(
    backbone=dict(
        arch='large',
        with_cp=True,
        init_cfg=dict(
            checkpoint='https://github.com/addf400/files/releases/download/beit3/beit3_large_patch16_224.pth'
        ),
    )
)
optim_wrapper = dict(optimizer=dict(lr=lr), paramwise_cfg=dict(layer_decay_rate=0.85))
_base_.param_scheduler[1].eta_min_ratio = 1e-6 / lr
