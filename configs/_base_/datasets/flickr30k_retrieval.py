# Retrieval on Flickr30k at 384 pixels. Below `data_root` are flickr30k-images/ and dataset_flickr30k.json
# (https://cs.stanford.edu/people/karpathy/deepimagesent/caption_datasets.zip).
_base_ = 'coco_retrieval.py'
data_root = 'data/flickr30k'
files = dict(data_root=data_root, data_prefix='flickr30k-images', ann_file='dataset_flickr30k.json')
train_dataloader = dict(dataset=dict(split='train', **files))
val_dataloader = dict(dataset=files)
test_dataloader = dict(dataset=files)
