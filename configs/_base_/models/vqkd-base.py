# VQ-KD: a base tokenizer of 8192 codes, 14 x 14 of them for an image in [0, 1] (unilm:beit2/modeling_vqkd.py).
model = dict(
    type='mmbeit.VQKD',
    data_preprocessor=dict(type='mmbeit.MIMDataPreprocessor', mean=[0.0] * 3, std=[255.0] * 3),
    tokenizer=dict(arch='base', img_size=224, patch_size=16, num_codes=8192, code_dim=32),
    num_decoder_layers=1,
)
