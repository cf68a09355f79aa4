import itertools
import pickle

import numpy as np
import pytest
import torch
from mmengine.dataset import DefaultSampler, InfiniteSampler
from mmengine.runner import Runner
from PIL import Image

from mmbeit.datasets.samplers import SampleIndex, SeededInfiniteSampler, SeededSampler

DATA = range(10)


def place(monkeypatch, rank, world_size):
    monkeypatch.setattr('mmengine.dataset.sampler.get_dist_info', lambda: (rank, world_size))


def take(sampler, count):
    return [(int(index), index.seed) for index in itertools.islice(sampler, count)]


@pytest.mark.parametrize('shuffle', [True, False])
@pytest.mark.parametrize(('rank', 'world_size'), [(0, 1), (1, 3)])
def test_the_order_is_that_of_mmengine(monkeypatch, shuffle, rank, world_size):
    place(monkeypatch, rank, world_size)
    ours, theirs = (cls(DATA, shuffle=shuffle, seed=5) for cls in (SeededSampler, DefaultSampler))
    for epoch in range(3):
        ours.set_epoch(epoch)
        theirs.set_epoch(epoch)
        assert list(ours) == list(theirs)
    ours, theirs = (cls(DATA, shuffle=shuffle, seed=5) for cls in (SeededInfiniteSampler, InfiniteSampler))
    assert list(itertools.islice(ours, 25)) == list(itertools.islice(theirs, 25))


def test_the_seed_of_a_sample_does_not_depend_on_the_number_of_processes(monkeypatch):
    place(monkeypatch, 0, 1)
    alone = dict(take(SeededSampler(DATA, seed=5), 10))
    stream = take(SeededInfiniteSampler(DATA, seed=5), 24)
    spread = {}
    for rank in range(2):
        place(monkeypatch, rank, 2)
        spread.update(take(SeededSampler(DATA, seed=5), 10))
        assert take(SeededInfiniteSampler(DATA, seed=5), 12) == stream[rank::2]
    assert spread == alone


def test_seeds_differ_between_samples_epochs_passes_and_runs():
    seeds = []
    for seed in range(2):
        sampler = SeededSampler(DATA, seed=seed)
        for epoch in range(3):
            sampler.set_epoch(epoch)
            seeds += [index.seed for index in sampler]
    assert len(set(seeds)) == 60
    assert len({seed for _, seed in take(SeededInfiniteSampler(DATA, seed=5), 50)}) == 50
    assert all(0 <= seed < 2**32 for seed in seeds)


@pytest.mark.parametrize(('rank', 'world_size'), [(0, 1), (1, 2)])
def test_an_index_knows_how_often_the_data_set_was_gone_through(monkeypatch, rank, world_size):
    place(monkeypatch, rank, world_size)
    sampler = SeededSampler(DATA, seed=5)
    sampler.set_epoch(4)
    assert {index.epoch for index in sampler} == {4}
    stream = [index.epoch for index in itertools.islice(SeededInfiniteSampler(DATA, seed=5), 30 // world_size)]
    assert stream == sorted(list(range(3)) * (10 // world_size))


@pytest.mark.skipif(not hasattr(InfiniteSampler, 'skip'), reason='this mmengine has no InfiniteSampler.skip')
@pytest.mark.parametrize(('rank', 'world_size'), [(0, 1), (1, 2)])
def test_skipping_resumes_the_same_samples_with_the_same_seeds(monkeypatch, rank, world_size):
    place(monkeypatch, rank, world_size)
    whole = take(SeededInfiniteSampler(DATA, seed=5), 30)
    resumed = SeededInfiniteSampler(DATA, seed=5)
    resumed.skip(13)
    assert take(resumed, 17) == whole[13:]


def test_an_index_is_a_number_that_carries_its_seed_and_epoch_to_another_process():
    index = pickle.loads(pickle.dumps(SampleIndex(3, seed=7, epoch=2)))
    assert type(index) is SampleIndex and index == 3 and index.seed == 7 and index.epoch == 2
    assert ['a', 'b', 'c', 'd'][index] == 'd'


@pytest.fixture
def folder(tmp_path):
    for i in range(6):
        pixels = np.random.default_rng(i).integers(256, size=(30, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f'{i}.png')
    (tmp_path / '6.png').write_text('unreadable, so that another image takes its place')
    return tmp_path


def loader(folder, num_workers):
    pipeline = [
        dict(type='mmbeit.SeedTransforms'),
        dict(type='mmbeit.LoadImage', on_error='skip'),
        dict(type='torchvision/ColorJitter', brightness=0.4, contrast=0.4, saturation=0.4),
        dict(type='torchvision/RandomHorizontalFlip'),
        dict(type='mmbeit.RandomResizedCropTwoViews', size=16, target_size=8),
        dict(type='mmbeit.BlockwiseMask', grid=8, num_masked=20, exact=True),
        dict(type='PackInputs', meta_keys=('img_path',)),
    ]
    dataset = dict(type='CustomDataset', data_root=str(folder), with_label=False, pipeline=pipeline)
    cfg = dict(
        batch_size=2,
        num_workers=num_workers,
        sampler=dict(type='mmbeit.SeededSampler', shuffle=True),
        collate_fn=dict(type='default_collate'),
        dataset=dataset,
    )
    return Runner.build_dataloader(cfg, seed=3)


def epoch_of(loader, epoch):
    """What every sample of an epoch looks like: views and mask by path."""
    loader.sampler.set_epoch(epoch)
    samples = []
    for batch in loader:
        for view, target, sample in zip(*batch['inputs'], batch['data_samples'], strict=True):
            samples.append((sample.img_path, view, target, sample.mask))
    return samples


@pytest.mark.filterwarnings('ignore:cannot read image')
@pytest.mark.filterwarnings('ignore:.*use of fork')
def test_augmentation_depends_on_sample_and_epoch_and_not_on_the_number_of_workers(folder):
    torch.manual_seed(1)
    alone = [epoch_of(loader(folder, 0), epoch) for epoch in range(2)]
    torch.manual_seed(2)
    np.random.seed(2)
    several = [epoch_of(loader(folder, 2), epoch) for epoch in range(2)]
    for mine, other in zip(alone, several, strict=True):
        for a, b in zip(mine, other, strict=True):
            assert a[0] == b[0] and all(torch.equal(x, y) for x, y in zip(a[1:], b[1:], strict=True)), a[0]
    first, second = ({path: parts for path, *parts in epoch} for epoch in alone)
    for path in first.keys() & second.keys():
        assert not any(torch.equal(x, y) for x, y in zip(first[path], second[path], strict=True)), path
