# Retrieval on Flickr30k with BEiT-3 base after contrastive tuning, 16 GPUs x 192 pairs, 384 pixels.
# Run: tools/dist_train.sh
#      configs/beit3/benchmarks/beit3-base-p16_beit3-itc-pre_16xb192-coslr-20e_flickr30k-retrieval-384px.py 16
#      --cfg-options model.init_cfg.checkpoint=PATH   where the weights are elsewhere
# Cost: 222 M parameters, 56.9 GFLOPs a pair forward.
# Expect R@1 of 96.3 % for texts and 86.2 % for images (unilm:beit3/README.md); not measured here.
_base_ = [
    '../../_base_/models/beit3-base-p16_retrieval.py',
    '../../_base_/datasets/flickr30k_retrieval.py',
    '../../_base_/schedules/adamw_finetune_retrieval.py',
    '../../_base_/default_runtime.py',
]
lr = 1e-4
warmup_epochs = 5
max_epochs = 20
model = dict(
    init_cfg=dict(checkpoint='https://github.com/addf400/files/releases/download/beit3/beit3_base_itc_patch16_224.pth')
)
optim_wrapper = dict(optimizer=dict(lr=lr))
_base_.param_scheduler[0].end = warmup_epochs
_base_.param_scheduler[1].update(begin=warmup_epochs, end=max_epochs, eta_min_ratio=1e-6 / lr)
train_cfg = dict(max_epochs=max_epochs)
