"""Mixed batches: what is in them, and that a run that goes on sees what it would have seen."""

import itertools
import json
import random
from collections import Counter

import numpy as np
import pytest
import torch
from builders_mdm import png, sentence, write_shards, write_sources, write_tar
from mmengine.runner import Runner
from mmpretrain.structures import DataSample

from mmbeit.datasets.mixture import Mixture

pytest.importorskip('webdataset')


class Pack:
    """Packs what a sample is, and numbers that augmentation would draw."""

    def __call__(self, results):
        if 'img_bytes' in results and not results['img_bytes'].startswith(b'\x89PNG'):
            return None
        draws = random.random(), float(np.random.rand()), float(torch.rand(()))
        name = results.get('key') or results.get('text') or results['img_path']
        return {'data_samples': DataSample(metainfo=dict(name=name, draws=draws, index=int(results['sample_idx'])))}


@pytest.fixture
def sources(tmp_path):
    """12 images, 20 texts, 10 pairs in lines, five shards of eight pairs with a broken one in each."""
    write_sources(tmp_path)
    folder = tmp_path / 'shards'
    write_shards(folder, 5, 8)
    for shard in range(5):
        samples = []
        for i in range(8 * shard, 8 * shard + 8):
            image = b'broken' if i % 8 == shard else png(i)
            samples.append((f'{i:04}', {'png': image, 'txt': sentence(i).encode()}))
        write_tar(folder / f'{shard:02}.tar', samples)
    return tmp_path


def loader_of(sources, *, pair='shards', num_workers=0, batch_size=12, num_streams=2, seed=3, **mixture):
    pairs = {
        'shards': dict(
            type='mmbeit.Shards',
            shards=f'{sources}/shards/{{00..04}}.tar',
            block=5,
            num_streams=num_streams,
            pipeline=[Pack()],
        ),
        'lines': dict(type='mmbeit.PairLines', data_root=str(sources), ann_file='pairs.jsonl', pipeline=[Pack()]),
    }
    groups = dict(
        image=dict(type='CustomDataset', data_root=str(sources), data_prefix='images', with_label=False),
        text=dict(type='mmbeit.TextLines', data_root=str(sources), ann_file='texts.txt', pipeline=[Pack()]),
        pair=pairs[pair],
    )
    groups['image']['pipeline'] = [Pack()]
    cfg = dict(
        batch_size=batch_size,
        num_workers=num_workers,
        sampler=dict(type='mmbeit.MixtureSampler'),
        collate_fn=dict(type='mmbeit.collate_groups'),
        dataset=dict(type='mmbeit.Mixture', groups=groups, **mixture),
    )
    return Runner.build_dataloader(cfg, seed=seed)


def what(batch):
    """Names and draws of a batch, by group."""
    return {name: [(s.name, s.draws) for s in group['data_samples']] for name, group in batch.items()}


def batches(loader, count):
    return [what(batch) for batch in itertools.islice(iter(loader), count)]


def names(batches, group):
    return [name for batch in batches for name, _ in batch[group]]


def place(monkeypatch, rank, world_size):
    monkeypatch.setattr('mmbeit.datasets.samplers.get_dist_info', lambda: (rank, world_size))


# ---- what is in a batch ----


@pytest.mark.parametrize('ratio', [None, dict(image=1, text=3, pair=2), dict(text=4)])
def test_every_batch_has_the_groups_by_ratio(sources, ratio):
    for batch in batches(loader_of(sources, ratio=ratio), 5):
        shares = {'image': 1, 'text': 1, 'pair': 1, **(ratio or {})}
        unit = 12 // sum(shares.values())
        assert {name: len(group) for name, group in batch.items()} == {k: v * unit for k, v in shares.items()}


@pytest.mark.parametrize('world_size', [1, 2, 3])
def test_processes_share_every_pass(sources, monkeypatch, world_size):
    """In 15 batches of 4 are three passes over 20 texts, for one process."""
    seen = Counter()
    for rank in range(world_size):
        place(monkeypatch, rank, world_size)
        seen.update(names(batches(loader_of(sources, pair='lines'), 15), 'text'))
    assert seen == {sentence(i): 3 * world_size for i in range(20)}


