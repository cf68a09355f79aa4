from types import SimpleNamespace

import pytest
from mmengine.registry import HOOKS
from torch import nn


@pytest.mark.parametrize('start', [0, 5, 12_001, 20_000])
def test_a_number_of_the_model_is_switched_at_its_iteration_in_a_resumed_run_too(start):
    model = nn.Module()
    model.head = nn.Module()
    model.head.ratio = model.ratio = 0.0
    hooks = [
        HOOKS.build(dict(type='mmbeit.SwitchHook', attr=a, value=0.2, begin=12_001)) for a in ('head.ratio', 'ratio')
    ]
    for i in (start, 12_000, 12_001, 12_002):
        if i < start:
            continue
        for hook in hooks:
            hook.before_train_iter(SimpleNamespace(model=model, iter=i), i)
        assert model.head.ratio == model.ratio == (0.2 if i >= 12_001 else 0.0)
