# BEiT v2 base, 1600 epochs on ImageNet-1k, 8 GPUs x 256 images; officially 16 x 128.
# Run: tools/dist_train.sh configs/beitv2/beitv2_beit-base-p16_8xb256-amp-coslr-1600e_in1k.py 8
# Cost: 106 M parameters, 20.5 GFLOPs an image forward with the neck, and 17.6 for the tokenizer.
# Expect 85.5 % top-1 after benchmarks/beit-base-p16_beitv2-1600e-pre_8xb128-coslr-100e_in1k.py
# (unilm:beit2/README.md); not measured here.
_base_ = [
    '../_base_/models/mim-base-p16.py',
    '../_base_/datasets/imagenet_mim_v2.py',
    '../_base_/schedules/adamw_mim.py',
    '../_base_/default_runtime.py',
]
max_epochs = 1600
model = dict(
    data_preprocessor=dict(mean=_base_.mean, std=_base_.std),
    neck=dict(type='mmbeit.PatchAggregationNeck', early_layers=9),
    target_generator=dict(
        type='mmbeit.VQKDTokenizer',
        init_cfg=dict(
            type='Pretrained',
            checkpoint='https://github.com/addf400/files/releases/download/BEiT-v2/vqkd_encoder_base_decoder_3x768x12_clip-d5036aa7.pth',
        ),
    ),
)
_base_.param_scheduler[1].end = max_epochs
train_cfg = dict(max_epochs=max_epochs)
