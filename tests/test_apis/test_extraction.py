import json

import numpy as np
import pytest
import torch
from mmengine.registry import MODELS
from mmengine.runner import Runner
from PIL import Image
from token_recipes import DVAE, NUM_CODES, VQKD, fast_recipe, recipe, write_images, write_tokenizer

from mmbeit.apis.extraction import TokenExtractor, summarize
from mmbeit.datasets.samplers import SampleIndex
from mmbeit.datasets.tokens import TokenFolder
from mmbeit.evaluation import CodebookUsage
from mmbeit.models import TargetGenerator

COUNT = 70  # two files
BAD = (3, 66)


class Features(TargetGenerator):
    """A teacher."""

    def targets(self, images):
        return images


@pytest.fixture(scope='module')
def images(tmp_path_factory):
    return write_images(tmp_path_factory.mktemp('images'), COUNT, BAD)


@pytest.fixture
def tokenizer(tmp_path):
    return write_tokenizer(tmp_path / 'tokenizer.pth', DVAE)


@pytest.fixture
def cfg(images, tokenizer):
    return recipe(images, tokenizer)


def extract(cfg, folder, *args, **kwargs):
    extractor = TokenExtractor(cfg, folder, *args, **kwargs)
    extractor.run()
    return extractor.tokens


def stored(folder):
    """Everything that was extracted, as bytes."""
    names = ('tokens.json', 'paths.txt', *(path.name for path in sorted(folder.glob('tokens_*.npy'))))
    return {name: (folder / name).read_bytes() for name in names}


def path_of(i):
    return f'c{i % 2}/{i:03}.png'


@pytest.mark.filterwarnings('ignore:cannot read image')
@pytest.mark.parametrize('kind', [DVAE, VQKD], ids=['dvae', 'vqkd'])
def test_tokens_are_those_of_training(kind, images, tmp_path):
    """Of the first epochs of a run that knows nothing of stored tokens, in its own order and batches."""
    cfg = recipe(images, write_tokenizer(tmp_path / 'tokenizer.pth', kind))
    tokens = extract(cfg, tmp_path / 'tokens', views=3)
    places = {path: i for i, path in enumerate(tokens.paths())}
    assert set(places) == {path_of(i) for i in range(COUNT)}
    model = MODELS.build(cfg.model)
    model.init_weights()
    loader = Runner.build_dataloader(cfg.train_dataloader, seed=cfg.randomness.seed)
    seen, codes = set(), set()
    for epoch in range(3):
        loader.sampler.set_epoch(epoch)
        for batch in loader:
            ids = model.target_generator(model.data_preprocessor(batch, training=True)['inputs'][1])
            for sample, expected in zip(batch['data_samples'], ids, strict=True):
                if isinstance(sample.sample_idx, SampleIndex):  # it takes no other image's place
                    name = sample.img_path.split('/train/')[1]
                    record = tokens[places[name]][epoch]
                    assert record['ids'].flatten().tolist() == expected.tolist(), (name, epoch)
                    seen.add((name, epoch))
                    codes.update(expected.tolist())
    assert len(seen) == 3 * (COUNT - len(BAD))
    assert len(codes) > 4


def test_unreadable_images_are_named_and_left_out(cfg, tmp_path, capsys):
    tokens = extract(cfg, tmp_path / 'tokens', views=2)
    said = [line for line in capsys.readouterr().err.splitlines() if 'cannot read image' in line]
    assert len(said) == 2
    for line, bad in zip(sorted(said, reverse=True), BAD, strict=True):
        assert path_of(bad) in line and line.endswith('it has no tokens')
    assert set(tokens.unreadable()) == {path_of(bad) for bad in BAD}
    assert sum(tokens[i] is None for i in range(COUNT)) == 2


