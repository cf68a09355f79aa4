# BEiT base, 150 epochs on the 14,197,122 images of ImageNet-22k, 16 GPUs x 128 images: the published weights.
# Run: tools/dist_train.sh configs/beit/beit_beit-base-p16_16xb128-amp-coslr-150e_in21k.py 16
# Cost: 1.04 M updates, twice as many as 800 epochs on ImageNet-1k.
# Expect 83.7 % top-1 after benchmarks/beit-base-p16_beit-mim-in21k-pre_8xb128-coslr-100e_in1k.py
# (unilm:beit/README.md); not measured here.
_base_ = 'beit_beit-base-p16_8xb256-amp-coslr-800e_in1k.py'
mean = [127.5] * 3
std = [127.5] * 3
max_epochs = 150
warmup_epochs = 10_000 / (14_197_122 // 2048)  # 10,000 updates
model = dict(data_preprocessor=dict(mean=mean, std=std))
train_dataloader = dict(batch_size=128, dataset=dict(data_root='data/imagenet21k/'))
_base_.param_scheduler[0].end = warmup_epochs
_base_.param_scheduler[1].update(begin=warmup_epochs, end=max_epochs)
train_cfg = dict(max_epochs=max_epochs)
