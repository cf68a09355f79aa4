"""Every recipe, resolved: what it says of itself, what it trains and on what."""

import re
from collections import Counter
from functools import partial
from inspect import signature

import numpy as np
import pytest
import torch
from mmcv.transforms import Compose
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import FUNCTIONS, METRICS, PARAM_SCHEDULERS, DefaultScope
from mmengine.runner import Runner
from PIL import Image
from test_configs.recipes import (
    EVALUATIONS,
    LOADERS,
    PATHS,
    RECIPES,
    ROOT,
    SEGMENTATION,
    VISION_LANGUAGE,
    model_of,
    parse,
    read,
    schedulers,
    size_of,
    walk,
)
from torch import nn

from mmbeit.datasets.samplers import seeded

BY_EPOCH = [name for name in PATHS if 'max_epochs' in read(name).train_cfg]


@pytest.fixture(scope='module')
def image_path(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp('images') / 'image.jpg'
    pixels = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    Image.fromarray(pixels).resize((600, 450)).save(path)
    return str(path)


# All recipes, the quickstart's too.


def test_names_are_unique():
    stems = Counter(p.stem for p in (ROOT / 'configs').rglob('*.py') if '_base_' not in p.parts)
    assert not [name for name, count in stems.items() if count > 1], 'mim finds a config by its name'


@pytest.mark.parametrize('name', PATHS)
def test_keys_of_the_merge_do_not_survive_it(name):
    cfg = read(name)._cfg_dict.to_dict()
    for node in walk([cfg[key] for key in signature(Runner).parameters if key in cfg]):
        assert '_delete_' not in node, 'there was nothing to delete in the base, and _delete_ became an argument'
        assert '_scope_' not in node, 'inherited from another package'


@pytest.mark.parametrize('name', PATHS)
def test_optimizer_has_every_trainable_parameter_once(name):
    model = model_of(name)
    optimizer = build_optim_wrapper(model, read(name).optim_wrapper).optimizer
    counts = Counter(id(p) for group in optimizer.param_groups for p in group['params'])
    assert set(counts.values()) == {1}
    trainable = {id(p) for p in model.parameters() if p.requires_grad}
    assert trainable
    assert trainable <= set(counts)
    assert set(counts) <= {id(p) for p in model.parameters()}


@pytest.mark.parametrize('name', BY_EPOCH)
def test_schedule_covers_the_training_without_gaps(name):
    cfg = read(name)
    assert all(schedule.by_epoch for schedule in schedulers(cfg))
    end = 0
    for schedule in schedulers(cfg):
        assert schedule.get('begin', 0) == end
        end = schedule.end
    assert end == cfg.train_cfg.max_epochs


@pytest.mark.parametrize('name', BY_EPOCH)
def test_learning_rate_peaks_and_ends_where_it_should(name):
    cfg, length = read(name), 20
    lr = cfg.optim_wrapper.optimizer.lr
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=lr)
    built, per_epoch = [], []
    for schedule in map(dict, schedulers(cfg)):
        kind = PARAM_SCHEDULERS.get(schedule.pop('type'))
        if schedule.pop('convert_to_iter_based', False):
            built.append(kind.build_iter_from_epoch(optimizer=optimizer, epoch_length=length, **schedule))
        else:
            per_epoch.append(kind(optimizer=optimizer, **schedule))
    rates = []
    for step in range(length * cfg.train_cfg.max_epochs):
        rates.append(optimizer.param_groups[0]['lr'])
        for schedule in built:
            schedule.step()
        for schedule in per_epoch if (step + 1) % length == 0 else []:
            schedule.step()
    last = schedulers(cfg)[-1]
    floor = last.get('eta_min_ratio', 0) * lr
    assert max(rates) == pytest.approx(lr, rel=1e-6)
    if len(built) == 2:  # after a warm-up from 0
        assert rates[0] < 1e-9 * lr
        assert rates.index(max(rates)) in (int(last.begin * length) + d for d in (-1, 0))
    assert floor <= rates[-1] <= floor + 2e-3 * lr
    assert rates[-1] == pytest.approx(min(rates[int(last.get('begin', 0) * length) :]), rel=1e-6)


@pytest.mark.parametrize('name', [name for name in PATHS if not name.endswith('image-text')])
def test_collate_function_takes_what_the_config_gives_it(name):
    # Runner calls it with every key of the dict but `type`; one that another package's scope added would be an error.
    cfg = read(name)
    for key in LOADERS:
        if cfg.get(key) and 'collate_fn' in cfg[key]:
            arguments = dict(cfg[key].collate_fn)
            collate = partial(FUNCTIONS.get(arguments.pop('type')), **arguments)
            assert collate([{'inputs': torch.zeros(3)}] * 2)['inputs'].shape == (2, 3)


