"""Every recipe, resolved: what it trains, on what, for how long, what it costs, and that metafile.yml agrees."""

import re
from collections import Counter
from collections.abc import Iterator
from functools import cache, partial
from inspect import signature
from pathlib import Path

import mmengine
import numpy as np
import pytest
import torch
from mmcv.transforms import Compose
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import FUNCTIONS, HOOKS, METRICS, PARAM_SCHEDULERS, DefaultScope
from mmengine.runner import Runner
from PIL import Image
from torch import nn

from mmbeit.apis.complexity import Complexity, build_on_meta, complexity, image_size
from mmbeit.datasets.samplers import seeded
from mmbeit.engine.run import resource_root

ROOT = resource_root()
PATHS = {path.stem: path for path in sorted((ROOT / 'configs').rglob('*.py')) if '_base_' not in path.parts}
RECIPES = [name for name, path in PATHS.items() if 'quickstart' not in path.parts]
V1 = [name for name in RECIPES if PATHS[name].is_relative_to(ROOT / 'configs' / 'beit')]
CLASSIFIERS = [name for name in V1 if PATHS[name].parent.name == 'benchmarks']
LOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')
IMAGENET = ([123.675, 116.28, 103.53], [58.395, 57.12, 57.375])
HALF = ([127.5] * 3, [127.5] * 3)

# Counts that were obtained from the official code, and the features' multiply-adds of base at 224 pixels.
FINETUNE_PARAMETERS = {
    ('base', 224): 86_530_984,
    ('base', 384): 86_744_104,
    ('large', 224): 304_430_568,
    ('large', 384): 304_998_888,
    ('large', 512): 305_674_728,
}
PRETRAIN_PARAMETERS = {'base': 91_965_776, 'large': 311_534_016}
BASE_224_FLOPS = 17_581_219_584

# Official recipes (unilm:beit/README.md, beit/get_started_for_image_classification.md): GPUs, images on each,
# accumulated steps, peak lr, warm-up and all epochs, layer decay, drop path, weight decay, Mixup and CutMix.
OFFICIAL = {
    'beit-base-p16_beit-mim-in21k-pre_in21k': (16, 256, 1, 3e-3, 5, 90, 0.65, 0.2, 0.05, None),
    'beit-large-p16_beit-mim-in21k-pre_in21k': (16, 64, 2, 2e-3, 5, 90, 0.75, 0.2, 0.05, None),
    'beit-base-p16_beit-in21k-pre_in1k': (8, 64, 1, 2e-5, 5, 30, 0.85, 0.1, 1e-8, None),
    'beit-large-p16_beit-in21k-pre_in1k': (8, 32, 2, 2e-5, 5, 30, 0.9, 0.4, 1e-8, None),
    'beit-base-p16_beit-mim-in21k-pre_in1k': (8, 128, 1, 4e-3, 20, 100, 0.65, 0.1, 0.05, (0.8, 1.0)),
    'beit-large-p16_beit-mim-in21k-pre_in1k': (8, 64, 2, 1e-3, 5, 50, 0.75, 0.2, 0.05, (0.8, 1.0)),
    'beit-base-p16_beit-pre_in1k': (8, 128, 1, 4e-3, 20, 100, 0.65, 0.1, 0.05, (0.8, 1.0)),
    'beit-large-p16_beit-pre_in1k': (8, 64, 2, 1e-3, 5, 50, 0.75, 0.2, 0.05, (0.8, 1.0)),
}


@cache
def read(name: str) -> Config:
    return Config.fromfile(PATHS[name])


@cache
def model_of(name: str) -> nn.Module:
    return build_on_meta(read(name))


@cache
def cost_of(name: str) -> Complexity:
    cfg = read(name)
    return complexity(model_of(name), image_size(cfg) if 'backbone' in cfg.model else (256, 256))


def parse(name: str) -> dict:
    """What the name of a recipe says."""
    found = re.fullmatch(
        r'(?P<model>.+)_(?P<gpus>\d+)xb(?P<batch>\d+)(-accu(?P<accumulate>\d+))?(-linear)?(-amp)?-coslr'
        r'-(?P<epochs>\d+)e_(?P<data>in21k|in1k)(-(?P<size>\d+)px)?',
        name,
    )
    assert found, f'{name} does not follow the convention for names'
    numbers = {k: int(found[k] or 1) for k in ('gpus', 'batch', 'accumulate', 'epochs')}
    return {'model': found['model'], 'data': found['data'], 'size': int(found['size'] or 224), **numbers}


