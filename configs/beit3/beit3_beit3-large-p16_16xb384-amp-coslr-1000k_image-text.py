# BEiT-3 large, pretrained from scratch by masked data modeling, 1,000,000 steps, 16 GPUs x 384.
# Run: tools/dist_train.sh configs/beit3/beit3_beit3-large-p16_16xb384-amp-coslr-1000k_image-text.py 16
# Cost: 746.7 M parameters; forward, without heads, 61.7 GFLOPs an image, 167.9 a text of 512 tokens, 82.5 a pair, and
# 17.6 for the tokenizer of an image's visual tokens. Less memory: model.backbone.with_cp=True
# Expect what nobody knows: there is no published run of this size with these numbers; see the base recipe.
_base_ = 'beit3_beit3-base-p16_16xb384-amp-coslr-1000k_image-text.py'
model = dict(backbone=dict(arch='large'))
