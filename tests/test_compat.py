"""What `import mmbeit` changes. It is tried in fresh processes wherever the order of imports matters."""

import sys

import pytest
from mmengine.config.utils import MODULE2PACKAGE
from processes import run

from mmbeit import compat


def test_mmpretrain_and_torchvision_can_be_imported_after_mmbeit():
    pytest.importorskip('torchvision')
    code = """
        import mmbeit
        import torchvision, mmpretrain.models
        from mmengine.registry import MODELS
        print(MODELS.get('mmbeit.BEiT').__name__, MODELS.get('mmpretrain.ImageClassifier').__name__)
    """
    assert run(code) == 'BEiT ImageClassifier'


def test_layers_and_checkpoint_reading_need_torch_and_numpy_alone():
    code = """
        import sys
        for name in ('mmengine', 'mmcv', 'mmpretrain', 'mmseg', 'torchvision', 'timm', 'transformers', 'scipy', 'PIL'):
            sys.modules[name] = None  # import raises, find_spec gives None
        import importlib, pkgutil
        import mmbeit.checkpoint.load, mmbeit.layers
        names = [module.name for module in pkgutil.iter_modules(mmbeit.layers.__path__)]
        for name in names:
            importlib.import_module(f'mmbeit.layers.{name}')
        print('position' in names and 'block' in names)
    """
    assert run(code) == 'True'


def fake_torchvision(folder):
    """A package with a compiled part that cannot load, like torchvision next to a build of torch that does not fit."""
    package = folder / 'torchvision'
    package.mkdir()
    (package / '_C.so').write_text('not a library')
    (package / '__init__.py').write_text(
        'import torch\n'
        "for op in ('nms', 'qnms'):\n"
        "    torch.library.register_fake(f'torchvision::{op}')(lambda dets, scores, threshold: dets)\n"
    )
    return folder


def test_operators_of_a_torchvision_that_cannot_load_are_declared_once(tmp_path):
    folder = fake_torchvision(tmp_path)
    assert 'operator torchvision::nms does not exist' in run('import torchvision', folder)
    code = """
        import torch
        from mmbeit import compat
        import torchvision
        compat._libraries and print(len(compat._libraries), compat.declare_torchvision_ops())
        print(torch.ops.torchvision.nms.default._schema)
    """
    first, schema = run(code, folder).splitlines()
    assert first == '1 False'
    assert schema == 'torchvision::nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor'


@pytest.mark.parametrize('case', ['loads', 'absent', 'imported'])
def test_no_operator_is_declared_for_a_torchvision_that_loads_is_absent_or_was_imported(monkeypatch, tmp_path, case):
    fake_torchvision(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, 'torchvision', raising=False)
    monkeypatch.setattr(compat, '_libraries', [])
    loaded = []
    monkeypatch.setattr(compat.torch.ops, 'load_library', lambda path: loaded.append(path.name))
    if case != 'loads':
        monkeypatch.setitem(sys.modules, 'torchvision', None if case == 'absent' else pytest)
    assert compat.declare_torchvision_ops() is False
    assert compat._libraries == []
    assert loaded == (['_C.so'] if case == 'loads' else [])


def test_configs_of_mmbeit_can_be_inherited_by_name(monkeypatch):
    assert MODULE2PACKAGE['mmbeit'] == 'mmbeit'
    monkeypatch.setitem(MODULE2PACKAGE, 'mmbeit', 'a fork of mmbeit')
    compat.make_configs_inheritable()
    assert MODULE2PACKAGE['mmbeit'] == 'a fork of mmbeit'


@pytest.mark.parametrize(
    ('versions', 'off'),
    [
        ({'transformers': '5.1.0', 'pycocotools': '2.0'}, True),
        ({'transformers': '4.57.0', 'pycocotools': '2.0'}, False),
        ({'transformers': '5.1.0'}, False),
        ({'pycocotools': '2.0'}, False),
    ],
)
def test_multimodal_models_are_switched_off_only_where_they_cannot_be_imported(monkeypatch, versions, off):
    dependency = pytest.importorskip('mmpretrain.utils.dependency')

    def version(name):
        if name not in versions:
            raise compat.PackageNotFoundError(name)
        return versions[name]

    monkeypatch.setattr(compat, 'version', version)
    monkeypatch.setattr(dependency, 'WITH_MULTIMODAL', 'as it was')
    assert compat.disable_broken_multimodal() == off
    assert (False if off else 'as it was') == dependency.WITH_MULTIMODAL


def test_switching_multimodal_models_off_waits_for_mmpretrain():
    code = """
        import sys
        from importlib import metadata
        of_others = metadata.version
        metadata.version = lambda name: {'transformers': '5.1', 'pycocotools': '2.0'}.get(name) or of_others(name)
        import mmbeit
        before = 'mmpretrain' in sys.modules
        import mmpretrain.models
        from mmpretrain.utils import dependency
        print(before, dependency.WITH_MULTIMODAL)
    """
    assert run(code) == 'False False'
