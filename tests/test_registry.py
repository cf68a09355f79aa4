"""Names of scope `mmbeit` resolve wherever a config may use them, and its configs can be inherited from."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from mmengine import Config
from mmengine import registry as root

import mmbeit.registry

ROOT = Path(__file__).parents[1]
NAMES = {
    'MODELS': (
        'BEiT',
        'MaskedImageModeling',
        'MIMHead',
        'DVAETokenizer',
        'DiscreteVAE',
        'VQKDTokenizer',
        'MIMDataPreprocessor',
    ),
    'DATASETS': ('VQAv2', 'NLVR2', 'KarpathyCaption', 'KarpathyRetrieval', 'NoCaps', 'VisualGenomeQA', 'ConcatDataset')
    + ('TextLines', 'PairLines', 'Shards', 'Mixture'),
    'FUNCTIONS': ('collate_groups',),
    'TRANSFORMS': ('SeedTransforms', 'LoadImage', 'RandomResizedCropTwoViews', 'BlockwiseMask', 'RandomErasing'),
    'DATA_SAMPLERS': ('SeededSampler', 'SeededInfiniteSampler', 'MixtureSampler'),
    'HOOKS': ('StepSeedHook', 'AnnealHook', 'CompileHook', 'TrimLogHook', 'SafeCheckpointHook', 'StreamHook'),
    'OPTIM_WRAPPERS': ('AutocastOptimWrapper',),
    'OPTIM_WRAPPER_CONSTRUCTORS': ('LayerDecayOptimWrapperConstructor',),
    'METRICS': ('CodebookUsage', 'VQAAccuracy', 'CaptionScores'),
}
LOOK_UP = """
import sys
from mmengine import registry as root
scope = {scope!r}
if scope:
    root.DefaultScope.get_instance('test', scope_name=scope)
    root.init_default_scope(scope)
assert 'mmbeit' not in sys.modules
for registry, names in {names!r}.items():
    for name in names:
        found = getattr(root, registry).get('mmbeit.' + name)
        assert found is not None and found.__name__ == name, name
"""


@pytest.mark.parametrize('scope', [None, 'mmengine', 'mmpretrain', 'mmseg'])
def test_names_resolve_in_a_fresh_process_from_every_scope(scope, tmp_path):
    if scope == 'mmseg':
        pytest.importorskip('mmseg', exc_type=ImportError)
    code = LOOK_UP.format(scope=scope, names=NAMES)
    env = {**os.environ, 'PYTHONPATH': str(ROOT), 'OMP_NUM_THREADS': '1'}
    done = subprocess.run([sys.executable, '-c', code], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]


def test_every_registry_is_looked_up_above():
    own = {name for name, value in vars(mmbeit.registry).items() if isinstance(value, root.Registry)}
    assert own == NAMES.keys()


def test_configs_can_be_inherited_by_their_package(tmp_path):
    child = tmp_path / 'child.py'
    child.write_text(
        "_base_ = 'mmbeit::beit/beit_beit-base-p16_8xb256-amp-coslr-300e_in1k.py'\n"
        "model = dict(backbone=dict(arch='tiny'))\n"
    )
    cfg = Config.fromfile(child)
    assert cfg.train_cfg.max_epochs == 300
    assert cfg.model.backbone.arch == 'tiny'
    assert '_scope_' not in cfg.pretty_text
    child.write_text("_base_ = 'mmbeit::beit/nobody.py'\n")
    with pytest.raises(FileNotFoundError, match='nobody.py'):
        Config.fromfile(child)
