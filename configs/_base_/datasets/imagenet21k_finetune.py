# ImageNet-22k (here, as elsewhere in OpenMMLab, in21k): a folder for each of the 21,841 classes of the release of 2011.
# Officially nothing is evaluated while training; for `tools/test.py` put images that were held out into `val`.
_base_ = 'imagenet_finetune.py'
data_preprocessor = dict(num_classes=21841)
train_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='CustomDataset',
        data_root='data/imagenet21k/',
        data_prefix='train',
        pipeline=_base_.train_pipeline,
    )
)
val_dataloader = None
val_evaluator = None
test_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='CustomDataset',
        data_root='data/imagenet21k/',
        data_prefix='val',
        pipeline=_base_.test_pipeline,
    )
)