def test_every_stream_of_every_process_has_a_part_of_its_own(sources, monkeypatch):
    parts = []
    for rank in range(3):
        place(monkeypatch, rank, 3)
        dataset = loader_of(sources, num_streams=2).dataset
        parts += [dataset.part('pair', stream) for stream in range(2)]
    assert sorted(part.number for part in parts) == list(range(6))
    assert {part.count for part in parts} == {6} and len({part.seed for part in parts}) == 1


def test_orders_differ_between_passes_and_seeds(sources):
    found = batches(loader_of(sources, pair='lines'), 15)
    texts, images = names(found, 'text'), names(found, 'image')
    assert len({tuple(texts[i : i + 20]) for i in range(0, 60, 20)}) == 3
    assert all(set(images[i : i + 12]) == set(images) for i in range(0, 60, 12))
    assert len({tuple(images[i : i + 12]) for i in range(0, 60, 12)}) == 5
    for group in ('image', 'pair'):
        orders = [tuple(names(batches(loader_of(sources, seed=seed), 3), group)) for seed in range(3)]
        assert len(set(orders)) == 3


def test_augmentation_is_another_one_for_every_sample(sources, monkeypatch):
    draws = []
    for rank in range(2):
        place(monkeypatch, rank, 2)
        for batch in batches(loader_of(sources), 10):
            draws += [draw for group in batch.values() for _, draw in group]
    assert len(set(draws)) == len(draws) == 240
    assert all(len({d[i] for d in draws}) == len(draws) for i in range(3))


@pytest.mark.filterwarnings('ignore:.*use of fork')
@pytest.mark.parametrize('num_workers', [1, 2, 4])
def test_batches_do_not_depend_on_the_number_of_workers(sources, num_workers):
    expected = batches(loader_of(sources, num_streams=4), 9)
    torch.manual_seed(1)
    assert batches(loader_of(sources, num_streams=4, num_workers=num_workers), 9) == expected


# ---- going on ----


def after(loader, count):
    """Places of the streams after so many batches, as StreamHook keeps them, and what comes next in this run."""
    iterator, places = iter(loader), {}
    for batch in itertools.islice(iterator, count):
        last = batch['pair']['data_samples'][-1]
        places[last.stream] = last.place
    return {'pair': places}, [what(batch) for batch in itertools.islice(iterator, 12)]


@pytest.mark.filterwarnings('ignore:.*use of fork')
@pytest.mark.parametrize('num_workers', [0, 2])
@pytest.mark.parametrize('count', [1, 2, 5, 8, 13])
def test_going_on_gives_what_would_have_come(sources, monkeypatch, num_workers, count):
    """Of two processes, of several streams, through the plain numbers of a checkpoint."""
    for rank in range(2):
        found = []
        for other in range(2):
            place(monkeypatch, other, 2)
            whole = loader_of(sources, num_workers=num_workers)
            found.append(after(whole, count))
        state = json.loads(json.dumps(whole.dataset.state([places for places, _ in found])))
        state['pair']['places'] = [{int(k): v for k, v in p.items()} for p in state['pair']['places']]
        place(monkeypatch, rank, 2)
        resumed = loader_of(sources, num_workers=num_workers)
        lines = resumed.dataset.go_on(state, count * 12)
        resumed.sampler.skip(count * 12)
        assert batches(resumed, 12) == found[rank][1]
        assert [line.partition(':')[0] for line in lines] == ['image', 'text', 'pair']


@pytest.mark.filterwarnings('ignore:.*use of fork')
def test_going_on_with_another_number_of_workers(sources):
    places, expected = after(loader_of(sources, num_streams=4, num_workers=4), 7)
    for num_workers in (0, 1, 2):
        resumed = loader_of(sources, num_streams=4, num_workers=num_workers)
        resumed.dataset.go_on(resumed.dataset.state([places]), 7 * 12)
        resumed.sampler.skip(7 * 12)
        assert batches(resumed, 12) == expected


def test_going_on_without_shards_needs_no_state(sources):
    whole = batches(loader_of(sources, pair='lines'), 20)
    resumed = loader_of(sources, pair='lines')
    assert resumed.dataset.go_on({}, 8 * 12) == [
        'image: goes on after sample 8 of 12 in pass 3',
        'text: goes on after sample 12 of 20 in pass 2',
        'pair: goes on after sample 2 of 10 in pass 4',
    ]
    resumed.sampler.skip(8 * 12)
    assert batches(resumed, 12) == whole[8:]


