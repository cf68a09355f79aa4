"""The recipes of BEiT v1 against the official ones."""

from pathlib import Path

import pytest
from mmengine.optim import build_optim_wrapper
from test_configs.recipes import HALF, IMAGENET, LOADERS, PATHS, cost_of, model_of, parse, read, recipes_of, statistics

V1 = recipes_of('beit')
CLASSIFIERS = [name for name in V1 if PATHS[name].parent.name == 'benchmarks']

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
