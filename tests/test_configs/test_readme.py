"""What the READMEs of the recipes tell people to do."""

import re

import pytest
from mmengine.config import Config
from mmengine.registry import HOOKS, DefaultScope
from mmengine.runner import Runner
from test_configs.recipes import FAMILIES, LOADERS, PATHS, ROOT, read, walk

from mmbeit.apis.complexity import build_on_meta


def test_example_of_the_readme_is_a_recipe(tmp_path):
    text = re.search(r'```python\n(.*?)```', (ROOT / 'configs/beit/README.md').read_text(), re.DOTALL)[1]
    mine = tmp_path / 'configs' / 'beit' / 'benchmarks' / 'mine.py'
    mine.parent.mkdir(parents=True)
    for path in PATHS.values():
        if path.parent.name == 'benchmarks':
            (mine.parent / path.name).symlink_to(path)
    (tmp_path / 'configs' / '_base_').symlink_to(ROOT / 'configs' / '_base_')
    mine.write_text(text)
    cfg = Config.fromfile(mine)
    assert all('_delete_' not in node for node in walk(cfg._cfg_dict.to_dict()))
    assert build_on_meta(cfg).head.fc.out_features == cfg.data_preprocessor.num_classes == 12
    assert cfg.test_dataloader == cfg.val_dataloader
    for loader, folder in zip(LOADERS, ('train', 'val', 'val'), strict=True):
        dataset = cfg[loader].dataset
        assert (dataset.type, dataset.data_root, dataset.data_prefix) == ('CustomDataset', 'data/mine/', folder)
        assert 'split' not in dataset
    assert cfg.train_dataloader.dataset.pipeline == cfg.train_pipeline
    assert cfg.test_evaluator == cfg.val_evaluator == dict(type='Accuracy', topk=(1,))


def test_average_of_the_weights_as_a_header_offers_it(tmp_path):
    path = PATHS['beit-base-p16_beit-pre_8xb128-coslr-100e_in1k']
    line = next(line for line in path.read_text().splitlines() if 'EMAHook' in line)
    child = tmp_path / 'child.py'
    child.write_text(f'_base_ = {str(path)!r}\n{line.lstrip("# ")}\n')
    hooks = Config.fromfile(child).custom_hooks
    assert hooks[:-1] == read(path.stem).custom_hooks
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        HOOKS.build(hooks[-1])


COMMANDS = [
    command.replace('\\\n', ' ')
    for family in FAMILIES
    for block in re.findall(r'(?s)```sh\n(.*?)```', (ROOT / 'configs' / family / 'README.md').read_text())
    for command in re.findall(r'(?m)^(?!#)(?:.*\\\n)*.*$', block)
    if command
]


@pytest.mark.parametrize('command', COMMANDS)
def test_commands_of_the_readmes_name_what_there_is(command):
    for path in re.findall(r'(?:tools|configs)/[\w/.-]+\.(?:py|sh)', command):
        assert (ROOT / path).is_file()
    config = re.search(r'configs/[\w/.-]+\.py', command)
    cfg = Config.fromfile(ROOT / config[0]) if config else {}
    for key in re.findall(r'([\w.]+)=', command):
        node = cfg
        for part in key.split('.'):
            node = node[part]


def test_runner_takes_a_recipe_whole(tmp_path):
    # Everything but data sets and weights: the keys have to be what Runner expects together.
    cfg = Config.fromfile(PATHS['beit-large-p16_beit-mim-in21k-pre_16xb64-accu2-coslr-90e_in21k'])
    cfg.work_dir = str(tmp_path)
    cfg.model.backbone.update(arch=dict(embed_dims=24, num_layers=2, num_heads=3, feedforward_channels=48))
    cfg.model.head.in_channels = 24
    runner = Runner.from_cfg(cfg)
    assert runner.model.data_preprocessor.num_classes == runner.model.head.num_classes == 21841
    assert runner.val_loop is None
