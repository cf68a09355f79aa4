# Retrieval on COCO with BEiT-3 large after contrastive tuning, 32 GPUs x 96 pairs, 384 pixels.
# Run: tools/dist_train.sh
#      configs/beit3/benchmarks/beit3-large-p16_beit3-itc-pre_32xb96-coslr-15e_coco-retrieval-384px.py 32
#      --cfg-options model.init_cfg.checkpoint=PATH   where the weights are elsewhere
# Cost: 675 M parameters, 204 GFLOPs a pair forward.
# Expect R@1 of 82.1 % for texts and 63.4 % for images (unilm:beit3/README.md); not measured here.
_base_ = 'beit3-base-p16_beit3-itc-pre_16xb192-coslr-15e_coco-retrieval-384px.py'
lr = 5e-5
model = dict(
    backbone=dict(arch='large'),
    init_cfg=dict(
        checkpoint='https://github.com/addf400/files/releases/download/beit3/beit3_large_itc_patch16_224.pth'
    ),
)
train_dataloader = dict(batch_size=96)
optim_wrapper = dict(optimizer=dict(lr=lr), paramwise_cfg=dict(layer_decay_rate=0.85))
_base_.param_scheduler[1].eta_min_ratio = 1e-6 / lr
