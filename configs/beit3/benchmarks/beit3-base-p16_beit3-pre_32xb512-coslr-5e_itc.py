# Contrastive tuning (ITC) of BEiT-3 base, which retrieval starts from, 32 GPUs x 512 pairs, 224 pixels.
# Run: tools/dist_train.sh configs/beit3/benchmarks/beit3-base-p16_beit3-pre_32xb512-coslr-5e_itc.py 32
#      --cfg-options model.init_cfg.checkpoint=PATH   where the weights are elsewhere
# Cost: 222 M parameters, 21.6 GFLOPs a pair forward.
# Officially on all pairs of the pretraining. Which and how many are not published for these sizes, and so these are the
# pairs of COCO: put your own into train_dataloader.dataset. The numbers are those of the giant model of the paper
# (https://arxiv.org/abs/2208.10442, appendix). No result is published; not measured here.
_base_ = [
    '../../_base_/models/beit3-base-p16_retrieval.py',
    '../../_base_/datasets/coco_retrieval.py',
    '../../_base_/schedules/adamw_finetune_retrieval.py',
    '../../_base_/default_runtime.py',
]
lr = 3e-5
warmup_epochs = 1
max_epochs = 5
model = dict(
    backbone=dict(img_size=224, drop_path_rate=0.3),
    init_cfg=dict(checkpoint='https://github.com/addf400/files/releases/download/beit3/beit3_base_patch16_224.pth'),
)
optim_wrapper = dict(optimizer=dict(lr=lr), paramwise_cfg=dict(layer_decay_rate=0.95))
_base_.param_scheduler[0].end = warmup_epochs
_base_.param_scheduler[1].update(begin=warmup_epochs, end=max_epochs, eta_min_ratio=1e-6 / lr)
train_cfg = dict(max_epochs=max_epochs)
auto_scale_lr = dict(base_batch_size=16384)
_base_.train_pipeline[2].scale = 224
_base_.test_pipeline[1].scale = (224, 224)
train_dataloader = dict(batch_size=512, dataset=dict(pipeline=_base_.train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=_base_.test_pipeline))
test_dataloader = dict(dataset=dict(pipeline=_base_.test_pipeline))
