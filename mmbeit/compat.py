"""The few places where today's libraries need help before they work together.

Everything that mmbeit changes outside of itself at import is here, each with its reason. Every function looks first
whether the help is needed and does nothing where it is not.
"""

import importlib.util
import sys
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import ModuleType

import torch

_libraries = []  # torch drops an operator library when nothing holds it any more


def apply() -> None:
    """Apply every remedy that this environment needs."""
    declare_torchvision_ops()
    make_configs_inheritable()
    disable_broken_multimodal()
    join_model_hub()


def declare_torchvision_ops() -> bool:
    """Let a CUDA build of torchvision be imported next to a CPU build of torch.

    The compiled part of torchvision cannot load then, and `import torchvision` (with it `mmpretrain.models`) fails with
    "operator torchvision::nms does not exist": it gives meta kernels to two operators that nobody has declared.
    Declaring their schemas is enough. Calling them still fails; nothing in the BEiT family does.

    Returns:
        Whether schemas were declared. False where the compiled part loads, torchvision is absent, or was imported.
    """
    spec = None if 'torchvision' in sys.modules else importlib.util.find_spec('torchvision')
    if spec is None or _libraries:
        return False
    for extension in Path(spec.origin).parent.glob('_C.*'):
        try:
            torch.ops.load_library(extension)
            return False  # torchvision declares its own operators
        except OSError:
            continue
    library = torch.library.Library('torchvision', 'FRAGMENT')
    for op in ('nms', 'qnms'):
        library.define(f'{op}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor')
    _libraries.append(library)
    return True


def make_configs_inheritable() -> None:
    """Let other people's configs say `_base_ = 'mmbeit::beit/...'`, once mmbeit is imported.

    mmengine looks packages up in a fixed table, and their configs in `.mim`, which a checkout does not have. It also
    switches to the scope `mmbeit` wherever such a config builds something, where `ImageClassifier` is not known.
    """
    if importlib.util.find_spec('mmengine') is None:
        return  # `mmbeit.layers` and `mmbeit.checkpoint.load` work with torch alone
    from mmengine.config import Config
    from mmengine.config.utils import MODULE2PACKAGE

    MODULE2PACKAGE.setdefault('mmbeit', 'mmbeit')  # for mmengine.hub
    of_others = Config._get_cfg_path

    def get_cfg_path(cfg_path: str, filename: str) -> tuple[str, str | None]:
        if not cfg_path.startswith('mmbeit::'):
            return of_others(cfg_path, filename)
        from mmbeit.resources import resource_root

        return str(resource_root() / 'configs' / cfg_path.removeprefix('mmbeit::')), None

    Config._get_cfg_path = staticmethod(get_cfg_path)


def disable_broken_multimodal() -> bool:
    """Switch mmpretrain's multimodal models off where they cannot be imported.

    With pycocotools and transformers 5 both installed, `import mmpretrain.models` dies on a class that transformers
    no longer has, and with it every lookup of `ImageClassifier`. Without either package mmpretrain does so itself.

    Returns:
        Whether they are switched off: at once, or as soon as mmpretrain is imported.
    """
    try:
        broken = int(version('transformers').split('.')[0]) >= 5 and version('pycocotools')
    except PackageNotFoundError:
        return False
    if not broken or importlib.util.find_spec('mmpretrain') is None:
        return False
    after_import('mmpretrain.utils.dependency', lambda dependency: setattr(dependency, 'WITH_MULTIMODAL', False))
    return True


def join_model_hub() -> None:
    """Let mmpretrain's `list_models`, `get_model` and `inference_model` know the names of mmbeit.

    mmpretrain asks no other package for its models. It takes seconds to import and many users of mmbeit never need it,
    so its hub is extended when, and if, somebody imports it; at once where somebody has done so already.
    """

    def join(module: ModuleType) -> None:
        from mmbeit.apis.index import join_hub

        join_hub(module.ModelHub)

    after_import('mmpretrain.apis.model', join)


def after_import(name: str, function: Callable[[ModuleType], None]) -> None:
    """Call a function with a module when, and if, somebody imports it; at once where somebody has done so already."""
    if name in sys.modules:
        function(sys.modules[name])
    else:
        sys.meta_path.insert(0, AfterImport(name, function))


class AfterImport:
    """A finder of modules that finds one as the others do, and calls a function when it has been imported.

    Args:
        name: Of the module.
        function: Takes the module.
    """

    def __init__(self, name: str, function: Callable[[ModuleType], None]):
        self.name = name
        self.function = function

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        if name != self.name:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec is not None:
            execute = spec.loader.exec_module

            def execute_and_call(module: ModuleType) -> None:
                execute(module)
                self.function(module)

            spec.loader.exec_module = execute_and_call
        return spec
