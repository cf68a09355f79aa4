# NLVR2 with BEiT-3 base, 8 GPUs x 32 sentences with two images each, 224 pixels.
# Run: tools/dist_train.sh configs/beit3/benchmarks/beit3-base-p16_beit3-pre_8xb32-coslr-20e_nlvr2.py 8
#      --cfg-options model.backbone.init_cfg.checkpoint=PATH   where the weights are elsewhere
# Cost: 226 M parameters, 44 GFLOPs a sentence with its images forward.
# Expect 83.6 % on dev, 84.4 % on test-P (unilm:beit3/README.md); not measured here.
_base_ = [
    '../../_base_/models/beit3-base-p16_nlvr.py',
    '../../_base_/datasets/nlvr2.py',
    '../../_base_/schedules/adamw_finetune_beit3.py',
    '../../_base_/default_runtime.py',
]
lr = 7e-4
warmup_epochs = 5
max_epochs = 20
model = dict(
    backbone=dict(
        init_cfg=dict(checkpoint='https://github.com/addf400/files/releases/download/beit3/beit3_base_patch16_224.pth')
    )
)
optim_wrapper = dict(optimizer=dict(lr=lr, weight_decay=0.2), paramwise_cfg=dict(layer_decay_rate=0.65))
_base_.param_scheduler[0].end = warmup_epochs
_base_.param_scheduler[1].update(begin=warmup_epochs, end=max_epochs, eta_min_ratio=1e-6 / lr)
train_cfg = dict(max_epochs=max_epochs)
