"""Recipes of BEiT-3 against the official numbers (unilm:beit3/get_started/, optim_factory.py, README.md)."""

import re
from collections import Counter
from math import cos, pi

import numpy as np
import pytest
import torch
from mmengine.optim import build_optim_wrapper
from mmengine.registry import PARAM_SCHEDULERS
from PIL import Image
from test_configs.recipes import HALF, IMAGENET, VISION_LANGUAGE, model_of, read, recipes_of, schedulers, statistics
from torch import nn

from mmbeit.archs import resolve_arch
from mmbeit.text_tokenizer import OFFICIAL as TOKENIZER

RELEASE = 'https://github.com/addf400/files/releases/download/beit3'
# name: processes x batch, lr, layer decay, epochs, warm-up, weight decay, drop path, image size
OFFICIAL = {
    'base-p16_beit3-pre_8xb128-coslr-50e_in1k': (1024, 7e-4, 0.65, 50, 5, 0.05, 0.15, 224),
    'base-p16_beit3-indomain-pre_8xb128-coslr-50e_in1k': (1024, 7e-4, 0.65, 50, 5, 0.05, 0.15, 224),
    'large-p16_beit3-pre_8xb128-coslr-50e_in1k': (1024, 2e-4, 0.8, 50, 5, 0.05, 0.25, 224),
    'large-p16_beit3-indomain-pre_8xb128-coslr-50e_in1k': (1024, 2e-4, 0.8, 50, 5, 0.05, 0.25, 224),
    'base-p16_beit3-pre_8xb16-coslr-10e_vqav2-480px': (128, 3e-5, 1.0, 10, 1, 0.01, 0.1, 480),
    'base-p16_beit3-indomain-pre_8xb16-coslr-10e_vqav2-480px': (128, 3e-5, 1.0, 10, 1, 0.01, 0.1, 480),
    'large-p16_beit3-pre_8xb16-coslr-10e_vqav2-480px': (128, 2e-5, 1.0, 10, 1, 0.01, 0.15, 480),
    'large-p16_beit3-indomain-pre_8xb16-coslr-10e_vqav2-480px': (128, 2e-5, 1.0, 10, 1, 0.01, 0.15, 480),
    'large-p16_beit3-indomain-pre_8xb16-coslr-10e_vqav2-vgqa-768px': (128, 2e-5, 1.0, 10, 1, 0.01, 0.15, 768),
    'base-p16_beit3-pre_8xb32-coslr-20e_nlvr2': (256, 7e-4, 0.65, 20, 5, 0.2, 0.2, 224),
    'base-p16_beit3-indomain-pre_8xb32-coslr-20e_nlvr2': (256, 5e-4, 0.65, 20, 5, 0.2, 0.2, 224),
    'large-p16_beit3-pre_8xb32-coslr-20e_nlvr2': (256, 3e-4, 0.85, 20, 5, 0.2, 0.2, 224),
    'large-p16_beit3-indomain-pre_8xb32-coslr-20e_nlvr2': (256, 1e-4, 0.85, 20, 5, 0.2, 0.2, 224),
    'base-p16_beit3-pre_8xb32-coslr-10e_coco-caption-480px': (256, 4e-5, 1.0, 10, 1, 0.05, 0.1, 480),
    'base-p16_beit3-indomain-pre_8xb32-coslr-10e_coco-caption-480px': (256, 4e-5, 1.0, 10, 1, 0.05, 0.1, 480),
    'large-p16_beit3-pre_8xb32-coslr-10e_coco-caption-480px': (256, 8e-6, 1.0, 10, 1, 0.05, 0.1, 480),
    'base-p16_beit3-pre_8xb32-coslr-10e_nocaps-480px': (256, 1e-5, 1.0, 10, 1, 0.05, 0.1, 480),
    'base-p16_beit3-indomain-pre_8xb32-coslr-10e_nocaps-480px': (256, 1e-5, 1.0, 10, 1, 0.05, 0.1, 480),
    'large-p16_beit3-pre_8xb32-coslr-10e_nocaps-480px': (256, 8e-6, 1.0, 10, 1, 0.05, 0.1, 480),
    'base-p16_beit3-itc-pre_16xb192-coslr-15e_coco-retrieval-384px': (3072, 2e-4, 0.65, 15, 3, 0.05, 0.2, 384),
    'large-p16_beit3-itc-pre_32xb96-coslr-15e_coco-retrieval-384px': (3072, 5e-5, 0.85, 15, 3, 0.05, 0.2, 384),
    'base-p16_beit3-itc-pre_16xb192-coslr-20e_flickr30k-retrieval-384px': (3072, 1e-4, 0.65, 20, 5, 0.05, 0.2, 384),
    'large-p16_beit3-itc-pre_32xb96-coslr-20e_flickr30k-retrieval-384px': (3072, 5e-5, 0.85, 20, 5, 0.05, 0.2, 384),
    # The paper's, of the giant model (appendix).
    'base-p16_beit3-pre_32xb512-coslr-5e_itc': (16384, 3e-5, 0.95, 5, 1, 0.05, 0.3, 224),
    'large-p16_beit3-pre_32xb512-coslr-5e_itc': (16384, 3e-5, 0.95, 5, 1, 0.05, 0.3, 224),
}