def test_a_run_without_the_hook_says_that_shards_begin_anew(sources, monkeypatch):
    said = []
    monkeypatch.setattr('mmbeit.datasets.samplers.print_log', lambda message, *args: said.append(message))
    loader = loader_of(sources)
    places, _ = after(loader, 3)
    loader_of(sources).sampler.skip(0)
    loader_of(sources, pair='lines').sampler.skip(36)
    resumed = loader_of(sources)
    resumed.dataset.go_on(loader.dataset.state([places]), 36)
    resumed.sampler.skip(36)
    assert said == []
    loader_of(sources).sampler.skip(36)
    assert len(said) == 1 and said[0].startswith('the shards of pair are read from the first one on: no mmbeit.StreamH')


def test_a_line_says_where_shards_go_on(sources):
    loader = loader_of(sources)
    places, _ = after(loader, 3)
    line = loader_of(sources).dataset.go_on(loader.dataset.state([places]), 36)[-1]
    stream, first = min(places['pair'].items(), key=lambda item: item[1])
    epoch, shard = loader.dataset.groups['pair'].url(loader.dataset.part('pair', stream), first.shard)
    skipped = sum(place.skipped for place in places['pair'].values())
    assert line == (
        f'pair: goes on in 2 streams of 1 processes, the first one {first.taken} samples after sample {first.sample} '
        f'of {shard}, in pass {epoch + 1} over 5 shards; {skipped} samples of this process were skipped'
    )
    assert loader_of(sources).dataset.go_on({}, 36)[-1] == (
        'pair: the checkpoint has no places in shards; they are read from the first one on'
    )


@pytest.mark.parametrize(('num_streams', 'world_size'), [(2, 3), (4, 1), (1, 1)])
def test_another_number_of_streams_leaves_out_the_pass(sources, monkeypatch, num_streams, world_size):
    place(monkeypatch, 0, 1)
    loader = loader_of(sources)
    places, _ = after(loader, 20)
    dataset, pair = loader.dataset, loader.dataset.groups['pair']
    before = max(pair.url(dataset.part('pair', stream), spot.shard)[0] for stream, spot in places['pair'].items())
    assert before >= 1
    for rank in range(world_size):
        place(monkeypatch, rank, world_size)
        resumed = loader_of(sources, num_streams=num_streams)
        line = resumed.dataset.go_on(dataset.state([places]), 20 * 12)[-1]
        assert f'5 shards, 2 streams and 1 processes, this run has 5, {num_streams} and {world_size}' in line
        assert line.endswith(f'from pass {before + 2} on')
        for stream, spot in resumed.dataset.places['pair'].items():
            part = resumed.dataset.part('pair', stream)
            assert pair.url(part, spot.shard)[0] > before
            assert spot.shard == 0 or pair.url(part, spot.shard - 1)[0] <= before
        batches(resumed, 3)


# ---- what does not fit ----


def test_arguments(sources):
    with pytest.raises(ValueError, match=r"ratio is of \['audio'\], which are not among the groups"):
        loader_of(sources, ratio=dict(audio=1))
    for share in (0, 0.5):
        with pytest.raises(ValueError, match=rf"ratio {{'text': {share}}} is not of positive whole numbers"):
            loader_of(sources, ratio=dict(text=share))
    loader = loader_of(sources, batch_size=13)
    with pytest.raises(ValueError, match=r'batch_size 13 is no multiple of 3: ratio .* cannot be kept'):
        next(iter(loader))
    with pytest.raises(ValueError, match=r"num_workers 3 does not divide the 2 streams of 'pair': .* num_streams=3"):
        loader.dataset.check(12, 3)
    with pytest.raises(TypeError, match='MixtureSampler is for the data set mmbeit.Mixture, not for range'):
        Runner.build_dataloader(
            dict(dataset=range(3), batch_size=1, num_workers=0, sampler=dict(type='mmbeit.MixtureSampler')), seed=0
        )


def test_groups_may_be_left_out(sources):
    lines = dict(type='mmbeit.TextLines', data_root=str(sources), ann_file='texts.txt', pipeline=[Pack()])
    assert list(Mixture(dict(image=None, text=lines, pair=None)).groups) == ['text']
    with pytest.raises(ValueError, match='there are no groups'):
        Mixture(dict(image=None))
