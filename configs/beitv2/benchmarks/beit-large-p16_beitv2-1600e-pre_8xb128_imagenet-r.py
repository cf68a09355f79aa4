# BEiT v2 large, fine-tuned on ImageNet-1k, on ImageNet-R: 30,000 paintings, toys and the like of 200 of its classes.
# Run: tools/dist_test.sh configs/beitv2/benchmarks/beit-large-p16_beitv2-1600e-pre_8xb128_imagenet-r.py CHECKPOINT 8
# The 200 folders of https://github.com/hendrycks/imagenet-r are expected in data/imagenet-r.
# Expect 69.940 % top-1, 82.890 % top-5 of the official weights pt1k_ft1k
# (unilm:beit2/get_started_for_image_classification.md); not measured here.
_base_ = 'beit-large-p16_beitv2-1600e-pre_8xb64-accu2-coslr-50e_in1k.py'
test_dataloader = dict(
    dataset=dict(_delete_=True, type='CustomDataset', data_root='data/imagenet-r/', pipeline=_base_.test_pipeline)
)
test_evaluator = dict(_delete_=True, type='mmbeit.SubsetAccuracy', classes='imagenet-r')