@pytest.mark.filterwarnings('ignore:.*use of fork')
@pytest.mark.parametrize('change', ['workers', 'batches', 'parts', 'batches smaller than views'])
def test_how_they_are_computed_does_not_matter(change, cfg, tmp_path):
    extract(cfg, tmp_path / 'one', views=3)
    options = {'batches': dict(batch_size=20), 'batches smaller than views': dict(batch_size=2)}.get(change, {})
    if change == 'workers':
        cfg.train_dataloader.num_workers = 2
    extractor = TokenExtractor(cfg, tmp_path / 'other', views=3, **options)
    for part in range(num_parts := 3 if change == 'parts' else 1):
        extractor.run(part, num_parts)
    assert stored(tmp_path / 'other') == stored(tmp_path / 'one')


def test_parts_share_the_files(cfg, tmp_path):
    extractor = TokenExtractor(cfg, tmp_path, views=1)
    assert extractor.tokens.missing() == [0, 1]
    extractor.run(1, 2)
    assert extractor.tokens.missing() == [0]
    extractor.run(0, 2)
    assert extractor.tokens.missing() == []


def test_what_is_there_is_left(cfg, tmp_path):
    tokens = extract(cfg, tmp_path / 'tokens', views=2)
    whole = stored(tokens.folder)
    tokens.path_of(0).write_bytes(b'as it was')
    tokens.path_of(1).unlink()
    extract(cfg, tmp_path / 'tokens', views=2)
    assert stored(tokens.folder) == {**whole, 'tokens_000.npy': b'as it was'}


@pytest.mark.parametrize(('size', 'edge', 'side'), [(None, 18, 16), (24, 27, 24)])
def test_the_centre_is_what_torchvision_cuts_out(size, edge, side, cfg, images, tmp_path):
    transforms = pytest.importorskip('torchvision.transforms')
    tokens = extract(cfg, tmp_path / 'tokens', size=size)
    assert tokens.contents.views == 1 and tokens.contents.grid == [side // 4] * 2
    view = transforms.Compose(
        [
            transforms.Resize(edge, transforms.InterpolationMode.LANCZOS),
            transforms.CenterCrop(side),
            transforms.ToTensor(),
        ]
    )
    tokenizer = MODELS.build(cfg.model.target_generator)
    tokenizer.init_weights()
    for i, path in enumerate(tokens.paths()):
        if int(path[3:6]) not in BAD:
            ids = tokenizer(view(Image.open(images / 'train' / path).convert('RGB'))[None])
            assert tokens[i][0]['ids'].flatten().tolist() == ids[0].tolist()


def test_the_centre_does_not_depend_on_how_random_views_are_made(cfg, images, tokenizer, tmp_path):
    tokens = extract(cfg, tmp_path / 'tokens'), extract(fast_recipe(images, tokenizer), tmp_path / 'fast')
    assert len({(one.folder / 'tokens_000.npy').read_bytes() for one in tokens}) == 1


@pytest.mark.filterwarnings('ignore:cannot read image')
def test_views_of_an_image_differ_where_the_loader_crops(images, tokenizer, tmp_path):
    tokens = extract(fast_recipe(images, tokenizer), tmp_path / 'tokens', views=3)
    unreadable = [i for i in range(COUNT) if tokens[i] is None]
    assert len(unreadable) == len(BAD)
    assert all(len(set(tokens[i]['check'])) == 3 for i in range(COUNT) if i not in unreadable)


def test_grids_may_be_of_any_shape(images, tokenizer, tmp_path):
    cfg = recipe(images, tokenizer, size=(32, 48), target_size=(16, 24))
    assert extract(cfg, tmp_path / 'random', views=1)[0]['ids'].shape == (1, 4, 6)
    assert extract(cfg, tmp_path / 'center')[0]['ids'].shape == (1, 4, 6)


def test_statistics_are_those_of_the_metric(cfg, tmp_path):
    tokens = extract(cfg, tmp_path / 'tokens', views=2)
    (tokens.folder / 'tokens_000.npy.123.partial').touch()
    statistics = summarize(tokens)
    metric = CodebookUsage()
    readable = [tokens[i]['ids'].astype(np.int64) for i in range(COUNT) if tokens[i] is not None]
    metric.process({}, [dict(ids=torch.from_numpy(ids), num_codes=NUM_CODES) for ids in readable])
    expected = metric.evaluate(len(readable))
    for name in ('usage', 'dead_codes', 'perplexity'):
        assert statistics[name] == pytest.approx(expected[f'codebook/{name}'])
    assert 1 < statistics['perplexity'] < NUM_CODES
    assert sum(statistics['counts']) == len(readable) * 2 * 16
    assert (statistics['images'], statistics['unreadable']) == (COUNT, 2)
    assert statistics['bytes'] == sum(path.stat().st_size for path in tokens.folder.glob('*.npy'))
    assert json.loads((tokens.folder / 'codebook.json').read_text()) == statistics
    assert (tokens.folder / 'unreadable.txt').read_text().splitlines() == list(tokens.unreadable())
    assert Image.open(tokens.folder / 'codebook.png').size[0] > 300
    assert not list(tokens.folder.glob('*.partial'))


def test_a_view_takes_two_bytes_a_token_and_four(images, tmp_path):
    cfg = recipe(images, write_tokenizer(tmp_path / 'tokenizer.pth', {**DVAE, 'num_codes': 8192}))
    tokens = extract(cfg, tmp_path / 'tokens', views=5)
    header = 2 * 128
    assert sum(path.stat().st_size for path in tokens.folder.glob('*.npy')) == COUNT * 5 * (2 * 16 + 4) + header


def test_extraction_leaves_the_generators_as_they_were(cfg, tmp_path):
    torch.manual_seed(3)
    expected = torch.rand(4)
    extractor = TokenExtractor(cfg, tmp_path / 'tokens', views=2)
    torch.manual_seed(3)
    extractor.run()
    assert torch.equal(torch.rand(4), expected)


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (dict(views=0), r'views \(0\) is not at least 1'),
        (dict(size=18), 'target views of 18 x 18 pixels are no whole number of 4'),
    ],
)
def test_arguments_that_do_not_fit(change, message, cfg, tmp_path):
    with pytest.raises(ValueError, match=message):
        TokenExtractor(cfg, tmp_path / 'tokens', **change)
    assert not (tmp_path / 'tokens').exists()


