"""The recipes of BEiT v1 against the official ones."""

import pytest
from mmengine.optim import build_optim_wrapper
from test_configs.recipes import (
    HALF,
    IMAGENET,
    SEGMENTATION,
    Finetuning,
    classifiers_of,
    cost_of,
    finetuning_of,
    model_of,
    parse,
    read,
    recipes_of,
    statistics,
)

V1 = [name for name in recipes_of('beit') if name not in SEGMENTATION]
CLASSIFIERS = classifiers_of('beit')

PRETRAIN_PARAMETERS = {'base': 91_965_776, 'large': 311_534_016}  # obtained from the official code

# Official recipes: unilm:beit/README.md, beit/get_started_for_image_classification.md.
OFFICIAL = {
    'beit-base-p16_beit-mim-in21k-pre_in21k': Finetuning(16, 256, 1, 3e-3, 5, 90, 0.65, 0.2, 0.05, None),
    'beit-large-p16_beit-mim-in21k-pre_in21k': Finetuning(16, 64, 2, 2e-3, 5, 90, 0.75, 0.2, 0.05, None),
    'beit-base-p16_beit-in21k-pre_in1k': Finetuning(8, 64, 1, 2e-5, 5, 30, 0.85, 0.1, 1e-8, None),
    'beit-large-p16_beit-in21k-pre_in1k': Finetuning(8, 32, 2, 2e-5, 5, 30, 0.9, 0.4, 1e-8, None),
    'beit-base-p16_beit-mim-in21k-pre_in1k': Finetuning(8, 128, 1, 4e-3, 20, 100, 0.65, 0.1, 0.05, (0.8, 1.0)),
    'beit-large-p16_beit-mim-in21k-pre_in1k': Finetuning(8, 64, 2, 1e-3, 5, 50, 0.75, 0.2, 0.05, (0.8, 1.0)),
    'beit-base-p16_beit-pre_in1k': Finetuning(8, 128, 1, 4e-3, 20, 100, 0.65, 0.1, 0.05, (0.8, 1.0)),
    'beit-large-p16_beit-pre_in1k': Finetuning(8, 64, 2, 1e-3, 5, 50, 0.75, 0.2, 0.05, (0.8, 1.0)),
}


@pytest.mark.parametrize('name', [n for n in V1 if not n.startswith('dvae')])
def test_statistics_are_those_of_pretraining(name):
    assert statistics(read(name)) == (HALF if 'in21k' in name else IMAGENET)


@pytest.mark.parametrize('name', [n for n in CLASSIFIERS if 'linear' not in n])
def test_finetuning_recipes_are_the_official_ones(name):
    said = parse(name)
    assert finetuning_of(name) == OFFICIAL[f'{said["model"]}_{said["data"]}']


@pytest.mark.parametrize('name', [n for n in V1 if n.startswith('beit_')])
def test_pretraining_recipes_are_the_official_ones(name):
    cfg, said = read(name), parse(name)
    large = cfg.model.backbone.arch == 'large'
    assert said['gpus'] * said['batch'] == 2048
    assert cfg.optim_wrapper.optimizer == dict(
        type='AdamW', lr=1.5e-3, betas=(0.9, 0.999), weight_decay=0.05, fused=True
    )
    assert cfg.optim_wrapper.clip_grad.max_norm == (1.0 if large else 3.0)
    assert cfg.model.backbone.drop_path_rate == 0.1
    assert cfg.model.backbone.layer_scale == (1e-5 if large else 0.1)
    assert cfg.param_scheduler[1].eta_min_ratio * 1.5e-3 == pytest.approx(1e-5)
    updates = 6932 if said['data'] == 'in21k' else 625  # in an epoch of 2048 images each
    assert int(cfg.param_scheduler[0].end * updates) == (10_000 if said['data'] == 'in21k' else 10 * 625)
    assert 'neck' not in cfg.model


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


@pytest.mark.parametrize('name', [n for n in V1 if n.startswith('beit_')])
def test_parameters_of_pretraining_are_those_of_the_official_code(name):
    assert cost_of(name).num_parameters == PRETRAIN_PARAMETERS[read(name).model.backbone.arch]
