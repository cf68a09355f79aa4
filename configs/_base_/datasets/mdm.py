# Images, texts, and pairs of both, for masked data modeling (BEiT-3, section 2.2): as many of each in a batch, 40 % of
# the patches hidden, 15 % of the words of a text and 50 % of those of a pair.
# The order of the augmentation, the scale of the crops, mean and std and the longest texts are not published: the first
# two are those of BEiT v2, the statistics those of the released models, pairs have up to 64 tokens as there.
mean = [127.5, 127.5, 127.5]
std = [127.5, 127.5, 127.5]
tokenizer = 'data/beit3.spm'  # the official one, or one of tools/train_text_tokenizer.py
data_root = 'data/mdm'  # with images/, texts.txt and pairs.jsonl, the images of which are relative to it
image_steps = [
    dict(type='mmbeit.LoadImage', on_error='skip'),
    dict(type='torchvision/ColorJitter', brightness=0.4, contrast=0.4, saturation=0.4),
    dict(type='torchvision/RandomHorizontalFlip'),
    dict(
        type='mmbeit.RandomResizedCropTwoViews',
        size=224,
        target_size=224,
        scale=(0.2, 1.0),
        target_interpolation='bicubic',
    ),
    dict(type='mmbeit.BlockwiseMask', grid=14, num_masked=78, exact=True),
]
pack = dict(
    type='PackInputs',
    algorithm_keys=('text_ids', 'masked_text_ids', 'text_mask'),
    meta_keys=('img_path', 'text_path'),
)
image_pipeline = [*image_steps, pack]
text_pipeline = [
    dict(type='mmbeit.TokenizeText', tokenizer=tokenizer, max_length=512, on_error='skip'),
    dict(type='mmbeit.MaskText', tokenizer=tokenizer, probability=0.15, mask_end=False),
    pack,
]
pair_pipeline = [
    *image_steps,
    dict(type='mmbeit.TokenizeText', tokenizer=tokenizer, max_length=64, on_error='skip'),
    dict(type='mmbeit.MaskText', tokenizer=tokenizer, probability=0.5, mask_end=False),
    pack,
]
train_dataloader = dict(
    batch_size=384,  # of all groups together
    num_workers=8,
    persistent_workers=True,
    pin_memory=True,
    sampler=dict(type='mmbeit.MixtureSampler'),
    collate_fn=dict(type='mmbeit.collate_groups'),
    dataset=dict(
        type='mmbeit.Mixture',
        groups=dict(
            image=dict(
                type='CustomDataset',
                data_root=data_root,
                data_prefix='images',
                with_label=False,
                pipeline=image_pipeline,
            ),
            text=dict(type='mmbeit.TextLines', data_root=data_root, ann_file='texts.txt', pipeline=text_pipeline),
            pair=dict(type='mmbeit.PairLines', data_root=data_root, ann_file='pairs.jsonl', pipeline=pair_pipeline),
        ),
    ),
)