def test_recipes_that_do_not_fit(cfg, tmp_path, images):
    pipeline = cfg.train_dataloader.dataset.pipeline
    cfg.train_dataloader.dataset.pipeline = pipeline[:4] + pipeline[5:]
    with pytest.raises(ValueError, match='has no mmbeit.RandomResizedCropTwoViews'):
        TokenExtractor(cfg, tmp_path / 'tokens')
    cfg.train_dataloader.dataset.pipeline = pipeline[:-2]
    with pytest.raises(ValueError, match='ends with mmbeit.BlockwiseMask and PackInputs, not mmbeit.SeedTransforms'):
        TokenExtractor(cfg, tmp_path / 'tokens')
    cfg.train_dataloader.dataset.pipeline = pipeline
    for path in images.rglob('*.png'):
        copy = tmp_path / 'bad' / 'train' / path.name
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.touch()
    cfg.train_dataloader.dataset.data_root = str(tmp_path / 'bad')
    with pytest.raises(ValueError, match='no image of the 70 in .*/bad/train can be read'):
        TokenExtractor(cfg, tmp_path / 'tokens')
    cfg.model.target_generator = dict(type=Features)
    with pytest.raises(ValueError, match='model.target_generator is .*Features.*, which gives no ids'):
        TokenExtractor(cfg, tmp_path / 'tokens')
    cfg.model.target_generator = None
    with pytest.raises(ValueError, match='has no model.target_generator'):
        TokenExtractor(cfg, tmp_path / 'tokens')


def test_other_tokens_in_the_folder_are_left_alone(cfg, tmp_path):
    extract(cfg, tmp_path, views=1)
    before = stored(tmp_path)
    with pytest.raises(ValueError, match='holds other tokens: pipeline.1.type'):
        TokenExtractor(cfg, tmp_path)
    cfg.randomness.seed = 6
    with pytest.raises(ValueError, match='seed is 5 there and 6 here; to extract these, name another folder'):
        TokenExtractor(cfg, tmp_path, views=1)
    assert stored(tmp_path) == before
    assert len(TokenFolder(tmp_path)) == COUNT
