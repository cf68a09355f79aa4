# Captions of COCO with BEiT-3 base, 8 GPUs x 32 images, 480 pixels.
# Run: tools/dist_train.sh configs/beit3/benchmarks/beit3-base-p16_beit3-pre_8xb32-coslr-10e_coco-caption-480px.py 8
#      --cfg-options model.init_cfg.checkpoint=PATH   where the weights are elsewhere
# Cost: 271 M parameters, 96.4 GFLOPs an image with 64 words forward.
# Expect CIDEr 133.6 (unilm:beit3/README.md); not measured here.
_base_ = [
    '../../_base_/models/beit3-base-p16_captioner.py',
    '../../_base_/datasets/coco_caption.py',
    '../../_base_/schedules/adamw_finetune_beit3.py',
    '../../_base_/default_runtime.py',
]
model = dict(
    tokenizer=_base_.tokenizer,
    init_cfg=dict(checkpoint='https://github.com/addf400/files/releases/download/beit3/beit3_base_patch16_224.pth'),
)
# From step 12,001 on a fifth of the words, those with the largest losses, does not count.
custom_hooks = [
    *_base_.custom_hooks,
    dict(type='mmbeit.SwitchHook', attr='mlm_head.drop_worst_ratio', value=0.2, begin=12001),
]
