# VQ-KD, the tokenizer of BEiT v2: base, 8192 codes, one decoder layer, features of CLIP ViT-B/16; 8 GPUs x 64 images.
# Run: tools/dist_train.sh configs/beitv2/vqkd_base-1x768x12-clip_8xb64-amp-coslr-100e_in1k.py 8
# Cost: 94.7 M parameters and, without the teacher's 17.6, 19.4 GFLOPs an image forward. The teacher needs
# `pip install mmbeit[teachers,hub]`; its weights are downloaded on the first run.
# Expect 100 % of the codes to be in use (unilm:beit2/TOKENIZER.md); not measured here. Where images are few or alike,
# codes die: model.tokenizer.revive_below=0.1 replaces them, and mmbeit.CodebookHook shows it and stops a run that is
# lost. Neither is official, nor on here.
# On other images: --cfg-options train_dataloader.dataset.data_root=DIR val_dataloader.dataset.data_root=DIR
_base_ = [
    '../_base_/models/vqkd-base.py',
    '../_base_/datasets/imagenet_vqkd.py',
    '../_base_/schedules/adamw_vqkd.py',
    '../_base_/default_runtime.py',
]
model = dict(
    teacher=dict(
        type='mmbeit.TimmTeacher',
        model_name='vit_base_patch16_clip_quickgelu_224.openai',
        project=True,
        init_cfg=dict(type='Pretrained', checkpoint='hf://timm/vit_base_patch16_clip_224.openai'),
    )
)
