"""The recipes of BEiT-3's pretraining, of which the paper says a part."""

import re
import runpy
import shlex
from inspect import signature

import numpy as np
import pytest
import torch
from builders_mdm import train_tokenizer, write_sources
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DATASETS, PARAM_SCHEDULERS, DefaultScope
from test_configs.recipes import HALF, MIXTURES, PATHS, ROOT, cost_of, model_of, read, statistics, walk
from torch import nn

from mmbeit.datasets.shards import Shards, read_shard
from mmbeit.engine.config import find_config, load_config

BASE, LARGE = MIXTURES


@pytest.mark.parametrize('name', MIXTURES)
def test_header_and_name_agree_with_the_content(name):
    header = ' '.join(line.lstrip('# ') for line in PATHS[name].read_text().splitlines() if line.startswith('#'))
    tool, config, processes = re.search(r'Run: (\S+) (\S+) (\d+)', header).groups()
    assert (ROOT / tool).is_file() and ROOT / config == PATHS[name]
    cfg = read(name)
    pattern = r'beit3_beit3-(\w+)-p16_(\d+)xb(\d+)-amp-coslr-(\d+)k_image-text'
    arch, gpus, batch, steps = re.fullmatch(pattern, name).groups()
    assert cfg.model.backbone.arch == arch and gpus == processes
    assert cfg.train_dataloader.batch_size == int(batch) and cfg.train_cfg.max_iters == 1000 * int(steps)
    assert cfg.auto_scale_lr.base_batch_size == int(gpus) * int(batch)
    parameters = sum(parameter.numel() for parameter in model_of(name).parameters())
    assert f'{parameters / 1e6:.1f} M parameters' in header
    assert f'{cost_of(name).num_flops / 1e9:.1f} GFLOPs an image' in header
    assert 'no published run' in header


@pytest.mark.parametrize('name', MIXTURES)
def test_numbers_are_those_of_the_paper(name):
    cfg = read(name)
    assert cfg.auto_scale_lr.base_batch_size == 3 * 2048
    assert cfg.optim_wrapper.optimizer == dict(
        type='AdamW', lr=1e-3, betas=(0.9, 0.98), eps=1e-6, weight_decay=0.05, fused=True
    )
    assert cfg.optim_wrapper.clip_grad == dict(max_norm=3.0)
    assert cfg.train_cfg.max_iters == 1_000_000
    backbone = cfg.model.backbone
    assert (backbone.drop_path_rate, backbone.init, backbone.img_size) == (0.1, 'subln', 224)
    groups, shares = cfg.train_dataloader.dataset.groups, {}
    for node in walk(groups.to_dict()):
        if node.get('type') == 'mmbeit.BlockwiseMask':
            assert node['num_masked'] == round(0.4 * 14 * 14) and node['grid'] == 14
    for name, group in groups.items():
        steps = {step.type: step for step in group.pipeline}
        shares[name] = getattr(steps.get('mmbeit.MaskText'), 'probability', None)
        if name != 'text':
            assert {steps['torchvision/ColorJitter'][k] for k in ('brightness', 'contrast', 'saturation')} == {0.4}
            assert 'torchvision/RandomHorizontalFlip' in steps and 'mmbeit.RandomResizedCropTwoViews' in steps
    assert shares == dict(image=None, text=0.15, pair=0.5)
    assert statistics(cfg) == HALF


@pytest.mark.parametrize('name', MIXTURES)
def test_learning_rate_rises_for_10k_steps_and_falls_like_a_cosine(name):
    cfg = read(name)
    lr, end = cfg.optim_wrapper.optimizer.lr, 1e-5
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=lr)
    built = []
    for schedule in map(dict, cfg.param_scheduler):
        built.append(PARAM_SCHEDULERS.get(schedule.pop('type'))(optimizer=optimizer, **schedule))
    rates = []
    for _ in range(60_000):
        rates.append(optimizer.param_groups[0]['lr'])
        for schedule in built:
            schedule.step()
    steps = np.arange(60_000)
    cosine = end + (lr - end) * (1 + np.cos(np.pi * (steps - 10_000) / 990_000)) / 2
    # The first step of the cosine is made at the end of the warm-up, which has one step less.
    np.testing.assert_allclose(
        rates, np.where(steps < 10_000, lr * np.minimum(steps / 9_999, 1), cosine), rtol=2e-4, atol=1e-14
    )


