"""Steps of training read no number from a tensor, for which a GPU would be waited, but where numbers are logged.

Nor do they look for what is true in one, whose number is the shape of the result. Other ways to wait, such as copies of
whole tensors, are not seen on a CPU.
"""

import traceback

import pytest
import torch
from mmengine.logging import MessageHub
from torch.utils._python_dispatch import TorchDispatchMode

# `one_hot` does not check the range of labels that are on a GPU. An average counts its steps on the CPU, where masks
# are counted, too, because `MIMDataPreprocessor` leaves them there.
NOT_OF_THE_GPU = {'batch_label_to_onehot', 'update_parameters', 'find_masked'}
# Ranks exchange as many tokens as there are codes to be replaced, which no recipe asks for: once a step.
KNOWN = {'_revive'}


READ = (
    torch.ops.aten._local_scalar_dense.default,
    torch.ops.aten.nonzero.default,
    torch.ops.aten.masked_select.default,
)


def is_mask(index: torch.Tensor | None) -> bool:
    return index is not None and index.dtype == torch.bool


class Readings(TorchDispatchMode):
    """Notes in which step, and where in the code, a tensor becomes a number while a batch is trained on."""

    def __init__(self):
        super().__init__()
        self.found: list[tuple[int, str]] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func in READ or (func is torch.ops.aten.index.Tensor and any(map(is_mask, args[1]))):
            stack = traceback.extract_stack()
            names = [frame.name for frame in stack]
            lines = [frame.line for frame in stack if frame.filename.endswith('layers/block.py')]
            # Drop path looks for the samples that are left on CPUs only.
            expected = func is torch.ops.aten.nonzero.default and 'counts.nonzero()' in ''.join(lines)
            if 'run_iter' in names and not expected and (NOT_OF_THE_GPU | KNOWN).isdisjoint(names):  # not of batches
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
    watch(tool, request.getfixturevalue(recipe), tmp_path, options)


@pytest.mark.filterwarnings('ignore:a text of .* is cut off')
def test_steps_of_masked_data_modeling_read_nothing_between_logs(mdm_configs, tool, tmp_path):
    watch(tool, mdm_configs['lines'], tmp_path, ('train_cfg.max_iters=6', 'default_hooks.logger.interval=3'))


def watch(tool, config, work_dir, options):
    options += ('optim_wrapper.type=mmbeit.AutocastOptimWrapper',)
    with Readings() as readings:
        tool('train', config, '--work-dir', work_dir, '--cfg-options', *options)
    assert {step for step, _ in readings.found} & {0}, 'the first step makes the histories, of what it reads'
    between = [where for step, where in readings.found if step in (1, 3, 4)]
    assert not between, f'{len(between)} times:\n{between[0]}'
