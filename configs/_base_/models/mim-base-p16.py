# Masked image modeling with a backbone of base size. Recipes name the tokenizer and the statistics of the images.
model = dict(
    type='mmbeit.MaskedImageModeling',
    data_preprocessor=dict(type='mmbeit.MIMDataPreprocessor'),
    backbone=dict(
        type='mmbeit.BEiT',
        arch='base',
        img_size=224,
        patch_size=16,
        rel_pos_bias='shared',
        layer_scale=0.1,
        drop_path_rate=0.1,
        mask_token=True,
        out_type='raw',
    ),
    head=dict(type='mmbeit.MIMHead'),
)
