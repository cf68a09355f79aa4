import copy
from contextlib import contextmanager

import pytest
import torch
from mmengine.logging import MessageHub
from mmengine.registry import OPTIM_WRAPPERS
from torch import nn


def build(model, **kwargs):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    return OPTIM_WRAPPERS.build(dict(type='mmbeit.AutocastOptimWrapper', optimizer=optimizer, **kwargs))


def test_forward_runs_in_bfloat16_on_the_cpu_and_weights_stay_in_float32():
    model = nn.Linear(3, 2)
    wrapper, before = build(model), model.weight.detach().clone()
    with wrapper.optim_context(model):
        out = model(torch.randn(4, 3))
    assert out.dtype == torch.bfloat16
    assert not torch.is_autocast_enabled('cpu')
    wrapper.update_params(out.float().square().mean())
    assert model.weight.dtype == torch.float32 and not torch.equal(model.weight, before)


def test_gradients_are_accumulated_as_by_the_wrapper_of_mmengine():
    model = nn.Linear(3, 2)
    wrapper, before = build(model, accumulative_counts=2), model.weight.detach().clone()
    wrapper.initialize_count_status(model, 0, 4)
    for step in range(2):
        assert torch.equal(model.weight, before), step
        with wrapper.optim_context(model):
            loss = model(torch.randn(4, 3)).float().square().mean()
        wrapper.update_params(loss)
    assert not torch.equal(model.weight, before)


def test_gradients_are_not_synchronised_before_the_last_of_accumulated_steps():
    model, events = nn.Linear(3, 2), []

    @contextmanager
    def no_sync():  # as of a DDP wrapper
        events.append('no sync')
        yield

    model.no_sync = no_sync
    wrapper = build(model, accumulative_counts=2)
    wrapper.initialize_count_status(model, 0, 4)
    for _ in range(4):
        with wrapper.optim_context(model):
            loss = model(torch.randn(4, 3)).float().square().mean()
        wrapper.update_params(loss)
        events.append('step')
    assert events == ['no sync', 'step', 'step'] * 2


def test_float16_is_refused_for_want_of_a_loss_scale():
    with pytest.raises(ValueError, match="dtype 'float16' is not 'bfloat16'; float16 needs a loss scale"):
        build(nn.Linear(3, 2), dtype='float16')


@pytest.mark.parametrize('kind', ['norm', 'value'])
def test_gradients_are_clipped_and_their_norm_is_logged_as_by_the_wrapper_of_mmengine(kind):
    limit = dict(type='norm', max_norm=0.1) if kind == 'norm' else dict(type='value', clip_value=0.1)
    torch.manual_seed(0)
    first, frozen = nn.Linear(3, 2), nn.Linear(3, 2).requires_grad_(False)
    x, found = torch.randn(4, 3), []
    for name in ('OptimWrapper', 'mmbeit.AutocastOptimWrapper'):
        model = nn.Sequential(copy.deepcopy(first), nn.Linear(2, 2), frozen)  # the middle one is not used
        hub = MessageHub.get_instance(f'{kind} {name}')  # the current one from here on
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        wrapper = OPTIM_WRAPPERS.build(dict(type=name, optimizer=optimizer, clip_grad=dict(limit)))
        for _ in range(3):
            wrapper.update_params(model[0](x).square().sum())
        norms = hub.log_scalars['train/grad_norm'].data[0].tolist() if hub.log_scalars else []
        assert len(norms) == (3 if kind == 'norm' else 0)
        found.append((norms, model[0].weight))
    assert found[0][0] == found[1][0] and torch.equal(found[0][1], found[1][1])
