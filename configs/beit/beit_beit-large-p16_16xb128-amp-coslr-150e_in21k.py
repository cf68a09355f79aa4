# BEiT large, 150 epochs on ImageNet-22k, 16 GPUs x 128 images.
# Run: tools/dist_train.sh configs/beit/beit_beit-large-p16_16xb128-amp-coslr-150e_in21k.py 16
# Cost: 312 M parameters, 61.6 GFLOPs an image forward.
# The command is not published: the layer scale is official (unilm:beit/README.md), the clipping is said to be the
# paper's (https://arxiv.org/abs/2106.08254) and was not checked, the rest is the base model's.
# Expect 86.0 % top-1 after benchmarks/beit-large-p16_beit-mim-in21k-pre_8xb64-accu2-coslr-50e_in1k.py
# (unilm:beit/README.md); not measured here.
_base_ = 'beit_beit-base-p16_16xb128-amp-coslr-150e_in21k.py'
model = dict(backbone=dict(arch='large', layer_scale=1e-5))
optim_wrapper = dict(clip_grad=dict(max_norm=1.0))
