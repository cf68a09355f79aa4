import numpy as np
import pytest
import torch
from mmengine.registry import DATASETS
from mmengine.runner import Runner
from PIL import Image

from mmbeit.datasets.samplers import seeded
from mmbeit.datasets.tokens import TokenContents, TokenFolder, checksum

SEED = 3
NUM_VIEWS = 2
BAD = 6
STEPS = [
    dict(type='mmbeit.LoadImage', on_error='skip'),
    dict(type='torchvision/ColorJitter', brightness=0.4, contrast=0.4, saturation=0.4),
    dict(type='torchvision/RandomHorizontalFlip'),
    dict(type='mmbeit.RandomResizedCropTwoViews', size=16, target_size=8),
]
MASK = [
    dict(type='mmbeit.BlockwiseMask', grid=8, num_masked=20, exact=True),
    dict(type='PackInputs', meta_keys=('sample_idx',)),
]


def dataset(folder, pipeline):
    return dict(type='CustomDataset', data_root=str(folder), with_label=False, pipeline=pipeline)


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """Nine images, one of them unreadable."""
    folder = tmp_path_factory.mktemp('images')
    for i in range(9):
        pixels = np.random.default_rng(i).integers(256, size=(30, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f'{i}.png')
    (folder / f'{BAD}.png').write_text('unreadable')
    return folder


@pytest.fixture
def plain(folder):
    """The data set without stored tokens."""
    return DATASETS.build(dataset(folder, [dict(type='mmbeit.SeedTransforms'), *STEPS, *MASK]))


@pytest.fixture
def ids():
    return np.random.default_rng(0).integers(0, 50, (9, NUM_VIEWS, 64))


@pytest.fixture
def tokens(tmp_path_factory, plain, ids):
    """Two views of each image with made-up tokens, which are what the plain data set shows in two epochs."""
    contents = TokenContents({}, STEPS, NUM_VIEWS, SEED, [8, 8], 50, 9, {})
    tokens = TokenFolder.create(tmp_path_factory.mktemp('tokens'), contents, [f'{i}.png' for i in range(9)])
    records = tokens.empty(0)
    for image in set(range(9)) - {BAD}:
        for view in range(NUM_VIEWS):
            shown = plain[seeded(image, SEED, view)]['inputs'][0].permute(1, 2, 0)
            records[image, view] = ids[image, view].reshape(8, 8), checksum(shown)
    tokens.write(0, records)
    return tokens.folder


def replay(tokens, **kwargs):
    steps = [*STEPS[:-1], {**STEPS[-1], 'target_size': None}]
    return [dict(type='mmbeit.ReplayView', tokens=str(tokens), transforms=steps, **kwargs), *MASK]


@pytest.fixture
def stored(folder, tokens):
    """The data set with stored tokens."""
    return DATASETS.build(dataset(folder, replay(tokens)))


def parts(sample):
    """View, target and mask."""
    return [*sample['inputs'], sample['data_samples'].mask]


def in_epoch(image, epoch, seed=SEED):
    return seeded(image, seed, epoch, epoch=epoch)


@pytest.mark.parametrize('epoch', range(NUM_VIEWS))
def test_a_run_of_the_same_seed_sees_what_it_would_see_without_stored_tokens(plain, stored, ids, epoch):
    for image in set(range(9)) - {BAD}:
        view, _, mask = parts(plain[in_epoch(image, epoch)])
        again, tokens, same_mask = parts(stored[in_epoch(image, epoch)])
        assert torch.equal(again, view)
        assert torch.equal(same_mask, mask)
        assert tokens.dtype == torch.int64 and tokens.tolist() == ids[image, epoch].tolist()


def test_views_come_again_and_masks_do_not(stored):
    for image in set(range(9)) - {BAD}:
        epochs = [parts(stored[in_epoch(image, epoch)]) for epoch in range(3 * NUM_VIEWS)]
        masks = {tuple(mask.flatten().tolist()) for *_, mask in epochs}
        assert len(masks) == 3 * NUM_VIEWS
        for epoch in range(NUM_VIEWS, 3 * NUM_VIEWS):
            assert torch.equal(epochs[epoch][0], epochs[epoch % NUM_VIEWS][0])
            assert torch.equal(epochs[epoch][1], epochs[epoch % NUM_VIEWS][1])
        assert not torch.equal(epochs[0][0], epochs[1][0])


def test_a_run_of_another_seed_sees_the_same_views_behind_other_masks(stored):
    for image in set(range(9)) - {BAD}:
        view, tokens, mask = parts(stored[in_epoch(image, 1)])
        again, same_tokens, other_mask = parts(stored[in_epoch(image, 1, seed=SEED + 1)])
        assert torch.equal(again, view) and torch.equal(same_tokens, tokens)
        assert not torch.equal(other_mask, mask)


def loader(folder, tokens, num_workers):
    cfg = dict(
        batch_size=3,
        num_workers=num_workers,
        sampler=dict(type='mmbeit.SeededSampler', shuffle=True),
        collate_fn=dict(type='default_collate'),
        dataset=dataset(folder, replay(tokens)),
    )
    return Runner.build_dataloader(cfg, seed=SEED)


def epoch_of(loader, epoch):
    loader.sampler.set_epoch(epoch)
    samples = []
    for batch in loader:
        for view, target, sample in zip(*batch['inputs'], batch['data_samples'], strict=True):
            samples.append((int(sample.sample_idx), view, target, sample.mask))
    return samples


@pytest.mark.filterwarnings('ignore:cannot read image')
@pytest.mark.filterwarnings('ignore:.*use of fork')
@pytest.mark.parametrize('epoch', [0, 5])
def test_workers_see_the_same_and_nothing_but_stored_views(folder, tokens, stored, ids, epoch):
    """An unreadable image is replaced by a view that is stored, too, behind a mask that is new in every epoch."""
    alone, several = (epoch_of(loader(folder, tokens, num_workers), epoch) for num_workers in (0, 2))
    for mine, other in zip(alone, several, strict=True):
        assert mine[0] == other[0] and all(map(torch.equal, mine[1:], other[1:]))
    for image, view, target, _ in alone:
        known = [parts(stored[in_epoch(image, k)])[0] for k in range(NUM_VIEWS)]
        found = [k for k in range(NUM_VIEWS) if torch.equal(view, known[k])]
        assert len(found) == 1 and target.tolist() == ids[image, found[0]].tolist()


@pytest.mark.filterwarnings('ignore:cannot read image')
def test_what_takes_the_place_of_an_unreadable_image_has_masks_of_its_own(stored):
    masks = {tuple(parts(stored[in_epoch(BAD, epoch)])[2].flatten().tolist()) for epoch in range(20)}
    assert len(masks) == 20
    same = [parts(stored[in_epoch(BAD, 7)]) for _ in range(2)]
    assert all(map(torch.equal, *same))


def test_images_without_tokens_are_replaced(folder, tokens, stored, tmp_path):
    """Such as one that can be read again."""
    for i in range(9):
        (tmp_path / f'{i}.png').write_bytes((folder / f'{i if i != BAD else 0}.png').read_bytes())
    healed = DATASETS.build(dataset(tmp_path, replay(tokens)))
    sample = healed[in_epoch(BAD, 0)]
    assert sample['data_samples'].sample_idx != BAD
    assert sample['inputs'][1].max() < 50


def test_a_changed_image_stops_the_run(folder, tokens, ids, tmp_path):
    for i in range(9):
        (tmp_path / f'{i}.png').write_bytes((folder / f'{i}.png').read_bytes())
    image = Image.open(tmp_path / '2.png')
    image.transpose(Image.Transpose.FLIP_TOP_BOTTOM).save(tmp_path / '2.png')
    changed = DATASETS.build(dataset(tmp_path, replay(tokens)))
    changed[in_epoch(1, 0)]
    with pytest.raises(ValueError, match=f'view 1 of {tmp_path}/2.png is not the one that was extracted to {tokens}'):
        changed[in_epoch(2, 3)]
    unchecked = DATASETS.build(dataset(tmp_path, replay(tokens, check=False)))
    assert unchecked[in_epoch(2, 3)]['inputs'][1].tolist() == ids[2, 1].tolist()


def test_one_view_may_serve_both(folder, tmp_path):
    """A pipeline without a target view, where the tokenizer sees what the backbone sees."""
    steps = [STEPS[0], dict(type='torchvision/CenterCrop', size=16)]
    whole = DATASETS.build(dataset(folder, [*steps, MASK[-1]]))
    contents = TokenContents({}, steps, 1, 0, [2, 2], 50, 9, {})
    tokens = TokenFolder.create(tmp_path, contents, [f'{i}.png' for i in range(9)])
    records = tokens.empty(0)
    records[4, 0] = [[1, 2], [3, 4]], checksum(whole[4]['inputs'].permute(1, 2, 0))
    tokens.write(0, records)
    pipeline = [dict(type='mmbeit.ReplayView', tokens=str(tmp_path), transforms=steps), *MASK]
    view, target, _ = parts(DATASETS.build(dataset(folder, pipeline))[in_epoch(4, 11)])
    assert torch.equal(view, whole[4]['inputs'])
    assert target.tolist() == [1, 2, 3, 4]
