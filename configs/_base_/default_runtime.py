# What every recipe shares. Own classes are written `mmbeit.X`; bare names are mmpretrain's, mmcv's and mmengine's.
default_scope = 'mmpretrain'
default_hooks = dict(
    runtime_info=dict(type='mmbeit.LateRuntimeInfoHook'),  # losses are read when they are logged
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=100),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(type='mmbeit.SafeCheckpointHook', interval=1, max_keep_ckpts=3),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    visualization=dict(type='VisualizationHook', enable=False),
    attention=dict(type='mmbeit.AttentionReportHook'),  # logs which kernels ran
)
custom_hooks = [
    dict(type='mmbeit.StepSeedHook'),  # a resumed run goes on as if it had not been interrupted
    dict(type='mmbeit.TrimLogHook'),
]
env_cfg = dict(
    cudnn_benchmark=True,
    mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0),
    dist_cfg=dict(backend='nccl'),
)
vis_backends = [dict(type='LocalVisBackend')]
visualizer = dict(type='UniversalVisualizer', vis_backends=vis_backends)
log_level = 'INFO'
load_from = None
resume = False
randomness = dict(seed=0)
