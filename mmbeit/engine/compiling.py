"""`torch.compile`, one transformer block at a time."""

from typing import Any

from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import nn

from mmbeit.layers.block import Block
from mmbeit.layers.multiway import MultiwayBlock
from mmbeit.registry import HOOKS


def blocks_of(model: nn.Module) -> list[Block | MultiwayBlock]:
    """The blocks of a model, those of its frozen tokenizer or teacher, too."""
    tool = getattr(model, 'tool', None)  # of mmbeit.models.algorithms.tool.ModelWithTool
    parts = [model] if tool is None else [model, tool]
    return [module for part in parts for module in part.modules() if isinstance(module, Block | MultiwayBlock)]


def compile_blocks(model: nn.Module, **options: Any) -> int:
    """Have every block of a model compiled when it is first called, those of its frozen tokenizer or teacher, too.

    All blocks share the compiled code, whatever their rates of drop path, so this takes far less time than compiling
    the model as a whole, and what differs from step to step outside of the blocks compiles nothing anew. Names of
    parameters stay as they are.

    Args:
        model: Any that has blocks.
        options: Of `torch.compile`.

    Returns:
        The number of blocks.

    Raises:
        ValueError: There are none.
    """
    blocks = blocks_of(model)
    if not blocks:
        raise ValueError(f'{type(model).__name__} has no blocks of mmbeit to compile')
    for block in blocks:
        block.compile(**options)
    return len(blocks)


@HOOKS.register_module()
class CompileBlocksHook(Hook):
    """Compile the blocks of the model before it runs: `custom_hooks=[dict(type='mmbeit.CompileBlocksHook')]`.

    Instead of mmengine's `compile=True`, which compiles the whole.

    Args:
        options: Of `torch.compile`, such as `mode` or `backend`.
    """

    priority = 'VERY_HIGH'  # before any hook runs the model

    def __init__(self, **options: Any):
        self.options = options

    def before_run(self, runner: Runner) -> None:
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        runner.logger.info(f'{compile_blocks(model, **self.options)} blocks are compiled when they are first called')
