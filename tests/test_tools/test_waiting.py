"""Steps of training read no number from a tensor, for which a GPU would be waited, but where numbers are logged.

Other ways to wait, such as copies of whole tensors, are not seen on a CPU.
"""

import traceback

import pytest
import torch
from mmengine.logging import MessageHub
from torch.utils._python_dispatch import TorchDispatchMode

# `one_hot` does not check the range of labels that are on a GPU. An average counts its steps on the CPU, where masks
# are counted, too, because `MIMDataPreprocessor` leaves them there.
NOT_OF_THE_GPU = {'batch_label_to_onehot', 'update_parameters', 'find_masked'}


class Readings(TorchDispatchMode):
    """Notes in which step, and where in the code, a tensor becomes a number while a batch is trained on."""

    def __init__(self):
        super().__init__()
        self.found: list[tuple[int, str]] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is torch.ops.aten._local_scalar_dense.default:
            stack = traceback.extract_stack()
            names = [frame.name for frame in stack]
            if 'run_iter' in names and NOT_OF_THE_GPU.isdisjoint(names):  # batches are made before
                where = ''.join(traceback.format_list(stack[names.index('run_iter') :]))
                self.found.append((MessageHub.get_current_instance().get_info('iter'), where))
        return func(*args, **(kwargs or {}))


CODEBOOK = 'custom_hooks.2.interval=3'  # as often as the logger


@pytest.mark.parametrize(
    ('recipe', 'more'),
    [('pretrain_config', ()), ('pretrain_config_v2', ()), ('finetune_config', ()), ('vqkd_config', (CODEBOOK,))],
)
def test_steps_read_nothing_between_logs(recipe, more, request, tool, tmp_path):
    options = ('train_cfg.max_epochs=1', 'default_hooks.logger.interval=3', *more)
    options += ('optim_wrapper.type=mmbeit.AutocastOptimWrapper',)
    config = request.getfixturevalue(recipe)
    with Readings() as readings:
        tool('train', config, '--work-dir', tmp_path, '--cfg-options', *options)
    assert {step for step, _ in readings.found} & {0}, 'the first step makes the histories, of what it reads'
    between = [where for step, where in readings.found if step in (1, 3, 4)]
    assert not between, f'{len(between)} times:\n{between[0]}'