def schedulers(cfg: Config) -> list[dict]:
    return cfg.param_scheduler if isinstance(cfg.param_scheduler, list) else [cfg.param_scheduler]


def walk(node) -> Iterator[dict]:
    """All dicts of a tree."""
    if isinstance(node, dict):
        yield node
        node = list(node.values())
    if isinstance(node, (list, tuple)):
        for child in node:
            yield from walk(child)


def statistics(cfg: Config) -> tuple[list[float], list[float]]:
    preprocessor = cfg.model.get('data_preprocessor') or cfg.data_preprocessor
    return list(preprocessor.mean), list(preprocessor.std)


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


@pytest.mark.parametrize('name', PATHS)
def test_schedule_covers_the_training_without_gaps(name):
    cfg = read(name)
    assert all(schedule.by_epoch for schedule in schedulers(cfg))
    end = 0
    for schedule in schedulers(cfg):
        assert schedule.get('begin', 0) == end
        end = schedule.end
    assert end == cfg.train_cfg.max_epochs


@pytest.mark.parametrize('name', PATHS)
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
    assert rates[-1] == pytest.approx(min(rates[-20 * length :]), rel=1e-6)


@pytest.mark.parametrize('name', PATHS)
def test_collate_function_takes_what_the_config_gives_it(name):
    # Runner calls it with every key of the dict but `type`; one that another package's scope added would be an error.
    cfg = read(name)
    for key in LOADERS:
        if cfg.get(key):
            arguments = dict(cfg[key].collate_fn)
            collate = partial(FUNCTIONS.get(arguments.pop('type')), **arguments)
            assert collate([{'inputs': torch.zeros(3)}] * 2)['inputs'].shape == (2, 3)


@pytest.mark.parametrize('name', PATHS)
def test_tools_test_evaluates_as_training_validates(name):
    cfg = read(name)
    if cfg.get('val_dataloader'):
        assert cfg.test_dataloader == cfg.val_dataloader
        assert cfg.test_evaluator == cfg.val_evaluator
    for split in ('val', 'test'):
        keys = [f'{split}_{part}' for part in ('dataloader', 'cfg', 'evaluator')]
        assert len({cfg.get(key) is None for key in keys}) == 1, f'Runner wants all or none of {keys}'
        if cfg.get(f'{split}_evaluator'):
            with DefaultScope.overwrite_default_scope('mmpretrain'):
                METRICS.build(cfg[f'{split}_evaluator'])


@pytest.mark.parametrize('name', RECIPES[:1])
def test_inheriting_by_package_is_inheriting_by_path(name, tmp_path):
    child = tmp_path / 'child.py'
    child.write_text(f"_base_ = 'mmbeit::{PATHS[name].relative_to(ROOT / 'configs')}'\n")
    assert Config.fromfile(child).to_dict() == Config.fromfile(PATHS[name]).to_dict()


# Recipes: not the quickstart's, which are ImageNet's made small.


@pytest.mark.parametrize('name', RECIPES)
def test_header_says_what_to_run_what_it_costs_and_what_to_expect(name):
    comment = []
    for line in PATHS[name].read_text().splitlines():
        if not line.startswith('#'):
            break
        comment.append(line)
    header = ' '.join(line.lstrip('# ') for line in comment)
    tool, config, processes = re.search(r'Run: (\S+) (\S+) (\d+)', header).groups()
    assert (ROOT / tool).is_file()
    assert ROOT / config == PATHS[name]
    assert int(processes) == parse(name)['gpus']
    assert 'Cost:' in header
    assert 'ot measured here' in header or 'no published run' in header
    for path in re.findall(r'benchmarks/\S+\.py', header):
        assert (ROOT / 'configs/beit' / path).is_file()


@pytest.mark.parametrize('name', RECIPES)
def test_name_agrees_with_the_content(name):
    cfg, said = read(name), parse(name)
    assert cfg.train_dataloader.batch_size == said['batch']
    assert cfg.optim_wrapper.get('accumulative_counts', 1) == said['accumulate']
    assert cfg.train_cfg.max_epochs == said['epochs']
    # mmengine compares it with processes x batch_size, whatever is accumulated.
    assert cfg.auto_scale_lr.base_batch_size == said['gpus'] * said['batch']
    assert ('imagenet21k' in cfg.train_dataloader.dataset.data_root) == (said['data'] == 'in21k')
    if 'backbone' in cfg.model:
        assert cfg.model.backbone.arch in said['model']
        assert cfg.model.backbone.img_size == said['size']


