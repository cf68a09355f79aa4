"""The recipes of BEiT v2 against the official ones."""

import random

import numpy as np
import pytest
import torch
from mmengine.evaluator import Evaluator
from mmengine.registry import DATASETS, DefaultScope
from PIL import Image
from test_configs.recipes import (
    EVALUATIONS,
    IMAGENET,
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

from mmbeit.evaluation.subset import SUBSETS

V2 = recipes_of('beitv2')
PRETRAINING = [name for name in V2 if name.startswith('beitv2_')]

PRETRAIN_PARAMETERS = {'base': 106_143_056, 'large': 336_728_512}  # obtained from the official code

# Official recipes: unilm:beit2/get_started_for_image_classification.md.
OFFICIAL = {
    'beit-base-p16_beitv2-1600e-pre_in1k': Finetuning(8, 128, 1, 5e-4, 20, 100, 0.6, 0.2, 0.05, (0.8, 1.0)),
    'beit-base-p16_beitv2-pre_in1k': Finetuning(8, 128, 1, 5e-4, 20, 100, 0.65, 0.1, 0.05, (0.8, 1.0)),
    'beit-base-p16_beitv2-in21k-pre_in1k': Finetuning(8, 128, 1, 5e-5, 20, 30, 0.75, 0.1, 0.05, None),
    'beit-large-p16_beitv2-1600e-pre_in1k': Finetuning(8, 64, 2, 2e-4, 5, 50, 0.8, 0.2, 0.05, (0.8, 1.0)),
    'beit-large-p16_beitv2-pre_in1k': Finetuning(8, 64, 2, 5e-4, 5, 50, 0.8, 0.2, 0.05, (0.8, 1.0)),
    'beit-large-p16_beitv2-in21k-pre_in1k': Finetuning(8, 64, 2, 7e-5, 5, 20, 0.8, 0.25, 0.05, None),
    'beit-base-p16_beitv2-1600e-pre_in21k': Finetuning(32, 128, 1, 6e-4, 20, 90, 0.75, 0.1, 0.05, (0.8, 1.0)),
    'beit-large-p16_beitv2-1600e-pre_in21k': Finetuning(32, 128, 1, 6e-4, 20, 90, 0.75, 0.2, 0.05, (0.8, 1.0)),
}


def test_there_is_a_recipe_for_every_official_one():
    names = [parse(name) for name in classifiers_of('beitv2')]
    assert {f'{said["model"]}_{said["data"]}' for said in names} == set(OFFICIAL) and len(names) == len(OFFICIAL)
    assert {(read(n).model.backbone.arch, parse(n)['epochs']) for n in PRETRAINING} == {
        (arch, epochs) for arch in PRETRAIN_PARAMETERS for epochs in (300, 1600)
    }


@pytest.mark.parametrize('name', classifiers_of('beitv2'))
def test_finetuning_recipes_are_the_official_ones(name):
    said = parse(name)
    assert finetuning_of(name) == OFFICIAL[f'{said["model"]}_{said["data"]}']
    assert statistics(read(name)) == IMAGENET


@pytest.mark.parametrize('name', classifiers_of('beitv2'))
def test_finetuning_starts_after_the_epochs_that_its_name_says(name):
    start = read(name).model.backbone.init_cfg.checkpoint.split('/')[1]
    if 'in21k-pre' in name:
        assert start.endswith('in21k')
    else:
        assert parse(start)['epochs'] == (1600 if '1600e-pre' in name else 300)


@pytest.mark.parametrize('name', PRETRAINING)
def test_pretraining_recipes_are_the_official_ones(name):
    cfg, said = read(name), parse(name)
    large, long = cfg.model.backbone.arch == 'large', said['epochs'] == 1600
    assert said['gpus'] * said['batch'] == 2048
    betas = (0.9, 0.999) if long else (0.9, 0.98)
    assert cfg.optim_wrapper.optimizer == dict(type='AdamW', lr=1.5e-3, betas=betas, weight_decay=0.05, fused=True)
    assert cfg.optim_wrapper.clip_grad.max_norm == 3.0
    assert cfg.param_scheduler[0].end == 10
    assert cfg.param_scheduler[1].eta_min_ratio * 1.5e-3 == pytest.approx(1e-5)
    assert statistics(cfg) == IMAGENET
    model = model_of(name)
    last = (20 + 2 if large else 8 + 2) / (24 - 1 if large else 12 - 1)  # the second one after the early block
    for part, share in ((model.backbone, 1), (model.neck, last)):
        assert part.blocks[-1].drop_path.rate == pytest.approx(0.1 * share if long else 0)
        assert cfg.model.backbone.layer_scale == (1e-5 if large else 0.1)
        assert part.blocks[-1].scale1.gamma.shape == (1024 if large else 768,)
    assert (model.neck.early_layers, len(model.neck.blocks)) == (21 if large else 9, 2)
    assert model.head.shared and model.head.fc.out_features == model.target_generator.num_codes == 8192
    assert cfg.model.target_generator.init_cfg.checkpoint.endswith(
        'vqkd_encoder_base_decoder_3x768x12_clip-d5036aa7.pth'
    )


@pytest.mark.parametrize('name', PRETRAINING)
def test_parameters_of_pretraining_are_those_of_the_official_code(name):
    assert cost_of(name).num_parameters == PRETRAIN_PARAMETERS[read(name).model.backbone.arch]


def test_images_of_pretraining_are_prepared_as_officially(tmp_path):
    path = str(tmp_path / 'image.png')
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (381, 500, 3), dtype=np.uint8)).save(path)
    steps = {step.type: step for step in read(PRETRAINING[0]).train_dataloader.dataset.pipeline}
    assert list(steps)[2:4] == ['torchvision/ColorJitter', 'torchvision/RandomHorizontalFlip']
    crop = steps['mmbeit.RandomResizedCropTwoViews']
    assert crop.scale == (0.2, 1.0) and crop.size == crop.target_size == 224
    assert crop.target_interpolation == 'bicubic'
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        dataset = DATASETS.build(
            {**read(PRETRAINING[0]).train_dataloader.dataset, 'data_root': str(tmp_path), 'data_prefix': ''}
        )
    for seed in range(20):
        random.seed(seed)
        packed = dataset[0]
        assert packed['data_samples'].mask.sum() == 75
        assert torch.equal(*packed['inputs']), 'both views are the same pixels before they are normalised'


@pytest.mark.parametrize('name', EVALUATIONS)
def test_robustness_is_measured_on_the_200_classes_of_the_data_set(name, tmp_path):
    cfg, subset = read(name), name.rpartition('_')[2]
    assert cfg.test_dataloader.dataset.data_root == f'data/{subset}/'
    for i in range(200):
        (tmp_path / f'n{i:08}').mkdir()
        Image.new('RGB', (8, 8)).save(tmp_path / f'n{i:08}' / 'image.jpg')
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        dataset = DATASETS.build({**cfg.test_dataloader.dataset, 'data_root': str(tmp_path)})
        evaluator = Evaluator(metrics=cfg.test_evaluator)
    evaluator.dataset_meta = dataset.metainfo
    assert len(dataset) == 200 and dataset[0]['inputs'].shape == (3, 224, 224)
    for sample, index in zip(dataset, SUBSETS[subset], strict=True):
        sample['data_samples'].set_pred_score(torch.nn.functional.one_hot(torch.tensor(index), 1000).float())
        evaluator.process([sample['data_samples']])
    assert evaluator.evaluate(200) == {'accuracy/top1': 100, 'accuracy/top5': 100}
