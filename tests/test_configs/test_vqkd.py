"""The recipes of VQ-KD against the official ones (unilm:beit2/TOKENIZER.md, modeling_vqkd.py, engine_for_vqkd.py)."""

import re

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import HOOKS, MODELS, DefaultScope
from test_configs.recipes import PATHS, ROOT, cost_of, model_of, parse, read, recipes_of

VQKD = [name for name in recipes_of('beitv2') if name.startswith('vqkd_')]
# Depth of the decoder, width of the teacher's features, parameters that learn.
OFFICIAL = {
    'vqkd_base-1x768x12-clip': (1, 512, 94_655_008),
    'vqkd_base-3x768x12-clip': (3, 512, 108_829_216),
    'vqkd_base-1x768x12-dino': (1, 768, 94_851_872),
}
STATISTICS = {
    'clip': ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
    'dino': ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
}


def test_all_are_there():
    assert {parse(name)['model'] for name in VQKD} == set(OFFICIAL)


@pytest.mark.parametrize('name', VQKD)
def test_model_is_the_official_one(name):
    depth, width, parameters = OFFICIAL[parse(name)['model']]
    model, quantizer = model_of(name), model_of(name).tokenizer.quantizer
    assert cost_of(name).num_parameters == parameters
    assert len(model.decoder.blocks) == depth and len(model.tokenizer.encoder.blocks) == 12
    assert model.decoder.grid == model.tokenizer.encoder.grid == (14, 14)
    assert quantizer.codebook.shape == (8192, 32)
    assert (quantizer.decay, quantizer.commitment_weight, quantizer.initted.numel()) == (0.99, 1.0, 1)
    assert model.tokenizer.process_type == 'default'
    assert model.decode_task_layer[2].out_features == model.teacher.embed_dims == width
    assert not any(block.drop_path.rate for part in (model.tokenizer.encoder, model.decoder) for block in part.blocks)


@pytest.mark.parametrize('name', VQKD)
def test_teacher_is_the_official_one(name):
    teacher, kind = read(name).model.teacher, name.partition('_8xb64')[0].rpartition('-')[2]
    built = model_of(name).teacher
    assert ('clip' in teacher.model_name, 'dino' in teacher.model_name) == (kind == 'clip', kind == 'dino')
    assert (built.patch_size, built.stride) == (16, 16), 'officially nothing is resized'
    mean, std = STATISTICS[kind]
    cfg = built.network.pretrained_cfg
    assert (cfg['mean'], cfg['std']) == (mean, std)
    assert built.project == (kind == 'clip')
    assert teacher.init_cfg.type == 'Pretrained'


@pytest.mark.parametrize('name', VQKD)
def test_training_is_the_official_one(name):
    cfg, said = read(name), parse(name)
    batch = said['gpus'] * said['batch']
    assert batch == 512
    lr = 5e-5 * batch / 128
    optimizer = cfg.optim_wrapper.optimizer
    assert optimizer == dict(type='AdamW', lr=pytest.approx(lr), betas=(0.9, 0.99), weight_decay=1e-4, fused=True)
    assert 'clip_grad' not in cfg.optim_wrapper
    assert (cfg.param_scheduler[0].end, cfg.train_cfg.max_epochs) == (10, 100)
    assert cfg.param_scheduler[1].eta_min_ratio * lr == pytest.approx(1e-5)
    model = model_of(name)
    decayed = {
        id(parameter)
        for group in build_optim_wrapper(model, cfg.optim_wrapper).optimizer.param_groups
        for parameter in group['params']
        if group['weight_decay']
    }
    for key, parameter in model.named_parameters():
        without = parameter.ndim == 1 or key.rpartition('.')[2] in ('cls_token', 'pos_embed', 'bias')
        assert (id(parameter) in decayed) != without, key


@pytest.mark.parametrize('name', VQKD)
def test_images_are_prepared_as_officially(name):
    cfg = read(name)
    loaders = cfg.train_dataloader, cfg.val_dataloader
    train, val = ({step.type: step for step in loader.dataset.pipeline} for loader in loaders)
    crop = train['torchvision/RandomResizedCrop']
    assert (crop.size, crop.scale, crop.interpolation) == (224, (0.08, 1.0), 'bicubic')
    assert list(train)[2:4] == ['torchvision/RandomResizedCrop', 'torchvision/RandomHorizontalFlip']
    assert 'torchvision/ColorJitter' not in train
    assert (val['torchvision/Resize'].size, val['torchvision/Resize'].interpolation) == (256, 'bicubic')
    assert val['torchvision/CenterCrop'].size == 224
    images = torch.tensor([0, 51, 255], dtype=torch.uint8).view(1, 3, 1, 1)
    preprocessor = MODELS.build(cfg.model.data_preprocessor)
    assert preprocessor({'inputs': images})['inputs'].flatten().tolist() == pytest.approx([0, 0.2, 1])


@pytest.mark.parametrize('name', VQKD)
def test_nothing_is_on_that_the_official_code_does_not_have(name):
    assert model_of(name).tokenizer.quantizer.revive_below == 0
    assert [hook.type for hook in read(name).custom_hooks] == ['mmbeit.StepSeedHook', 'mmbeit.TrimLogHook']


def test_what_the_readme_offers_besides(tmp_path):
    text = re.search(r'```python\n(.*?)```', (ROOT / 'configs/beitv2/README.md').read_text(), re.DOTALL)[1]
    (tmp_path / 'mine.py').write_text(text)
    cfg = Config.fromfile(tmp_path / 'mine.py')
    assert cfg.model.tokenizer.revive_below == 0.1
    assert [hook.type for hook in cfg.custom_hooks][:2] == ['mmbeit.StepSeedHook', 'mmbeit.TrimLogHook']
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        hook = HOOKS.build(cfg.custom_hooks[-1])
    assert (hook.interval, hook.min_usage) == (100, 5)
    assert hook.interval == cfg.default_hooks.logger.interval


def test_record_of_what_was_measured_is_where_it_is_said_to_be():
    header = PATHS['vqkd_digits'].read_text()
    for text in (header, (ROOT / 'configs/beitv2/README.md').read_text()):
        assert (ROOT / re.search(r'tools/benchmarks/results/[\w.]+\.md', text)[0]).is_file()
