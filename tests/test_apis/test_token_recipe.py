import random
import shutil

import numpy as np
import pytest
import torch
from builders import randomize
from mmengine.config import Config
from mmengine.registry import DATASETS, MODELS
from mmengine.runner import Runner
from PIL import Image
from token_recipes import DVAE, VQKD, fast_recipe, recipe, write_images, write_tokenizer

from mmbeit.apis.extraction import TokenExtractor
from mmbeit.apis.token_recipe import check_images, identify, split_pipeline, use_tokens
from mmbeit.models import StoredTokens
from mmbeit.resources import resource_root

COUNT = 24


@pytest.fixture(scope='module')
def images(tmp_path_factory):
    return write_images(tmp_path_factory.mktemp('images'), COUNT)


@pytest.fixture
def tokenizer(tmp_path):
    return write_tokenizer(tmp_path / 'tokenizer.pth', DVAE)


@pytest.fixture
def tokens(images, tokenizer, tmp_path):
    """Tokens of two views of each image."""
    extractor = TokenExtractor(recipe(images, tokenizer), tmp_path / 'tokens', views=2)
    extractor.run()
    return extractor.tokens.folder


RECIPES = [
    path
    for path in sorted((resource_root() / 'configs').glob('beit*/**/*.py'))
    if 'mmbeit.MaskedImageModeling' in str(Config.fromfile(path).get('model'))
]


def test_there_are_recipes():
    assert {'beit', 'beitv2', 'quickstart'} <= {path.parent.name for path in RECIPES}


@pytest.mark.parametrize('path', RECIPES, ids=lambda path: path.stem)
def test_every_pretraining_recipe_can_take_tokens(path):
    view, rest = split_pipeline(Config.fromfile(path))
    official = ('mmbeit.LoadImage', 'mmbeit.RandomResizedCropTwoViews')
    assert (view[0]['type'], view[-1]['type']) in (official, ('mmbeit.LoadTwoViews', 'mmbeit.JitterViews'))
    assert [step['type'] for step in rest] == ['mmbeit.BlockwiseMask', 'PackInputs']


def losses_of(cfg, state=None):
    """Losses of the batches of four epochs, and the weights that they were computed with."""
    model = MODELS.build(cfg.model)
    if state is None:
        randomize(model)
        model.init_weights()
    else:
        model.load_state_dict(state)
    if model.target_generator is not None:
        model.target_generator.init_weights()
    loader = Runner.build_dataloader(cfg.train_dataloader, seed=cfg.randomness.seed)
    losses = []
    for epoch in range(4):
        loader.sampler.set_epoch(epoch)
        for batch in loader:
            data = model.data_preprocessor(batch, training=True)
            losses.append({key: value.item() for key, value in model(**data, mode='loss').items()})
    return losses, model.state_dict()


@pytest.mark.parametrize('make', [recipe, fast_recipe])
@pytest.mark.parametrize('kind', [DVAE, VQKD], ids=['dvae', 'vqkd'])
def test_losses_are_those_of_the_tokenizer_itself(kind, make, images, tmp_path):
    """To the last bit, as long as no view comes again."""
    cfg = make(images, write_tokenizer(tmp_path / 'tokenizer.pth', kind))
    TokenExtractor(cfg, tmp_path / 'tokens', views=2).run()
    for step in cfg.train_dataloader.dataset.pipeline:
        step.pop('on_device', None)  # where colours are changed with other rounding
    live, state = losses_of(cfg)
    use_tokens(cfg, tmp_path / 'tokens')
    stored, _ = losses_of(cfg, state)
    assert len(live) == 4 * 3
    assert stored[:6] == live[:6]
    assert all(one != other for one, other in zip(stored[6:], live[6:], strict=True))
    assert not any(one == other for one, other in zip(stored[6:], stored[:6], strict=True))  # other masks


def test_the_recipe_needs_neither_tokenizer_nor_target_view(images, tokenizer, tokens, tmp_path):
    cfg = recipe(images, tokenizer)
    use_tokens(cfg, tokens)
    (tmp_path / 'tokenizer.pth').unlink()
    assert isinstance(MODELS.build(cfg.model).target_generator, StoredTokens)
    dataset = DATASETS.build(cfg.train_dataloader.dataset)
    assert [tuple(part.shape) for part in dataset[0]['inputs']] == [(3, 32, 32), (16,)]


def test_a_recipe_without_a_tokenizer_takes_the_tokens_for_what_they_are(images, tokens):
    cfg = recipe(images, None)
    use_tokens(cfg, tokens)
    assert MODELS.build(cfg.model).head.fc.out_features == 64


def test_a_recipe_that_uses_tokens_can_be_written_and_read(images, tokenizer, tokens, tmp_path):
    cfg = recipe(images, tokenizer)
    use_tokens(cfg, tokens)
    cfg.dump(tmp_path / 'config.py')
    again = type(cfg).fromfile(tmp_path / 'config.py')
    sample = DATASETS.build(again.train_dataloader.dataset)[0]
    assert sample['inputs'][1].dtype == torch.int64


