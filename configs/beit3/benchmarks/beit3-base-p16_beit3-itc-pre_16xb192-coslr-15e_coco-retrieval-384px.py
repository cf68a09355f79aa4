# Retrieval on COCO with BEiT-3 base after contrastive tuning, 16 GPUs x 192 pairs, 384 pixels.
# Run: tools/dist_train.sh
#      configs/beit3/benchmarks/beit3-base-p16_beit3-itc-pre_16xb192-coslr-15e_coco-retrieval-384px.py 16
#      --cfg-options model.init_cfg.checkpoint=PATH   where the weights are elsewhere
# Cost: 222 M parameters, 56.9 GFLOPs a pair forward.
# Expect R@1 of 79.1 % for texts and 61.4 % for images (unilm:beit3/README.md); not measured here.
_base_ = [
    '../../_base_/models/beit3-base-p16_retrieval.py',
    '../../_base_/datasets/coco_retrieval.py',
    '../../_base_/schedules/adamw_finetune_retrieval.py',
    '../../_base_/default_runtime.py',
]
lr = 2e-4
warmup_epochs = 3
max_epochs = 15
model = dict(
    init_cfg=dict(checkpoint='https://github.com/addf400/files/releases/download/beit3/beit3_base_itc_patch16_224.pth')
)
optim_wrapper = dict(optimizer=dict(lr=lr))
_base_.param_scheduler[0].end = warmup_epochs
_base_.param_scheduler[1].update(begin=warmup_epochs, end=max_epochs, eta_min_ratio=1e-6 / lr)
train_cfg = dict(max_epochs=max_epochs)
