# NLVR2 with BEiT-3 base that has seen pairs of COCO and Visual Genome, 8 GPUs x 32 sentences, 224 pixels.
# Run: tools/dist_train.sh configs/beit3/benchmarks/beit3-base-p16_beit3-indomain-pre_8xb32-coslr-20e_nlvr2.py 8
#      --cfg-options model.backbone.init_cfg.checkpoint=PATH   where the weights are elsewhere
# Cost: 226 M parameters, 44 GFLOPs a sentence with its images forward.
# Expect 84.6 % on dev, 85.3 % on test-P (unilm:beit3/README.md); not measured here.
_base_ = 'beit3-base-p16_beit3-pre_8xb32-coslr-20e_nlvr2.py'
lr = 5e-4
model = dict(
    backbone=dict(
        init_cfg=dict(
            checkpoint='https://github.com/addf400/files/releases/download/beit3/beit3_base_indomain_patch16_224.pth'
        )
    )
)
optim_wrapper = dict(optimizer=dict(lr=lr))
_base_.param_scheduler[1].eta_min_ratio = 1e-6 / lr