@pytest.mark.parametrize('name', VISION_LANGUAGE)
def test_weights_to_start_from_are_those_that_the_name_says(name):
    cfg, arch = read(name), 'base' if 'base' in name else 'large'
    kind = {'indomain-pre': '_indomain', 'itc-pre': '_itc', 'pre': ''}[re.search(r'beit3-([a-z-]+)_\d', name)[1]]
    init = cfg.model.init_cfg if 'init_cfg' in cfg.model else cfg.model.backbone.init_cfg
    assert init.checkpoint == f'{RELEASE}/beit3_{arch}{kind}_patch16_224.pth' and cfg.model.backbone.arch == arch
    assert ('prefix' in init) == (cfg.model.type == 'mmbeit.FusionEncoder'), 'heads of pretraining are of use'


@pytest.mark.parametrize('arch', ['base', 'large'])
def test_segmentation_is_that_of_beit_v2_with_another_backbone(arch):
    cfg = read(f'beit3-{arch}-p16_beit3-pre_upernet_8xb2-160k_ade20k-512x512')
    theirs = read(f'beit-{arch}-p16_beitv2-1600e-pre_upernet_8xb2-160k_ade20k-512x512')
    for key in ('optim_wrapper', 'param_scheduler', 'train_dataloader', 'val_dataloader', 'train_cfg'):
        assert cfg[key] == theirs[key]
    ours, backbone = cfg.model.to_dict(), theirs.model.backbone
    assert {**ours, 'backbone': None} == {**theirs.model.to_dict(), 'backbone': None}
    for key in ('out_indices', 'drop_path_rate', 'arch', 'img_size', 'out_type'):
        assert ours['backbone'][key] == backbone[key]
    with torch.device('meta'):
        model = model_of(f'beit3-{arch}-p16_beit3-pre_upernet_8xb2-160k_ade20k-512x512')
        maps = model.neck(model.backbone(torch.zeros(1, 3, 64, 64)))
    width = model.backbone.embed_dims
    assert [tuple(x.shape[1:]) for x in maps] == [(width, 64 // stride, 64 // stride) for stride in (4, 8, 16, 32)]


def test_every_recipe_is_compared():
    finetuning = [name for name in recipes_of('beit3') if '_ade20k-' not in name and name.count('-pre_')]
    assert sorted(finetuning) == sorted(f'beit3-{name}' for name in OFFICIAL)


@pytest.mark.parametrize('name', OFFICIAL)
def test_numbers_are_the_official_ones(name):
    cfg = read(f'beit3-{name}')
    optimizer, paramwise = cfg.optim_wrapper.optimizer, cfg.optim_wrapper.paramwise_cfg
    found = (
        cfg.auto_scale_lr.base_batch_size,
        optimizer.lr,
        paramwise.layer_decay_rate,
        cfg.train_cfg.max_epochs,
        cfg.param_scheduler[0].end,
        optimizer.weight_decay,
        cfg.model.backbone.drop_path_rate,
        cfg.model.backbone.img_size,
    )
    assert found == OFFICIAL[name]
    vqa = '_vqav2-' in name
    assert optimizer.betas == ((0.9, 0.98) if vqa else (0.9, 0.999)) and optimizer.type == 'AdamW'
    assert paramwise.get('head_lr_mult', 1) == (20 if vqa else 1) and 'clip_grad' not in cfg.optim_wrapper
    assert cfg.model.backbone.get('final_norm', True) == (not vqa and '_in1k' not in name)
    assert ('large' in name or 'caption' in name or 'nocaps' in name or 'retrieval' in name or '_itc' in name) == bool(
        cfg.model.backbone.get('with_cp')
    )


@pytest.mark.parametrize('name', VISION_LANGUAGE)
def test_images_with_texts_are_augmented_as_officially(name):
    cfg, said = read(name), OFFICIAL[name.removeprefix('beit3-')]
    assert statistics(cfg) == HALF and cfg.tokenizer == TOKENIZER
    dataset = cfg.train_dataloader.dataset
    for pipeline in [part.pipeline for part in dataset.datasets] if 'datasets' in dataset else [dataset.pipeline]:
        steps = {step.type: step for step in pipeline}
        steps |= {step.type: step for step in steps.get('ApplyToList', {}).get('transforms', [])}
        crop = steps['RandomResizedCrop']
        assert (crop.scale, tuple(crop.crop_ratio_range)) == (said[-1], (0.5, 1.0))
        assert (crop.backend, crop.interpolation) == ('pillow', 'bicubic')
        assert steps['RandomFlip'].prob == 0.5
        augmented = any(task in name for task in ('_vqav2-', '-caption-', '_nocaps-'))
        assert ('mmbeit.RandAugment' in steps) == augmented
        captions = '-caption-' in name or '_nocaps-' in name
        assert steps['mmbeit.TokenizeText'].get('max_length', 64) == (32 if captions else 64)
        if captions:
            assert steps['mmbeit.MaskText'].probability == 0.7
    for loader in ('val_dataloader', 'test_dataloader'):
        steps = {step.type: step for step in cfg[loader].dataset.pipeline}
        steps |= {step.type: step for step in steps.get('ApplyToList', {}).get('transforms', [])}
        resize = steps['Resize']
        assert (tuple(resize.scale), resize.backend, resize.interpolation) == ((said[-1],) * 2, 'pillow', 'bicubic')
        assert cfg[loader].dataset.test_mode


@pytest.mark.parametrize('name', [name for name in VISION_LANGUAGE if 'base' in name and '-indomain-' not in name])
def test_evaluated_images_are_those_of_torchvision(name, tmp_path):
    from mmengine.registry import MODELS, TRANSFORMS
    from torchvision import transforms

    cfg = read(name)
    side = cfg.model.backbone.img_size
    pixels = np.random.default_rng(0).integers(0, 256, (30, 41, 3), dtype=np.uint8)
    Image.fromarray(pixels).resize((611, 450)).save(tmp_path / 'image.jpg')
    steps = cfg.test_dataloader.dataset.pipeline
    steps = steps[0].transforms if 'ApplyToList' in steps[0].type else steps
    results = dict(img_path=str(tmp_path / 'image.jpg'))
    for step in (*steps[:2], dict(type='PackInputs')):
        results = TRANSFORMS.build(step)(results)
    preprocessor = MODELS.build(dict(cfg.data_preprocessor, type='MultiModalDataPreprocessor'))
    ours = preprocessor(dict(inputs=results['inputs'][None]))['images'][0]
    official = transforms.Compose(
        [
            transforms.Resize((side, side), interpolation=transforms.InterpolationMode.BICUBIC),
            transforms.ToTensor(),
            transforms.Normalize([0.5] * 3, [0.5] * 3),
        ]
    )
    with Image.open(tmp_path / 'image.jpg') as image:
        torch.testing.assert_close(ours, official(image.convert('RGB')), rtol=0, atol=1e-6)


def test_captions_drop_the_worst_words_after_step_12000():
    for name in VISION_LANGUAGE:
        hooks = [hook for hook in read(name).custom_hooks if hook.type == 'mmbeit.SwitchHook']
        if '-caption-' not in name and '_nocaps-' not in name:
            assert not hooks
            continue
        (hook,) = hooks
        assert (hook.attr, hook.value, hook.begin) == ('mlm_head.drop_worst_ratio', 0.2, 12001)
        assert read(name).model.mlm_head.label_smoothing == 0.1
        assert hasattr(model_of(name).mlm_head, 'drop_worst_ratio')


def test_imagenet_has_its_own_statistics_and_the_whole_short_side():
    for name in (name for name in OFFICIAL if name.endswith('_in1k')):
        cfg = read(f'beit3-{name}')
        assert statistics(cfg) == IMAGENET and cfg.val_dataloader == cfg.test_dataloader
        steps = {step.type: step for step in cfg.val_dataloader.dataset.pipeline}
        assert steps['ResizeEdge'].scale == steps['CenterCrop'].crop_size == 224
        assert {augment.type: augment.alpha for augment in cfg.model.train_cfg.augments} == {
            'Mixup': 0.8,
            'CutMix': 1.0,
        }


# ---- the optimizer ----


def official_group(name: str, ndim: int, rate: float, head_mult: float, depth: int) -> tuple[float, bool]:
    """By our names, which share of the learning rate a parameter has, and whether it is decayed."""
    part = name.removeprefix('backbone.')
    if name.startswith('backbone.') and 'embed' in part or part in ('cls_token', 'mask_token'):
        layer = 0
    elif part.startswith('blocks.'):
        layer = int(part.split('.')[1]) + 1
    else:
        layer = depth + 1
    scale = rate ** (depth + 1 - layer)
    if head_mult != 1 and name.startswith('head.'):
        scale = head_mult
    decays = ndim > 1 and not name.endswith('.bias') and name not in ('backbone.pos_embed', 'backbone.cls_token')
    return scale, decays


@pytest.mark.parametrize('name', OFFICIAL)
def test_every_parameter_has_its_learning_rate_and_decay(name):
    cfg, model = read(f'beit3-{name}'), model_of(f'beit3-{name}')
    lr, decay = cfg.optim_wrapper.optimizer.lr, cfg.optim_wrapper.optimizer.weight_decay
    names = {id(parameter): key for key, parameter in model.named_parameters()}
    optimizer = build_optim_wrapper(model, cfg.optim_wrapper).optimizer
    rate, head = cfg.optim_wrapper.paramwise_cfg.layer_decay_rate, 20 if '_vqav2-' in name else 1
    depth = resolve_arch(cfg.model.backbone.arch).num_layers
    seen = Counter()
    for group in optimizer.param_groups:
        for parameter in group['params']:
            key = names[id(parameter)]
            scale, decays = official_group(key, parameter.ndim, rate, head, depth)
            assert group['lr'] == pytest.approx(lr * scale, rel=1e-12), key
            assert group['weight_decay'] == (decay if decays else 0), key
            seen[key] += 1
    assert set(seen) == {key for key, parameter in model.named_parameters() if parameter.requires_grad}
    assert set(seen.values()) == {1}


def test_learning_rates_of_base_at_layer_decay_065():
    name = 'beit3-base-p16_beit3-pre_8xb32-coslr-20e_nlvr2'
    model, lr = model_of(name), read(name).optim_wrapper.optimizer.lr
    names = {id(parameter): key for key, parameter in model.named_parameters()}
    groups = build_optim_wrapper(model, read(name).optim_wrapper).optimizer.param_groups
    scales = {names[id(p)]: (group['lr'] / lr, group['weight_decay'] > 0) for group in groups for p in group['params']}
    expected = {
        'backbone.text_embed.weight': (0.0036972, True),
        'backbone.text_pos_embed': (0.0036972, True),
        'backbone.pos_embed': (0.0036972, False),
        'backbone.cls_token': (0.0036972, False),
        'backbone.patch_embed.proj.weight': (0.0036972, True),
        'backbone.blocks.0.attn.q.text.weight': (0.0056880, True),
        'backbone.blocks.11.mlp.vision.norm.weight': (0.65, False),
        'backbone.norm.vision.weight': (1, False),
        'head.fc1.weight': (1, True),
        'head.fc2.bias': (1, False),
    }
    for key, (scale, decays) in expected.items():
        assert scales[key] == (pytest.approx(scale, rel=1e-4), decays), key


def test_a_decay_of_layers_and_a_factor_of_the_head_exclude_each_other():
    name = 'beit3-base-p16_beit3-pre_8xb16-coslr-10e_vqav2-480px'
    wrapper = read(name).optim_wrapper.copy()
    wrapper.paramwise_cfg = dict(layer_decay_rate=0.9, head_lr_mult=20)
    with pytest.raises(ValueError, match='layer_decay_rate 0.9 and head_lr_mult 20: expected one of them to be 1'):
        build_optim_wrapper(model_of(name), wrapper)


def test_temperature_is_not_decayed():
    name = 'beit3-base-p16_beit3-itc-pre_16xb192-coslr-15e_coco-retrieval-384px'
    model = model_of(name)
    groups = build_optim_wrapper(model, read(name).optim_wrapper).optimizer.param_groups
    (group,) = [group for group in groups if any(p is model.head.logit_scale for p in group['params'])]
    assert group['weight_decay'] == 0 and group['lr'] == read(name).optim_wrapper.optimizer.lr


@pytest.mark.parametrize(
    ('name', 'length'),
    [
        ('base-p16_beit3-pre_8xb128-coslr-50e_in1k', 1251),
        ('base-p16_beit3-pre_8xb16-coslr-10e_vqav2-480px', 57),
        ('base-p16_beit3-pre_8xb32-coslr-20e_nlvr2', 33),
        ('large-p16_beit3-itc-pre_32xb96-coslr-15e_coco-retrieval-384px', 18),
    ],
)
def test_every_step_has_the_official_learning_rate(name, length):
    """Linear from 0 to the peak, which comes twice, then a cosine to 1e-6, both scaled with the layer."""
    cfg = read(f'beit3-{name}')
    _, lr, _, epochs, warmup_epochs, *_ = OFFICIAL[name]
    scale = 0.3  # of some layer
    optimizer = torch.optim.SGD([dict(params=[nn.Parameter(torch.zeros(1))], lr=lr * scale)])
    built = []
    for schedule in map(dict, schedulers(cfg)):
        kind = PARAM_SCHEDULERS.get(schedule.pop('type'))
        assert schedule.pop('convert_to_iter_based')
        built.append(kind.build_iter_from_epoch(optimizer=optimizer, epoch_length=length, **schedule))
    rates = []
    for _ in range(length * epochs):
        rates.append(optimizer.param_groups[0]['lr'])
        for schedule in built:
            schedule.step()
    warmup, total = warmup_epochs * length, epochs * length
    expected = list(np.linspace(0, lr, warmup))
    expected += [1e-6 + (lr - 1e-6) * (1 + cos(pi * i / (total - warmup))) / 2 for i in range(total - warmup)]
    np.testing.assert_allclose(rates, scale * np.array(expected), rtol=1e-9, atol=2e-12 * lr)
    assert rates[warmup - 1] == pytest.approx(lr * scale) and rates[warmup] == pytest.approx(lr * scale)


# ---- sizes ----

# Parameters of the official modules and what the README says of them, in millions (unilm:beit3/README.md).
PUBLISHED = {
    'base-p16_beit3-pre_8xb128-coslr-50e_in1k': (86_662_120, 87),
    'large-p16_beit3-pre_8xb128-coslr-50e_in1k': (304_575_464, 305),
    'base-p16_beit3-pre_8xb16-coslr-10e_vqav2-480px': (228_110_649, 228),
    'large-p16_beit3-pre_8xb16-coslr-10e_vqav2-480px': (682_985_529, 683),
    'large-p16_beit3-indomain-pre_8xb16-coslr-10e_vqav2-vgqa-768px': (684_423_225, 684),
    'base-p16_beit3-pre_8xb32-coslr-20e_nlvr2': (225_719_810, 226),
    'large-p16_beit3-pre_8xb32-coslr-20e_nlvr2': (681_109_506, 681),
    'base-p16_beit3-pre_8xb32-coslr-10e_coco-caption-480px': (270_751_754, 271),
    'large-p16_beit3-pre_8xb32-coslr-10e_coco-caption-480px': (739_033_610, 739),
    'base-p16_beit3-itc-pre_16xb192-coslr-15e_coco-retrieval-384px': (222_458_881, 222),
    'large-p16_beit3-itc-pre_32xb96-coslr-15e_coco-retrieval-384px': (675_188_737, 675),
    'base-p16_beit3-pre_32xb512-coslr-5e_itc': (222_167_041, 222),
    'large-p16_beit3-pre_32xb512-coslr-5e_itc': (674_799_617, 674),
}


@pytest.mark.parametrize('name', PUBLISHED)
def test_models_have_the_published_numbers_of_parameters(name):
    """The mask token for images, which fine-tuning has no use for, counts officially."""
    model, (exact, millions) = model_of(f'beit3-{name}'), PUBLISHED[name]
    assert sum(p.numel() for p in model.parameters()) + model.backbone.embed_dims == exact
    assert millions == (exact // 10**6 if '_itc' in name else round(exact / 1e6)), 'pretraining is rounded down'


@pytest.mark.parametrize(('arch', 'exact', 'millions'), [('base', 276_510_730, 276), ('large', 746_709_514, 746)])
def test_pretraining_has_the_published_number_of_parameters(arch, exact, millions):
    from mmengine.registry import MODELS

    with torch.device('meta'):
        model = MODELS.build(
            dict(
                type='mmbeit.MaskedDataModeling',
                backbone=dict(type='mmbeit.BEiT3', arch=arch, mask_token=True),
                mim_head=dict(type='mmbeit.MaskedTokenHead', num_tokens=8192),
                mlm_head=dict(type='mmbeit.MaskedTokenHead'),
            )
        )
    assert sum(p.numel() for p in model.parameters()) == exact and millions == exact // 10**6
