# Images with texts as BEiT-3's recipes see them, but for that of ImageNet: scaled to [-1, 1] (unilm:beit3/datasets.py).
# Recipes say which data, and at which size. `tokenizer` is the official text tokenizer, which is downloaded once, or
# the path of one of tools/train_text_tokenizer.py.
tokenizer = 'https://github.com/addf400/files/releases/download/beit3/beit3.spm'
data_preprocessor = dict(mean=[127.5] * 3, std=[127.5] * 3, to_rgb=True)
