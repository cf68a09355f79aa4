"""Distributed runs on CPUs."""

import torch
import torch.distributed
from mmengine.config import Config, ConfigDict

from mmbeit.engine.checks import search_dicts


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
    replace_sync_bn(cfg)


def replace_sync_bn(cfg: Config) -> None:
    """Give the model a norm that synchronises on CPUs where it has SyncBN, which needs a GPU."""
    for _, node in search_dicts(cfg.get('model'), 'model'):
        if node.get('type') == 'SyncBN':
            node['type'] = 'mmbeit.CPUSyncBN'
