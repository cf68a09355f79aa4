# BEiT-3 base that has seen pairs of COCO and Visual Genome, its vision alone, fine-tuned on ImageNet-1k, 8 GPUs x 128
# images, 224 pixels.
# Run: tools/dist_train.sh configs/beit3/benchmarks/beit3-base-p16_beit3-indomain-pre_8xb128-coslr-50e_in1k.py 8
#      --cfg-options model.backbone.init_cfg.checkpoint=PATH   where the weights are elsewhere
# Cost: 86.7 M parameters, 17.6 GFLOPs an image forward.
# Expect 85.4 % top-1, 97.6 % top-5 (unilm:beit3/README.md); not measured here.
_base_ = 'beit3-base-p16_beit3-pre_8xb128-coslr-50e_in1k.py'
model = dict(
    backbone=dict(
        init_cfg=dict(
            checkpoint='https://github.com/addf400/files/releases/download/beit3/beit3_base_indomain_patch16_224.pth'
        )
    )
)
