# UPerNet with the vision of BEiT-3 base on ADE20K, 8 GPUs x 2 images, 512 pixels.
# Run: tools/dist_train.sh configs/beit3/benchmarks/beit3-base-p16_beit3-pre_upernet_8xb2-160k_ade20k-512x512.py 8
#      --cfg-options model.backbone.init_cfg.checkpoint=PATH   where the weights are elsewhere
# Cost: 163 M parameters, 122 GFLOPs an image of 512 x 512 pixels without its decoder forward.
# No such model of this size is published, and how to train one is not either: the numbers are those of BEiT v2. The
# paper has 62.0 % mIoU, of the giant model with another decoder (https://arxiv.org/abs/2208.10442); not measured here.
_base_ = [
    '../../_base_/models/upernet_beit-base-p16.py',
    '../../_base_/datasets/ade20k.py',
    '../../_base_/schedules/adamw_segmentation.py',
    '../../_base_/segmentation_runtime.py',
]
lr = 5e-5
model = dict(
    backbone=dict(
        _delete_=True,
        type='mmbeit.BEiT3',
        arch='base',
        modalities='vision',
        img_size=512,
        final_norm=False,
        drop_path_rate=0.15,
        out_indices=(3, 5, 7, 11),
        out_type='featmap',
        init_cfg=dict(
            type='Pretrained',
            checkpoint='https://github.com/addf400/files/releases/download/beit3/beit3_base_patch16_224.pth',
            prefix='backbone.',
        ),
    )
)
optim_wrapper = dict(optimizer=dict(lr=lr), paramwise_cfg=dict(layer_decay_rate=0.75))