def test_what_is_not_decayed():
    """One-dimensional parameters, and class token and positions of images (unilm:beit3/optim_factory.py)."""
    model = model_of(BASE)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = build_optim_wrapper(model, read(BASE).optim_wrapper).optimizer.param_groups
    free = {names[id(p)] for group in groups if group['weight_decay'] == 0 for p in group['params']}
    decayed = {names[id(p)] for group in groups if group['weight_decay'] == 0.05 for p in group['params']}
    assert free | decayed == set(names.values()) and {group['lr'] for group in groups} == {1e-3}
    assert {name for name in free if model.get_parameter(name).ndim > 1} == {'backbone.cls_token', 'backbone.pos_embed'}
    tables = {'backbone.mask_token', 'backbone.text_embed.weight', 'backbone.text_pos_embed'}
    assert tables <= decayed and all(model.get_parameter(name).ndim > 1 for name in decayed)


def test_large_differs_in_its_size_alone():
    base, large = (read(name).to_dict() for name in (BASE, LARGE))
    base['model']['backbone']['arch'] = 'large'
    assert base == large


def test_pipelines_give_what_the_model_takes(tmp_path):
    """From files to samples, at the sizes of the recipe, with a text tokenizer of 60 ids."""
    pytest.importorskip('sentencepiece')
    cfg, tokenizer = read(BASE).copy(), str(train_tokenizer(tmp_path))
    write_sources(tmp_path / 'mdm')
    for group in cfg.train_dataloader.dataset.groups.values():
        group.data_root = str(tmp_path / 'mdm')
    for node in walk(cfg.train_dataloader.dataset):
        if 'tokenizer' in node:
            node['tokenizer'] = tokenizer
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        mixture = DATASETS.build(cfg.train_dataloader.dataset)
    samples = dict(mixture.__getitems__([0, 1, 2]))
    for name in ('image', 'pair'):
        assert [view.shape for view in samples[name]['inputs']] == [(3, 224, 224)] * 2
        assert samples[name]['data_samples'].mask.sum() == 78
    for name in ('text', 'pair'):
        sample = samples[name]['data_samples']
        assert len(sample.text_ids) == len(sample.masked_text_ids) == len(sample.text_mask)
        assert not sample.text_mask[0] and not sample.text_mask[-1] and any(sample.text_mask)
    assert 'inputs' not in samples['text'] and 'text_ids' not in samples['image']['data_samples']


# ---- docs/masked_data_modeling.md ----

DOCS = (ROOT / 'docs' / 'masked_data_modeling.md').read_text()


def test_the_command_of_the_docs():
    command = re.search(r'(?s)```bash\n(python .*?)```', DOCS)[1].replace('\\\n', ' ')
    _, tool, *args = shlex.split(command)
    parse_args = runpy.run_path(str(ROOT / tool))['parse_args']
    cfg = load_config(parse_args(args))
    groups = cfg.train_dataloader.dataset.groups
    assert groups.image is None and groups.text is None and groups.pair.data_root == '/data/pairs'
    assert cfg.train_dataloader.batch_size == 32 and PATHS[BASE] == find_config(args[0])


@pytest.mark.parametrize('code', re.findall(r'(?s)```python\n(_base_.*?)```', DOCS))
def test_the_configs_of_the_docs(code, tmp_path):
    (tmp_path / 'mine.py').write_text(code)
    cfg = Config.fromfile(tmp_path / 'mine.py')
    assert all('_delete_' not in node for node in walk(cfg._cfg_dict.to_dict()))
    mixture = cfg.train_dataloader.dataset
    assert mixture.groups.keys() >= mixture.get('ratio', {}).keys()
    assert cfg.train_dataloader.batch_size % sum(mixture.get('ratio', dict(image=1, text=1, pair=1)).values()) == 0
    for group in map(dict, mixture.groups.values()):
        kind = group.pop('type')
        cls = DATASETS.get(kind if '.' in kind else f'{cfg.default_scope}.{kind}')
        signature(cls).bind(**group)
        assert cls is not Shards or group['pipeline'] == cfg.pair_pipeline


def test_the_writer_of_the_docs(tmp_path, monkeypatch):
    pytest.importorskip('webdataset')
    code = next(code for code in re.findall(r'(?s)```python\n(.*?)```', DOCS) if 'ShardWriter' in code)
    (tmp_path / 'a.jpg').write_bytes(b'image')
    exec(code.replace('/data/shards', str(tmp_path)), dict(my_pairs=[(tmp_path / 'a.jpg', 'a cat')] * 3))
    shards = Shards(str(tmp_path / '00000.tar'), block=1)
    samples = [shards.load(sample) for sample in read_shard(shards.urls[0])]
    assert [(x['key'], x['img_bytes'], x['text']) for x in samples] == [
        (f'{i:09}', b'image', 'a cat') for i in range(3)
    ]
