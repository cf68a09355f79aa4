# Linear probe of BEiT base after every block, on ImageNet-1k, 8 GPUs x 128 images, 224 pixels. The best block counts.
# Run: tools/dist_train.sh configs/beit/benchmarks/beit-base-p16_beit-pre_8xb128-linear-coslr-100e_in1k.py 8
#      --cfg-options model.backbone.init_cfg.checkpoint=PATH   where the weights are elsewhere
# Cost: one forward pass of 17.6 GFLOPs an image, and a gradient for 18.4 M weights on top of the frozen backbone.
# The recipe is official (unilm:beit/get_started_for_image_classification.md, run_linear_eval.py there); no result of
# it is published with the code. Not measured here.
# Statistics are those of pretraining. For the official weights of ImageNet-22k add
#      --cfg-options data_preprocessor.mean=127.5,127.5,127.5 data_preprocessor.std=127.5,127.5,127.5
_base_ = [
    '../../_base_/datasets/imagenet_finetune.py',
    '../../_base_/default_runtime.py',
]
max_epochs = 100
model = dict(
    type='ImageClassifier',
    backbone=dict(
        type='mmbeit.BEiT',
        arch='base',
        img_size=224,
        patch_size=16,
        rel_pos_bias='shared',
        layer_scale=0.1,
        out_indices=list(range(12)),
        out_type='raw',
        frozen_stages=12,
        init_cfg=dict(
            type='Pretrained',
            checkpoint='work_dirs/beit_beit-base-p16_8xb256-amp-coslr-800e_in1k/epoch_800.pth',
            prefix='backbone.',
        ),
    ),
    head=dict(type='mmbeit.LinearProbeHead', num_classes=1000, in_channels=768, num_blocks=12),
)
train_pipeline = [
    dict(type='mmbeit.SeedTransforms'),
    dict(type='LoadImageFromFile'),
    dict(type='RandomResizedCrop', scale=224, backend='pillow', interpolation='bilinear'),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='PackInputs'),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_evaluator = dict(_delete_=True, type='mmbeit.LinearProbeAccuracy', topk=(1, 5))
test_evaluator = val_evaluator
# All weights decay, biases too, as officially.
optim_wrapper = dict(
    type='mmbeit.AutocastOptimWrapper',
    optimizer=dict(type='AdamW', lr=4e-3, betas=(0.9, 0.999), weight_decay=1e-4, fused=True),
)
param_scheduler = dict(type='CosineAnnealingLR', eta_min=0.0, by_epoch=True, begin=0, end=max_epochs)
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=max_epochs, val_interval=1)
val_cfg = dict()
test_cfg = dict()
default_hooks = dict(checkpoint=dict(save_best='accuracy/top1'))
auto_scale_lr = dict(base_batch_size=1024, enable=False)
