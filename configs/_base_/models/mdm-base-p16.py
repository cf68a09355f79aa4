# Masked data modeling with a BEiT-3 of base size, from scratch, and the visual tokens of BEiT v2.
model = dict(
    type='mmbeit.MaskedDataModeling',
    data_preprocessor=dict(type='mmbeit.MDMDataPreprocessor'),
    backbone=dict(
        type='mmbeit.BEiT3',
        arch='base',
        img_size=224,
        patch_size=16,
        drop_path_rate=0.1,
        mask_token=True,
        init='subln',
    ),
    mim_head=dict(type='mmbeit.MaskedTokenHead'),
    mlm_head=dict(type='mmbeit.MaskedTokenHead'),
    target_generator=dict(
        type='mmbeit.VQKDTokenizer',
        init_cfg=dict(
            type='Pretrained',
            checkpoint='https://github.com/addf400/files/releases/download/BEiT-v2/vqkd_encoder_base_decoder_3x768x12_clip-d5036aa7.pth',
        ),
    ),
)