def test_another_tokenizer_is_refused(images, tokenizer, tokens, tmp_path):
    other = write_tokenizer(tmp_path / 'other.pth', DVAE, seed=1)
    with pytest.raises(ValueError, match=r"holds other tokens: tokenizer.sha256 is '\w{64}' there and '\w{64}' here"):
        use_tokens(recipe(images, other), tokens)
    smaller = write_tokenizer(tmp_path / 'smaller.pth', {**DVAE, 'num_codes': 32})
    with pytest.raises(ValueError, match='tokenizer.num_codes is 64 there and 32 here'):
        use_tokens(recipe(images, smaller), tokens)


def test_a_tokenizer_is_known_by_its_weights_and_not_by_its_file(images, tokenizer, tokens, tmp_path):
    shutil.copy(tmp_path / 'tokenizer.pth', tmp_path / 'copy.pth')
    copy = dict(type='Pretrained', checkpoint=str(tmp_path / 'copy.pth'))
    use_tokens(recipe(images, {**tokenizer, 'init_cfg': [copy]}), tokens)
    with_default = {key: value for key, value in tokenizer.items() if key != 'num_blocks'}
    with pytest.raises(ValueError, match='num_blocks is 1 there and 2 here'):
        use_tokens(recipe(images, {**with_default, 'init_cfg': None}), tokens)


def test_a_decoder_does_not_make_another_tokenizer(tmp_path):
    cfg = write_tokenizer(tmp_path / 'both.pth', {**DVAE, 'decoder': True})
    both, encoder = (MODELS.build({**cfg, 'decoder': decoder}) for decoder in (True, False))
    for tokenizer in (both, encoder):
        tokenizer.init_weights()
    assert identify(both, cfg) == identify(encoder, {**cfg, 'decoder': False})
    with torch.no_grad():
        next(encoder.encoder.parameters()).view(-1)[0] += 1e-6
    assert identify(both, cfg) != identify(encoder, cfg)


@pytest.mark.parametrize(
    ('crop', 'message'),
    [
        (dict(scale=(0.2, 1.0)), r'pipeline.3.scale is None there and \[0.2, 1.0\] here'),
        (dict(size=64), 'pipeline.3.size is 32 there and 64 here'),
    ],
)
def test_another_augmentation_is_refused(crop, message, images, tokenizer, tokens):
    with pytest.raises(ValueError, match=message):
        use_tokens(recipe(images, tokenizer, **crop), tokens)


def test_the_centre_is_refused(images, tokenizer, tmp_path):
    TokenExtractor(recipe(images, tokenizer), tmp_path / 'center').run()
    with pytest.raises(ValueError, match='pipeline.1.type'):
        use_tokens(recipe(images, tokenizer), tmp_path / 'center')


def test_incomplete_tokens_are_refused(images, tokenizer, tokens):
    (tokens / 'tokens_000.npy').unlink()
    with pytest.raises(ValueError, match='is not complete: 1 of 1 files are missing'):
        use_tokens(recipe(images, tokenizer), tokens)


@pytest.fixture
def copied(images, tokenizer, tokens, tmp_path):
    """A copy of the images elsewhere, and a function that compares it with the tokens."""
    folder = tmp_path / 'copied'
    shutil.copytree(images, folder)

    def check():
        cfg = recipe(folder, tokenizer)
        found = use_tokens(cfg, tokens)
        check_images(DATASETS.build(cfg.train_dataloader.dataset), found)

    return folder / 'train', check


def test_images_may_have_moved(copied):
    copied[1]()


def test_other_images_are_refused(copied):
    folder, check = copied
    (folder / 'c0/003.png').write_bytes((folder / 'c0/002.png').read_bytes())
    with pytest.raises(ValueError, match='image 2 is c0/004.png there and c0/003.png here'):
        check()
    (folder / 'c0/003.png').unlink()
    (folder / 'c1/001.png').rename(folder / 'c1/000.png')
    with pytest.raises(ValueError, match='image 12 is c1/001.png there and c1/000.png here'):
        check()


def test_other_pixels_are_refused(copied):
    folder, check = copied
    for path in folder.rglob('*.png'):
        image = Image.open(path)
        image.transpose(Image.Transpose.ROTATE_180).save(path)
    with pytest.raises(ValueError, match='view 0 of .*c0/000.png is not the one that was extracted'):
        check()


def test_checking_does_not_move_the_generators(images, tokenizer, tokens):
    """Else every run would start from the same weights, whatever its seed."""
    cfg = recipe(images, tokenizer)
    found = use_tokens(cfg, tokens)
    dataset = DATASETS.build(cfg.train_dataloader.dataset)
    drawn = []
    for check in (lambda: None, lambda: check_images(dataset, found)):
        for seed in (random.seed, np.random.seed, torch.manual_seed):
            seed(7)
        check()
        drawn.append((random.random(), np.random.rand(), torch.rand(1).item()))
    assert drawn[0] == drawn[1]