@pytest.mark.parametrize('name', RECIPES)
def test_top_level_pipelines_are_those_of_the_data_loaders(name):
    # They are copies: a recipe that changes the one and forgets the other would show wrong values in its dump.
    cfg = read(name)
    for key, loaders in (('train_pipeline', LOADERS[:1]), ('test_pipeline', LOADERS[1:])):
        for loader in loaders:
            if key in cfg and cfg.get(loader):
                assert cfg[key] == cfg[loader].dataset.pipeline


@pytest.mark.parametrize('name', RECIPES)
def test_pipelines_give_images_of_the_size_of_the_backbone(name, image_path):
    cfg = read(name)
    size = image_size(cfg) if 'backbone' in cfg.model else (256, 256)
    for loader in LOADERS:
        if not cfg.get(loader):
            continue
        pipeline = Compose(cfg[loader].dataset.pipeline)
        packed = pipeline(dict(img_path=image_path, gt_label=1, sample_idx=seeded(0, 1)))
        views = packed['inputs'] if isinstance(packed['inputs'], list) else [packed['inputs']]
        assert views[0].shape == (3, *size)
        if len(views) == 2:
            stride = 2 ** (cfg.model.target_generator.get('num_groups', 4) - 1)
            grid = [side // cfg.model.backbone.patch_size for side in size]
            assert packed['data_samples'].mask.shape == tuple(grid)
            assert views[1].shape == (3, *[side * stride for side in grid])


@pytest.mark.parametrize('name', CLASSIFIERS)
def test_evaluation_crops_an_eighth_below_384_pixels_and_nothing_from_there(name):
    cfg = read(name)
    size = cfg.model.backbone.img_size
    for loader in LOADERS[1:]:
        if cfg.get(loader):
            steps = {step.type: step for step in cfg[loader].dataset.pipeline}
            assert steps['ResizeEdge'].scale == (int(size / 0.875) if size < 384 else size)
            assert steps['ResizeEdge'].edge == 'short'
            assert steps['ResizeEdge'].interpolation == 'bicubic'
            assert steps['CenterCrop'].crop_size == size


@pytest.mark.parametrize('name', [n for n in V1 if not n.startswith('dvae')])
def test_statistics_are_those_of_pretraining(name):
    cfg = read(name)
    assert statistics(cfg) == (HALF if 'in21k' in name else IMAGENET)


@pytest.mark.parametrize('name', [n for n in CLASSIFIERS if 'linear' not in n])
def test_what_fills_up_or_erases_an_image_has_the_statistics_of_the_model(name):
    cfg = read(name)
    mean, std = statistics(cfg)
    steps = {step.type: step for step in cfg.train_dataloader.dataset.pipeline}
    assert cfg.data_preprocessor.to_rgb, 'images are B, G, R before it'
    assert steps['RandAugment'].hparams.pad_val == [round(x) for x in mean[::-1]]
    assert steps['mmbeit.RandomErasing'].mean == mean[::-1]
    assert steps['mmbeit.RandomErasing'].std == std[::-1]


@pytest.mark.parametrize('name', [n for n in CLASSIFIERS if 'linear' not in n])
def test_finetuning_recipes_are_the_official_ones(name):
    cfg, said = read(name), parse(name)
    optimizer, warmup = cfg.optim_wrapper.optimizer, cfg.param_scheduler[0].end
    augments = {augment.type: augment.alpha for augment in (cfg.model.train_cfg or {}).get('augments', [])}
    ours = (
        said['gpus'],
        cfg.train_dataloader.batch_size,
        cfg.optim_wrapper.get('accumulative_counts', 1),
        optimizer.lr,
        warmup,
        cfg.train_cfg.max_epochs,
        cfg.optim_wrapper.paramwise_cfg.layer_decay_rate,
        cfg.model.backbone.drop_path_rate,
        optimizer.weight_decay,
        (augments['Mixup'], augments['CutMix']) if augments else None,
    )
    assert ours == OFFICIAL[f'{said["model"]}_{said["data"]}']
    assert optimizer.type == 'AdamW'
    assert optimizer.betas == (0.9, 0.999)
    assert cfg.param_scheduler[1].eta_min_ratio * optimizer.lr == pytest.approx(1e-6)
    assert cfg.model.head.loss.label_smooth_val == 0.1
    assert cfg.model.head.num_classes == {'in1k': 1000, 'in21k': 21841}[said['data']]
    assert 'clip_grad' not in cfg.optim_wrapper


@pytest.mark.parametrize('name', [n for n in V1 if n.startswith('beit_')])
def test_pretraining_recipes_are_the_official_ones(name):
    cfg, said = read(name), parse(name)
    large = cfg.model.backbone.arch == 'large'
    assert said['gpus'] * said['batch'] == 2048
    assert cfg.optim_wrapper.optimizer == dict(type='AdamW', lr=1.5e-3, betas=(0.9, 0.999), weight_decay=0.05)
    assert cfg.optim_wrapper.clip_grad.max_norm == (1.0 if large else 3.0)
    assert cfg.model.backbone.drop_path_rate == 0.1
    assert cfg.model.backbone.layer_scale == (1e-5 if large else 0.1)
    assert cfg.param_scheduler[1].eta_min_ratio * 1.5e-3 == pytest.approx(1e-5)
    updates = 6932 if said['data'] == 'in21k' else 625  # in an epoch of 2048 images each
    assert int(cfg.param_scheduler[0].end * updates) == (10_000 if said['data'] == 'in21k' else 10 * 625)


@pytest.mark.parametrize('name', [n for n in CLASSIFIERS if 'linear' in n])
def test_linear_probes_are_the_official_ones(name):
    cfg, model = read(name), model_of(name)
    assert {n for n, p in model.named_parameters() if p.requires_grad} == {
        n for n, _ in model.named_parameters() if n.startswith('head.')
    }
    depth = len(model.backbone.blocks)
    assert model.backbone.out_indices == tuple(range(depth))
    assert len(model.head.classifiers) == depth
    assert len(model.backbone.rel_pos_bias) == 1, 'the shared table of pretraining'
    optimizer = build_optim_wrapper(model, cfg.optim_wrapper).optimizer
    assert {(group['lr'], group['weight_decay']) for group in optimizer.param_groups} == {(4e-3, 1e-4)}
    assert cfg.train_cfg.max_epochs == 100
    assert not cfg.param_scheduler.get('convert_to_iter_based')
    crop = next(step for step in cfg.train_dataloader.dataset.pipeline if step.type == 'RandomResizedCrop')
    assert crop.interpolation == 'bilinear'


@pytest.mark.parametrize('name', [n for n in CLASSIFIERS if 'linear' not in n])
def test_learning_rate_decays_from_the_head_to_the_stem(name):
    cfg, model = read(name), model_of(name)
    optimizer = build_optim_wrapper(model, cfg.optim_wrapper).optimizer
    lr, rate = cfg.optim_wrapper.optimizer.lr, cfg.optim_wrapper.paramwise_cfg.layer_decay_rate
    of = {id(p): group['lr'] for group in optimizer.param_groups for p in group['params']}
    depth = len(model.backbone.blocks)
    assert of[id(model.head.fc.weight)] == pytest.approx(lr)
    assert of[id(model.backbone.fc_norm.weight)] == pytest.approx(lr)
    assert of[id(model.backbone.blocks[0].attn.proj.weight)] == pytest.approx(lr * rate**depth)
    assert of[id(model.backbone.rel_pos_bias[0].table)] == pytest.approx(lr * rate**depth)
    assert of[id(model.backbone.patch_embed.proj.weight)] == pytest.approx(lr * rate ** (depth + 1))


@pytest.mark.parametrize('name', [n for n in CLASSIFIERS if 'linear' not in n and n.endswith(('in1k', 'px'))])
def test_parameters_of_finetuning_are_those_of_the_official_code(name):
    backbone = read(name).model.backbone
    assert cost_of(name).num_parameters == FINETUNE_PARAMETERS[backbone.arch, backbone.img_size]
    if (backbone.arch, backbone.img_size) == ('base', 224):
        assert cost_of(name).num_flops == BASE_224_FLOPS


@pytest.mark.parametrize('name', [n for n in V1 if n.startswith('beit_')])
def test_parameters_of_pretraining_are_those_of_the_official_code(name):
    assert cost_of(name).num_parameters == PRETRAIN_PARAMETERS[read(name).model.backbone.arch]


@pytest.mark.parametrize('name', CLASSIFIERS)
def test_weights_to_start_from_are_where_another_recipe_puts_them(name):
    checkpoint = Path(read(name).model.backbone.init_cfg.checkpoint)
    work_dirs, recipe, file = checkpoint.parts
    assert work_dirs == 'work_dirs'
    assert file == f'epoch_{read(recipe).train_cfg.max_epochs}.pth'
    assert read(recipe).model.backbone.arch == read(name).model.backbone.arch
    assert statistics(read(recipe)) == statistics(read(name))


# metafile.yml


METAFILE = mmengine.load(ROOT / 'metafile.yml')
MODELS = {model['Name']: model for model in METAFILE['Models']}


def test_index_lists_the_metafile():
    imports = mmengine.load(ROOT / 'model-index.yml')['Import']
    assert 'metafile.yml' in imports
    assert all((ROOT / path).is_file() for path in imports)
    collections = {collection['Name']: collection for collection in METAFILE['Collections']}
    assert all((ROOT / collection['README']).is_file() for collection in collections.values())
    assert {model['In Collection'] for model in MODELS.values()} <= set(collections)


def test_model_names_are_unique_and_lower_case():
    assert len(MODELS) == len(METAFILE['Models'])
    assert all(name == name.lower() for name in MODELS), "mmpretrain's hub looks names up in lower case"


def test_published_names_are_there():
    for name, config in {
        'beit_beit-base-p16_8xb256-amp-coslr-300e_in1k': 'beit_beit-base-p16_8xb256-amp-coslr-300e_in1k',
        'beit-base-p16_beit-pre_8xb128-coslr-100e_in1k': 'beit-base-p16_beit-pre_8xb128-coslr-100e_in1k',
        'beit-base-p16_beit-in21k-pre_3rdparty_in1k': 'beit-base-p16_beit-in21k-pre_8xb64-coslr-30e_in1k',
    }.items():
        assert Path(MODELS[name]['Config']).stem == config


@pytest.mark.parametrize('name', V1)
def test_every_recipe_is_in_the_metafile_and_in_the_readme(name):
    assert ROOT / MODELS[name]['Config'] == PATHS[name]
    assert PATHS[name].relative_to(ROOT / 'configs/beit').as_posix() in (ROOT / 'configs/beit/README.md').read_text()


@pytest.mark.parametrize('name', MODELS)
def test_metafile_agrees_with_the_recipe(name):
    model = MODELS[name]
    assert (ROOT / model['Config']).is_file()
    recipe = Path(model['Config']).stem
    metadata, said, cost = model['Metadata'], parse(recipe), cost_of(recipe)
    assert metadata['Parameters'] == cost.num_parameters
    assert metadata['FLOPs'] == cost.num_flops
    assert metadata['Epochs'] == said['epochs']
    assert metadata['Batch Size'] == said['gpus'] * said['batch'] * said['accumulate']
    assert 3 <= len(name.split('_')) <= 5
    assert set(model.get('Downstream', [])) <= set(MODELS)
    released = '3rdparty' in name
    by_mmpretrain = 'open-mmlab/mmpretrain' in model.get('Converted From', {}).get('Code', '')
    trained = released or by_mmpretrain
    assert ('Converted From' in model) == ('Weights' in model) == trained, 'nobody trained the others'
    assert released or name == recipe


def test_readme_has_the_counts_of_the_metafile():
    rows = re.findall(r'\]\(([\w/.-]+\.py)\) \|(.*)', (ROOT / 'configs/beit/README.md').read_text())
    assert len(rows) == 19
    for config, row in rows:
        cost = cost_of(Path(config).stem)
        assert f'| {cost.num_parameters / 1e6:.2f} | {cost.num_flops / 1e9:.2f} |' in f'|{row}'


def test_readme_has_the_accuracies_and_weights_of_the_metafile():
    rows = dict(
        re.findall(r'\]\((benchmarks/[\w.-]+in1k[\w.-]*\.py)\) \|(.*)', (ROOT / 'configs/beit/README.md').read_text())
    )
    for model in MODELS.values():
        row = rows.get(model['Config'].removeprefix('configs/beit/'))
        if row is not None:
            metrics = model['Results'][0]['Metrics'] or {}
            cells = [cell.strip() for cell in row.split('|')]
            assert [float(cell) for cell in cells[4:6] if cell] == list(metrics.values())
            assert model.get('Weights', '') in cells[3]


def test_hub_reads_the_index():
    from modelindex.load_model_index import load

    index = load(str(ROOT / 'model-index.yml'))
    index.build_models_with_collections()
    assert {model.name for model in index.models} == set(MODELS)


# What the README tells people to do.


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


@pytest.mark.parametrize('command', re.findall(r'(?s)```sh\n(.*?)```', (ROOT / 'configs/beit/README.md').read_text()))
def test_commands_of_the_readme_name_what_there_is(command):
    for path in re.findall(r'(?:tools|configs)/[\w/.-]+\.(?:py|sh)', command):
        assert (ROOT / path).is_file()
    cfg = Config.fromfile(ROOT / re.search(r'configs/[\w/.-]+\.py', command)[0])
    if 'init_cfg' in command:
        cfg = read('beit-base-p16_beit-pre_8xb128-coslr-100e_in1k')
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