@pytest.mark.parametrize('name', PATHS)
def test_tools_test_evaluates_as_training_validates(name):
    cfg = read(name)
    if cfg.get('val_dataloader') and name not in (*EVALUATIONS, *VISION_LANGUAGE):
        assert cfg.test_dataloader == cfg.val_dataloader
        assert cfg.test_evaluator == cfg.val_evaluator
    for split in ('val', 'test'):
        keys = [f'{split}_{part}' for part in ('dataloader', 'cfg', 'evaluator')]
        assert len({cfg.get(key) is None for key in keys}) == 1, f'Runner wants all or none of {keys}'
        metrics = cfg.get(f'{split}_evaluator') or []
        for metric in metrics if isinstance(metrics, list) else [metrics]:
            if metric.type != 'mmbeit.CaptionScores':  # it needs a file and Java
                with DefaultScope.overwrite_default_scope(cfg.default_scope):
                    METRICS.build(metric)


@pytest.mark.parametrize('name', RECIPES[:1])
def test_inheriting_by_package_is_inheriting_by_path(name, tmp_path):
    child = tmp_path / 'child.py'
    child.write_text(f"_base_ = 'mmbeit::{PATHS[name].relative_to(ROOT / 'configs')}'\n")
    assert Config.fromfile(child).to_dict() == Config.fromfile(PATHS[name]).to_dict()


# Recipes: not the quickstart's, which are ImageNet's made small.


@pytest.mark.parametrize('name', [*RECIPES, *EVALUATIONS])
def test_header_says_what_to_run_what_it_costs_and_what_to_expect(name):
    comment = []
    for line in PATHS[name].read_text().splitlines():
        if not line.startswith('#'):
            break
        comment.append(line)
    header = ' '.join(line.lstrip('# ') for line in comment)
    tool, config, processes = re.search(r'Run: (\S+) (\S+) (?:CHECKPOINT )?(\d+)', header).groups()
    assert (ROOT / tool).is_file()
    assert ROOT / config == PATHS[name]
    if name in RECIPES:
        assert int(processes) == parse(name)['gpus']
        assert 'Cost:' in header
    assert 'ot measured here' in header or 'no published run' in header
    family = PATHS[name].relative_to(ROOT / 'configs').parts[0]
    for path in re.findall(r'(?<!/)benchmarks/\S+\.py', header):
        assert (ROOT / 'configs' / family / path).is_file()


@pytest.mark.parametrize('name', RECIPES)
def test_name_agrees_with_the_content(name):
    cfg, said = read(name), parse(name)
    assert cfg.train_dataloader.batch_size == said['batch']
    assert cfg.optim_wrapper.get('accumulative_counts', 1) == said['accumulate']
    assert cfg.train_cfg.get('max_epochs') == said.get('epochs')
    assert cfg.train_cfg.get('max_iters') == said.get('iters')
    # mmengine compares it with processes x batch_size, whatever is accumulated.
    assert cfg.auto_scale_lr.base_batch_size == said['gpus'] * said['batch']
    folder = {
        **{'in1k': 'imagenet/', 'in21k': 'imagenet21k/', 'ade20k': 'ade/ADEChallengeData2016'},
        **{'vqav2': 'vqav2', 'vqav2-vgqa': 'vqav2', 'nlvr2': 'nlvr2', 'coco-caption': 'coco', 'nocaps': 'coco'},
        **{'coco-retrieval': 'coco', 'flickr30k-retrieval': 'flickr30k', 'itc': 'coco'},
    }[said['data']]
    dataset = cfg.train_dataloader.dataset
    assert dataset.get('datasets', [dataset])[0].data_root == f'data/{folder}'
    if 'backbone' in cfg.model:
        assert cfg.model.backbone.arch in said['model']
        assert cfg.model.backbone.img_size == said['size']


@pytest.mark.parametrize('name', [name for name in RECIPES if '_vqav2-' not in name])
def test_top_level_pipelines_are_those_of_the_data_loaders(name):
    # They are copies: a recipe that changes the one and forgets the other would show wrong values in its dump.
    cfg = read(name)
    for key, loaders in (('train_pipeline', LOADERS[:1]), ('test_pipeline', LOADERS[1:])):
        for loader in loaders:
            if key in cfg and cfg.get(loader):
                assert cfg[key] == cfg[loader].dataset.pipeline


@pytest.mark.parametrize('name', [name for name in RECIPES if name not in (*SEGMENTATION, *VISION_LANGUAGE)])
def test_pipelines_give_images_of_the_size_of_the_backbone(name, image_path):
    cfg = read(name)
    size = size_of(cfg)
    for loader in LOADERS:
        if not cfg.get(loader):
            continue
        pipeline = Compose(cfg[loader].dataset.pipeline)
        packed = pipeline(dict(img_path=image_path, gt_label=1, sample_idx=seeded(0, 1)))
        views = packed['inputs'] if isinstance(packed['inputs'], list) else [packed['inputs']]
        if len(views) == 4:  # how colours are to change comes with the views
            views = [view.permute(2, 0, 1) for view in views[:2]]
        assert views[0].shape == (3, *size)
        if len(views) == 2:
            stride = model_of(name).target_generator.stride
            grid = [side // cfg.model.backbone.patch_size for side in size]
            assert packed['data_samples'].mask.shape == tuple(grid)
            assert views[1].shape == (3, *[side * stride for side in grid])
