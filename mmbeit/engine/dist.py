"""Distributed runs on CPUs."""

import torch
import torch.distributed
from mmengine.config import Config, ConfigDict


def prepare_cpu_dist(cfg: Config) -> None:
    """Let a distributed run start on CPUs: mmengine would select a CUDA device, and hand DDP its number."""
    if cfg.launcher == 'none' or torch.cuda.is_available():
        return
    if not torch.distributed.is_initialized():
        torch.distributed.init_process_group('gloo')
    wrapper = cfg.get('model_wrapper_cfg') or ConfigDict(
        type='MMDistributedDataParallel',
        broadcast_buffers=False,
        find_unused_parameters=cfg.get('find_unused_parameters', False),
    )
    wrapper['device_ids'] = None
    cfg.model_wrapper_cfg = wrapper
