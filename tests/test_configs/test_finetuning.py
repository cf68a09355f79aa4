"""What the recipes for classification have in common, of whatever family."""

from pathlib import Path

import pytest
from mmengine.optim import build_optim_wrapper
from test_configs.recipes import LOADERS, classifiers_of, cost_of, model_of, parse, read, statistics

CLASSIFIERS = classifiers_of('beit', 'beitv2')
FINETUNING = [name for name in CLASSIFIERS if 'linear' not in name]

# Counts that were obtained from the official code, and the features' multiply-adds of base at 224 pixels.
PARAMETERS = {
    ('base', 224): 86_530_984,
    ('base', 384): 86_744_104,
    ('large', 224): 304_430_568,
    ('large', 384): 304_998_888,
    ('large', 512): 305_674_728,
}
BASE_224_FLOPS = 17_581_219_584


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


@pytest.mark.parametrize('name', FINETUNING)
def test_what_fills_up_or_erases_an_image_has_the_statistics_of_the_model(name):
    cfg = read(name)
    mean, std = statistics(cfg)
    steps = {step.type: step for step in cfg.train_dataloader.dataset.pipeline}
    assert cfg.data_preprocessor.to_rgb, 'images are B, G, R before it'
    assert steps['RandAugment'].hparams.pad_val == [round(x) for x in mean[::-1]]
    assert steps['mmbeit.RandomErasing'].mean == mean[::-1]
    assert steps['mmbeit.RandomErasing'].std == std[::-1]


@pytest.mark.parametrize('name', FINETUNING)
def test_what_all_official_recipes_share(name):
    cfg = read(name)
    optimizer = cfg.optim_wrapper.optimizer
    assert optimizer.type == 'AdamW'
    assert optimizer.betas == (0.9, 0.999)
    assert cfg.param_scheduler[1].eta_min_ratio * optimizer.lr == pytest.approx(1e-6)
    assert cfg.model.head.loss.label_smooth_val == 0.1
    assert cfg.model.head.num_classes == {'in1k': 1000, 'in21k': 21841}[parse(name)['data']]
    assert 'clip_grad' not in cfg.optim_wrapper


@pytest.mark.parametrize('name', FINETUNING)
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


@pytest.mark.parametrize('name', [n for n in FINETUNING if not n.endswith('in21k')])
def test_parameters_are_those_of_the_official_code(name):
    backbone = read(name).model.backbone
    assert cost_of(name).num_parameters == PARAMETERS[backbone.arch, backbone.img_size]
    if (backbone.arch, backbone.img_size) == ('base', 224):
        assert cost_of(name).num_flops == BASE_224_FLOPS


@pytest.mark.parametrize('name', CLASSIFIERS)
def test_weights_to_start_from_are_where_another_recipe_puts_them(name):
    checkpoint = Path(read(name).model.backbone.init_cfg.checkpoint)
    work_dirs, recipe, file = checkpoint.parts
    assert work_dirs == 'work_dirs'
    assert file == f'epoch_{read(recipe).train_cfg.max_epochs}.pth'
    assert read(recipe).model.backbone.arch == read(name).model.backbone.arch
    assert statistics(read(recipe)) == statistics(read(name))
