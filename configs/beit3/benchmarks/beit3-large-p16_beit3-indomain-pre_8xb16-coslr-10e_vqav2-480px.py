# VQAv2 with BEiT-3 large that has seen pairs of COCO and Visual Genome, 8 GPUs x 16 questions, 480 pixels.
# Run: tools/dist_train.sh configs/beit3/benchmarks/beit3-large-p16_beit3-indomain-pre_8xb16-coslr-10e_vqav2-480px.py 8
#      --cfg-options model.backbone.init_cfg.checkpoint=PATH   where the weights are elsewhere
# Cost: 683 M parameters, 327 GFLOPs a question with its image forward.
# Expect 82.53 % on test-dev (unilm:beit3/README.md); not measured here.
_base_ = 'beit3-large-p16_beit3-pre_8xb16-coslr-10e_vqav2-480px.py'
model = dict(
    backbone=dict(
        init_cfg=dict(
            checkpoint='https://github.com/addf400/files/releases/download/beit3/beit3_large_indomain_patch16_224.pth'
        )
    )
)
