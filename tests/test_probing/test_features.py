"""Rows come out as they went in, in any order, whether they are kept or computed anew."""

import pytest
import torch
from builders import tiny_beit
from test_probing.planted import stored

from mmbeit.apis.data import DataConfig
from mmbeit.probing import features as module
from mmbeit.probing.cache import cached_features
from mmbeit.probing.extraction import Extractor
from mmbeit.probing.features import FeatureError, StreamedFeatures, shuffle, split
from mmbeit.probing.images import read_images


def test_rows_of_several_shards():
    every = torch.randn(20, 3, 2)
    features = stored(every[:7], every[7:7], every[7:8], every[8:])
    assert features.shape == (3, 2) and torch.equal(features.index, torch.arange(20))
    rows = torch.tensor([19, 0, 7, 7, 6, 8, 3])
    batches = list(features.batches(rows, 3))
    assert [len(batch) for batch, _ in batches] == [3, 2, 2]
    assert torch.equal(torch.cat([batch for batch, _ in batches]), rows)
    assert torch.equal(torch.cat([x for _, x in batches]), every[rows])
    (batch,) = features.of_block(1).batches(rows, 100)
    assert torch.equal(batch[1], every[rows, 1])


def test_batches_are_of_nearly_the_same_size():
    for count, size in ((10, 4), (8, 4), (3, 4), (257, 256)):
        sizes = [len(batch) for batch in split(torch.arange(count), size)]
        assert sum(sizes) == count and max(sizes) <= size and max(sizes) - min(sizes) <= 1
        assert len(sizes) == -(-count // size)


def test_an_epoch_has_every_row_once_in_an_order_of_its_own():
    rows = torch.arange(5000)[torch.arange(5000) % 3 > 0]
    draw = torch.Generator().manual_seed(0)
    one, two = shuffle(rows, draw), shuffle(rows, draw)
    for order in (one, two):
        assert torch.equal(order.sort().values, rows)
        assert abs(float(torch.corrcoef(torch.stack([order.float(), rows.float()]))[0, 1])) < 0.1
    assert not torch.equal(one, two)
    assert torch.equal(one, shuffle(rows, torch.Generator().manual_seed(0)))


def test_rows_near_in_an_epoch_are_near_on_the_disk(monkeypatch):
    monkeypatch.setattr(module, 'RUN', 10)
    monkeypatch.setattr(module, 'NEAR', 3)
    order = shuffle(torch.arange(300), torch.Generator().manual_seed(0))
    for group in order.split(30):
        assert len((group // 10).unique()) == 3
    assert not torch.equal(order.sort().values, order)


def test_streamed_features_are_those_on_the_disk(tmp_path, write_images):
    images = read_images(write_images(tmp_path / 'images', 9, broken=[4]))
    extractor = Extractor(tiny_beit(), DataConfig((100,) * 3, (50,) * 3, 32))
    kind = extractor.patches(1)
    on_disk = cached_features(tmp_path / 'cache', extractor, kind, images, '', torch.float32, num_workers=0)
    streamed = StreamedFeatures(extractor, kind, images, on_disk.index, num_workers=0)
    assert streamed.shape == on_disk.shape
    rows = torch.tensor([7, 0, 3, 3, 5])
    for one, other in zip(on_disk.batches(rows, 2), streamed.batches(rows, 2), strict=True):
        assert torch.equal(one[0], other[0])
        torch.testing.assert_close(one[1], other[1], rtol=1e-5, atol=1e-5)
    images.path(int(on_disk.index[3])).unlink()
    with pytest.raises(FeatureError, match='cannot read image .*; a moment ago it could be read'):
        list(streamed.batches(rows, 2))
