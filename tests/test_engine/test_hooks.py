import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.logging import MessageHub
from torch import nn

from mmbeit.engine.hooks import AnnealHook, StepSeedHook, TrimLogHook


def runner(iteration=0, **kwargs):
    hub = MessageHub(f'hub of {iteration}')
    return SimpleNamespace(**{'iter': iteration, 'max_iters': 101, 'seed': 0, 'rank': 0, 'message_hub': hub, **kwargs})


@pytest.mark.parametrize('wrap', [lambda model: model, nn.DataParallel])
@pytest.mark.parametrize(
    ('num_iters', 'values'),
    [
        (None, {0: 1.0, 50: 0.625, 100: 0.25}),  # the whole training: its last iteration is the end
        (10, {0: 1.0, 5: 0.625, 10: 0.25, 11: 0.25, 100: 0.25}),
    ],
)
def test_annealing_follows_half_a_cosine_from_start_to_end_and_is_logged(num_iters, values, wrap):
    hook, model = AnnealHook('temperature', start=1.0, end=0.25, num_iters=num_iters), nn.Identity()
    for iteration, value in values.items():
        at = runner(iteration, model=wrap(model))
        hook.before_train_iter(at, batch_idx=0)
        assert model.temperature == pytest.approx(value)
        assert at.message_hub.get_scalar('train/temperature').current() == pytest.approx(value)
    hook.before_train_iter(runner(2, model=model), batch_idx=0)
    assert model.temperature > 0.9  # flat at the start


def draws(**kwargs):
    StepSeedHook().before_train_iter(runner(**kwargs), batch_idx=0)
    return random.random(), np.random.rand(), torch.rand(1).item()


def test_steps_are_seeded_by_run_process_and_iteration_and_nothing_else():
    first = draws(iteration=7)
    torch.rand(3), random.random(), np.random.rand()
    assert draws(iteration=7) == first
    for other in (draws(iteration=8), draws(iteration=7, rank=1), draws(iteration=7, seed=1)):
        assert all(a != b for a, b in zip(first, other, strict=True))


@pytest.mark.parametrize(('iteration', 'batch_idx', 'trims'), [(0, 0, True), (998, 3, False), (999, 3, True)])
def test_logs_are_trimmed_at_the_start_of_an_epoch_and_every_thousand_steps(iteration, batch_idx, trims):
    at = runner(iteration)
    for value in range(50):
        at.message_hub.update_scalar('train/loss', value)
    TrimLogHook(max_length=10).after_train_iter(at, batch_idx=batch_idx)
    at.message_hub.update_scalar('train/loss', 50)
    log, _ = at.message_hub.get_scalar('train/loss').data
    assert log.tolist() == list(range(41, 51) if trims else range(51))
