# Captions of COCO with BEiT-3 base that has seen pairs of COCO and Visual Genome, 8 GPUs x 32 images, 480 pixels.
# Run: tools/dist_train.sh
#      configs/beit3/benchmarks/beit3-base-p16_beit3-indomain-pre_8xb32-coslr-10e_coco-caption-480px.py 8
#      --cfg-options model.init_cfg.checkpoint=PATH   where the weights are elsewhere
# Cost: 271 M parameters, 96.4 GFLOPs an image with 64 words forward.
# Expect CIDEr 135.0 (unilm:beit3/README.md); not measured here.
_base_ = 'beit3-base-p16_beit3-pre_8xb32-coslr-10e_coco-caption-480px.py'
model = dict(
    init_cfg=dict(
        checkpoint='https://github.com/addf400/files/releases/download/beit3/beit3_base_indomain_patch16_224.pth'
    )
)
