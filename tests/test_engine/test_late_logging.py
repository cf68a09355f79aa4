"""Logged numbers that are read late are the same numbers."""

import copy
import io

import numpy as np
import pytest
import torch
from mmengine.hooks import RuntimeInfoHook
from mmengine.logging import HistoryBuffer, MessageHub
from mmengine.registry import HOOKS
from torch.utils._python_dispatch import TorchDispatchMode

from mmbeit.engine.late_logging import LateBuffer, update_late


class Readings(TorchDispatchMode):
    """Counts how often a tensor becomes a number: what a GPU is waited for."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


def hubs(name):
    """One that is told at once, and one that is told late, of the same ten numbers."""
    plain, late = MessageHub(f'{name} plain'), MessageHub(f'{name} late')
    for value in torch.randn(10).unbind():
        plain.update_scalar('loss', value)
        update_late(late, 'loss', value)
    return plain.get_scalar('loss'), late.get_scalar('loss')


def same(a: HistoryBuffer, b: HistoryBuffer) -> bool:
    return all(np.array_equal(x, y) for x, y in zip(a.data, b.data, strict=True)) and a.max_length == b.max_length


@pytest.mark.parametrize('statistic', ['current', 'mean', 'min', 'max'])
def test_statistics_are_those_of_mmengine(statistic):
    plain, late = hubs(statistic)
    assert isinstance(late, LateBuffer)
    args = [] if statistic == 'current' else [4]
    assert late.statistics(statistic, *args) == plain.statistics(statistic, *args)
    assert same(plain, late)


def test_numbers_are_read_when_they_are_asked_for():
    hub = MessageHub('reading')
    update_late(hub, 'loss', torch.tensor(0.5))
    with Readings() as readings:
        for value in torch.arange(5.0):
            update_late(hub, 'loss', value)
    assert readings.count == 0
    assert hub.get_scalar('loss').data[0].tolist() == [0.5, 0, 1, 2, 3, 4]


def test_numbers_and_tensors_keep_their_order_and_their_counts():
    late = LateBuffer(HistoryBuffer([1.0], [3]))
    late.update(torch.tensor(2.0))
    late.update(3.0, count=2)
    late.update(torch.tensor([[4.0]], requires_grad=True))
    assert [values.tolist() for values in late.data] == [[1, 2, 3, 4], [3, 1, 2, 1]]


def test_old_numbers_are_forgotten_as_by_mmengine():
    plain, late = hubs('trimming')
    for buffer in (plain, late):
        buffer.max_length = 4
        buffer.update(1.0)
    assert same(plain, late) and len(late.data[0]) == 4


@pytest.mark.parametrize('through', ['copy', 'file'])
def test_what_is_saved_is_a_history_of_mmengine(through):
    plain, late = hubs(through)
    if through == 'copy':
        saved = copy.deepcopy(late)
    else:
        file = io.BytesIO()
        torch.save(late, file)
        file.seek(0)
        saved = torch.load(file, weights_only=False)
    assert type(saved) is HistoryBuffer and same(plain, saved)


def test_a_resumed_history_goes_on():
    plain, late = hubs('resuming')
    hub = MessageHub('resumed')
    hub.load_state_dict(dict(log_scalars={'loss': copy.deepcopy(late)}, runtime_info={}, resumed_keys={'loss': True}))
    for value in torch.randn(3).unbind():
        plain.update(value.item())
        update_late(hub, 'loss', value)
    assert same(plain, hub.get_scalar('loss'))


def test_the_hook_logs_what_that_of_mmengine_logs():
    found = []
    for kind in ('RuntimeInfoHook', 'mmbeit.LateRuntimeInfoHook'):
        hook, hub = HOOKS.build(dict(type=kind)), MessageHub(kind)
        assert isinstance(hook, RuntimeInfoHook)
        runner = type('Runner', (), dict(message_hub=hub))
        for step in range(3):
            hook.after_train_iter(runner, step, outputs=dict(loss=torch.tensor(step / 4), lr=0.1))
        hook.after_train_iter(runner, 3, outputs=None)
        found.append({key: buffer.data[0].tolist() for key, buffer in hub.log_scalars.items()})
    assert found[0] == found[1] == {'train/loss': [0, 0.25, 0.5], 'train/lr': [0.1] * 3}
