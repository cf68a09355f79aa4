# What recipes of segmentation share: they count iterations, and bare names are mmseg's, mmcv's and mmengine's.
_base_ = 'default_runtime.py'
default_scope = 'mmseg'
default_hooks = dict(
    logger=dict(interval=50, log_metric_by_epoch=False),
    checkpoint=dict(by_epoch=False, interval=16_000),
    visualization=dict(_delete_=True, type='SegVisualizationHook', draw=False),
)
log_processor = dict(by_epoch=False)
visualizer = dict(type='SegLocalVisualizer')
tta_model = dict(type='SegTTAModel')  # for tools/test.py --tta
