# Contrastive tuning (ITC) of BEiT-3 large, which retrieval starts from, 32 GPUs x 512 pairs, 224 pixels.
# Run: tools/dist_train.sh configs/beit3/benchmarks/beit3-large-p16_beit3-pre_32xb512-coslr-5e_itc.py 32
#      --cfg-options model.init_cfg.checkpoint=PATH   where the weights are elsewhere
# Cost: 675 M parameters, 78.5 GFLOPs a pair forward.
# On which pairs, see the recipe of base size. No result is published; not measured here.
_base_ = 'beit3-base-p16_beit3-pre_32xb512-coslr-5e_itc.py'
model = dict(
    backbone=dict(arch='large'),
    init_cfg=dict(checkpoint='https://github.com/addf400/files/releases/download/beit3/beit3_large_patch16_224.pth'),
)
