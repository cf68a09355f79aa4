"""Random weights that nobody would ever see."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

DRAWS = (Tensor.uniform_, Tensor.normal_, nn.init.uniform_, nn.init.normal_, nn.init.kaiming_uniform_)


class SkipDraws(TorchFunctionMode):
    """Within it, layers are built without drawing their weights, which are whatever is in the memory: to be loaded.

    Drawing those of a large model takes several times as long as loading others.
    """

    def __init__(self):
        super().__init__()
        self._undrawn: list[Tensor] = []

    def __torch_function__(
        self, func: Callable, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func not in DRAWS:
            return func(*args, **kwargs)
        tensor = args[0] if args else kwargs['tensor']
        self._undrawn.append(tensor)
        return tensor

    def left(self, model: nn.Module, fresh: Iterable[str]) -> bool:
        """Whether anything is still undrawn, after weights were loaded into what has been built.

        Args:
            model: What has been built.
            fresh: Names of its parameters and buffers that have not been loaded.
        """
        fresh = set(fresh)
        loaded = {id(tensor) for name, tensor in model.state_dict(keep_vars=True).items() if name not in fresh}
        return any(id(tensor) not in loaded for tensor in self._undrawn)
