# VQAv2 with BEiT-3 large, with questions of Visual Genome for training, 8 GPUs x 16 questions, 768 pixels.
# Run: tools/dist_train.sh
#      configs/beit3/benchmarks/beit3-large-p16_beit3-indomain-pre_8xb16-coslr-10e_vqav2-vgqa-768px.py 8
#      --cfg-options model.backbone.init_cfg.checkpoint=PATH   where the weights are elsewhere
# Cost: 684 M parameters, 959 GFLOPs a question with its image forward.
# Expect 82.97 % on test-dev, 83.03 % on test-std of the official weights (unilm:beit3/README.md); not measured here.
# How these were trained is not published: the numbers are those of 480 pixels. question_answers.json, VG_100K/ and
# VG_100K_2/ of https://homes.cs.washington.edu/~ranjay/visualgenome/ are expected below `vg_root`.
_base_ = 'beit3-large-p16_beit3-pre_8xb16-coslr-10e_vqav2-480px.py'
vg_root = 'data/visual_genome'
model = dict(
    backbone=dict(
        img_size=768,
        init_cfg=dict(
            checkpoint='https://github.com/addf400/files/releases/download/beit3/beit3_large_indomain_patch16_224.pth'
        ),
    )
)
_base_.train_pipeline[2].scale = 768
_base_.test_pipeline[1].scale = _base_.val_pipeline[1].scale = (768, 768)
vgqa = dict(type='mmbeit.VisualGenomeQA', data_root=vg_root, answers=_base_.answers, pipeline=_base_.train_pipeline)
train2014 = dict(_base_.train2014, pipeline=_base_.train_pipeline)
rest2014 = dict(_base_.val2014, images='rest', answers=_base_.answers, pipeline=_base_.train_pipeline)
train_dataloader = dict(dataset=dict(datasets=[train2014, rest2014, vgqa]))
val_dataloader = dict(dataset=dict(pipeline=_base_.val_pipeline))
test_dataloader = dict(dataset=dict(pipeline=_base_.test_pipeline))
