# BEiT base, 800 epochs on ImageNet-1k, 8 GPUs x 256 images.
# Run: tools/dist_train.sh configs/beit/beit_beit-base-p16_8xb256-amp-coslr-800e_in1k.py 8
# Cost: 92.0 M parameters, 17.6 GFLOPs an image forward; the paper's run took 16 V100 five days.
# Expect 83.2 % top-1 after fine-tuning with benchmarks/beit-base-p16_beit-pre_8xb128-coslr-100e_in1k.py
# (https://arxiv.org/abs/2106.08254, table 1); not measured here.
_base_ = [
    '../_base_/models/mim-base-p16.py',
    '../_base_/datasets/imagenet_mim.py',
    '../_base_/schedules/adamw_mim.py',
    '../_base_/default_runtime.py',
]
model = dict(
    data_preprocessor=dict(mean=_base_.mean, std=_base_.std),
    target_generator=dict(
        type='mmbeit.DVAETokenizer',
        init_cfg=dict(type='Pretrained', checkpoint='https://cdn.openai.com/dall-e/encoder.pkl'),
    ),
)
