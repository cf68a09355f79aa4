# Official fine-tuning for retrieval: layer decay, batches of 3072 pairs, and mmpretrain's loops, which
# compare all images with all texts (unilm:beit3/get_started/get_started_for_retrieval.md).
_base_ = 'adamw_finetune_beit3.py'
optim_wrapper = dict(paramwise_cfg=dict(layer_decay_rate=0.65))
val_cfg = dict(type='RetrievalValLoop')
test_cfg = dict(type='RetrievalTestLoop')
auto_scale_lr = dict(base_batch_size=3072)
