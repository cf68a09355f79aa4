"""A frozen network that a model uses and does not contain."""

from collections.abc import Callable
from typing import ClassVar

from mmengine.model import BaseModel
from torch import Tensor

from mmbeit.models.target_generators.base import TargetGenerator
from mmbeit.registry import MODELS


class ModelWithTool(BaseModel):
    """A model that learns from a frozen network, which is a tool of it, not a part.

    The tool is kept out of the module tree, so that optimizer, weight averages, DDP wrappers and checkpoints never meet
    it. It follows the model to another device, and gets its weights when the model does.

    Args:
        tool: Config of a :class:`TargetGenerator`, or None for a model that is not trained.
        data_preprocessor, init_cfg: Of mmengine's `BaseModel`.

    Attributes:
        tool_name: The attribute by which a subclass has its tool.
    """

    tool_name: ClassVar[str]

    def __init__(self, tool: dict | None, data_preprocessor: dict | None, init_cfg: dict | list[dict] | None):
        super().__init__(data_preprocessor=data_preprocessor, init_cfg=init_cfg)
        self.__dict__[self.tool_name] = None if tool is None else MODELS.build(tool)

    @property
    def tool(self) -> TargetGenerator | None:
        return self.__dict__[self.tool_name]

    def targets(self, *args) -> Tensor:
        """What the tool makes of images; arguments as of :meth:`TargetGenerator.forward`.

        Raises:
            ValueError: There is none.
        """
        if self.tool is None:
            raise ValueError(f'this model was built without a {self.tool_name}: training needs one')
        return self.tool(*args)

    def init_weights(self) -> None:
        super().init_weights()
        if self.tool is not None:
            self.tool.init_weights()

    def _apply(self, fn: Callable[[Tensor], Tensor], *args, **kwargs) -> 'ModelWithTool':
        if self.tool is not None:
            self.tool._apply(fn, *args, **kwargs)
        return super()._apply(fn, *args, **kwargs)
