# VQ-KD with features of DINO ViT-B/16, which has seen no text; 8 GPUs x 64 images.
# Run: tools/dist_train.sh configs/beitv2/vqkd_base-1x768x12-dino_8xb64-amp-coslr-100e_in1k.py 8
# Cost: 94.9 M parameters and, without the teacher's 17.6, 19.4 GFLOPs an image forward. The teacher needs
# `pip install mmbeit[teachers]`; its weights are downloaded on the first run.
# Expect 100 % of the codes to be in use (unilm:beit2/TOKENIZER.md); not measured here.
_base_ = [
    '../_base_/models/vqkd-base.py',
    '../_base_/datasets/imagenet_vqkd.py',
    '../_base_/schedules/adamw_vqkd.py',
    '../_base_/default_runtime.py',
]
checkpoint = 'https://dl.fbaipublicfiles.com/dino/dino_vitbase16_pretrain/dino_vitbase16_pretrain.pth'
model = dict(
    teacher=dict(
        type='mmbeit.TimmTeacher',
        model_name='vit_base_patch16_224.dino',
        init_cfg=dict(type='Pretrained', checkpoint=checkpoint),
    )
)
