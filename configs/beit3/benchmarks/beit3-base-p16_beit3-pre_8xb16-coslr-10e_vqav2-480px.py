# VQAv2 with BEiT-3 base, 8 GPUs x 16 questions, 480 pixels.
# Run: tools/dist_train.sh configs/beit3/benchmarks/beit3-base-p16_beit3-pre_8xb16-coslr-10e_vqav2-480px.py 8
#      --cfg-options model.backbone.init_cfg.checkpoint=PATH   where the weights are elsewhere
# Cost: 228 M parameters, 92.8 GFLOPs a question with its image forward.
# Expect 77.65 % on test-dev (unilm:beit3/README.md); not measured here.
_base_ = [
    '../../_base_/models/beit3-base-p16_vqa.py',
    '../../_base_/datasets/vqav2.py',
    '../../_base_/schedules/adamw_finetune_beit3.py',
    '../../_base_/default_runtime.py',
]
lr = 3e-5
model = dict(
    backbone=dict(
        init_cfg=dict(checkpoint='https://github.com/addf400/files/releases/download/beit3/beit3_base_patch16_224.pth')
    ),
    head=dict(answers=_base_.answers),
)
optim_wrapper = dict(
    optimizer=dict(lr=lr, betas=(0.9, 0.98), weight_decay=0.01),
    paramwise_cfg=dict(head_lr_mult=20),
)
_base_.param_scheduler[1].eta_min_ratio = 1e-6 / lr
auto_scale_lr = dict(base_batch_size=128)
