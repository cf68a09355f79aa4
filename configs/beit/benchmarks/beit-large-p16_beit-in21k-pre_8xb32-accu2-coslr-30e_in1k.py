# BEiT large, fine-tuned on ImageNet-1k from weights that were pretrained and fine-tuned on ImageNet-22k, 8 GPUs x 32
# images x 2 steps, 224 pixels.
# Run: tools/dist_train.sh configs/beit/benchmarks/beit-large-p16_beit-in21k-pre_8xb32-accu2-coslr-30e_in1k.py 8
#      --cfg-options model.backbone.init_cfg.checkpoint=PATH   where the weights are elsewhere
# Cost: 304 M parameters, 61.6 GFLOPs an image forward.
# Expect 87.4 % top-1, 98.3 % top-5 (unilm:beit/get_started_for_image_classification.md);
# not measured here.
_base_ = [
    '../../_base_/models/beit-large-p16.py',
    '../../_base_/datasets/imagenet_finetune_half.py',
    '../../_base_/schedules/adamw_finetune_30e.py',
    '../../_base_/default_runtime.py',
]
model = dict(
    backbone=dict(
        drop_path_rate=0.4,
        init_cfg=dict(
            checkpoint='work_dirs/beit-large-p16_beit-mim-in21k-pre_16xb64-accu2-coslr-90e_in21k/epoch_90.pth'
        ),
    ),
    train_cfg=None,
)
train_dataloader = dict(batch_size=32)
optim_wrapper = dict(accumulative_counts=2, paramwise_cfg=dict(layer_decay_rate=0.9))
auto_scale_lr = dict(base_batch_size=256)
