# BEiT v2 large, fine-tuned on ImageNet-1k, on ImageNet-A: 7,500 photos of 200 of its classes that were hard for a
# ResNet-50.
# Run: tools/dist_test.sh configs/beitv2/benchmarks/beit-large-p16_beitv2-1600e-pre_8xb128_imagenet-a.py CHECKPOINT 8
# The 200 folders of https://github.com/hendrycks/natural-adv-examples are expected in data/imagenet-a.
# The official code offers this evaluation (unilm:beit2/run_class_finetuning.py) and publishes no result of it; not
# measured here.
_base_ = 'beit-large-p16_beitv2-1600e-pre_8xb128_imagenet-r.py'
test_dataloader = dict(dataset=dict(data_root='data/imagenet-a/'))
test_evaluator = dict(classes='imagenet-a')
