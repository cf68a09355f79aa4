# BEiT-3 base, pretrained from scratch by masked data modeling, 1,000,000 steps, 16 GPUs x 384: of each 128 images, 128
# texts and 128 pairs.
# Run: tools/dist_train.sh configs/beit3/beit3_beit3-base-p16_16xb384-amp-coslr-1000k_image-text.py 16
# Cost: 276.5 M parameters; forward, without heads, 17.6 GFLOPs an image, 48.5 a text of 512 tokens, 23.6 a pair, and
# 17.6 for the tokenizer of an image's visual tokens.
# Expect what nobody knows: there is no published run of this size with these numbers, which are the paper's for the
# giant model (arXiv:2208.10442, appendix), and the code was never released. docs/masked_data_modeling.md says what is
# our choice.
_base_ = [
    '../_base_/models/mdm-base-p16.py',
    '../_base_/datasets/mdm.py',
    '../_base_/schedules/adamw_mdm.py',
    '../_base_/default_runtime.py',
]
model = dict(data_preprocessor=dict(mean=_base_.mean, std=_base_.std))
custom_hooks = [*_base_.custom_hooks, dict(type='mmbeit.StreamHook')]
default_hooks = dict(checkpoint=dict(by_epoch=False, interval=5000))
log_processor = dict(by_epoch=False)
