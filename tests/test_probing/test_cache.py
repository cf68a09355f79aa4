"""Features are computed once, whatever happens, and never taken for those of something else."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from builders import tiny_beit
from filelock import FileLock

from mmbeit.apis.data import DataConfig
from mmbeit.apis.images import read_image
from mmbeit.probing import cache as module
from mmbeit.probing.cache import cached_features
from mmbeit.probing.extraction import Extractor
from mmbeit.probing.features import FeatureError
from mmbeit.probing.images import read_images

DATA = DataConfig((100, 110, 120), (50, 55, 60), 32)


@pytest.fixture(autouse=True)
def _small_shards(monkeypatch):
    monkeypatch.setattr(module, 'SHARD', 8)


@pytest.fixture
def backbone():
    return tiny_beit()


@pytest.fixture
def compute(tmp_path):
    """Pooled features of a folder, from one cache; also gives how many images the backbone has seen for them."""

    def run(folder, backbone, data=DATA, amp=False, **kwargs):
        seen = []
        hook = backbone.patch_embed.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
        extractor = Extractor(backbone, data, amp)
        options = dict(dtype=torch.float32, batch_size=3, num_workers=0, **kwargs)
        kind = extractor.pooled()
        features = cached_features(tmp_path / 'cache', extractor, kind, read_images(folder), 'features', **options)
        hook.remove()
        return features, sum(seen)

    return run


def rows_of(features):
    return next(features.batches(torch.arange(len(features.index)), 1000))[1]


def folders(tmp_path):
    return sorted(path.name for path in (tmp_path / 'cache').iterdir())


def test_every_row_is_of_its_image(write_images, tmp_path, backbone, compute):
    folder = write_images(tmp_path / 'images', 21)
    features, seen = compute(folder, backbone)
    assert seen == 21
    assert sorted(features.index.tolist()) == list(range(21)) and features.index.tolist() != list(range(21))
    images = read_images(folder)
    extractor = Extractor(backbone, DATA)
    for row, number in zip(rows_of(features), features.index.tolist(), strict=True):
        x = DATA([read_image(images.path(number))])
        with torch.no_grad():
            expected = extractor.pooled().compute(x)[0]
        torch.testing.assert_close(row, expected, rtol=1e-5, atol=1e-5)


def test_they_are_computed_once(write_images, tmp_path, backbone, compute):
    folder = write_images(tmp_path / 'images', 21)
    first, _ = compute(folder, backbone)
    again, seen = compute(folder, backbone)
    assert seen == 0 and torch.equal(rows_of(first), rows_of(again)) and torch.equal(first.index, again.index)
    assert not list((tmp_path / 'cache').rglob('*.partial'))


def test_they_may_move_and_be_labelled_anew(write_images, tmp_path, backbone, compute):
    folder = write_images(tmp_path / 'images', 9)
    compute(folder, backbone)
    folder.rename(tmp_path / 'elsewhere')
    assert compute(tmp_path / 'elsewhere', backbone)[1] == 0
    names = [str(path.relative_to(tmp_path / 'elsewhere')) for path in sorted((tmp_path / 'elsewhere').rglob('*.png'))]
    (tmp_path / 'list.txt').write_text(''.join(f'{name} 0\n' for name in names))
    images = read_images(tmp_path / 'elsewhere', tmp_path / 'list.txt')
    extractor = Extractor(backbone, DATA)
    cached_features(tmp_path / 'cache', extractor, extractor.pooled(), images, '', torch.float32, num_workers=0)
    assert len(folders(tmp_path)) == 1


def test_features_of_something_else_are_not_taken(write_images, tmp_path, backbone, compute):
    folder = write_images(tmp_path / 'images', 9)
    compute(folder, backbone)
    with torch.no_grad():
        backbone.blocks[1].mlp.fc1.bias[0] += 1e-4
    changes = {
        'weights': {},
        'size': dict(data=DATA.at_size(40)),
        'precision': dict(amp=True),
    }
    for count, (name, options) in enumerate(changes.items(), 2):
        assert compute(folder, backbone, **options)[1] == 9, name
        assert len(folders(tmp_path)) == count
    image = next(folder.rglob('*.png'))
    before = rows_of(compute(folder, backbone)[0])
    shutil.copy(sorted(folder.rglob('*.png'))[-1], image)
    features, seen = compute(folder, backbone)
    assert seen == 9 and not torch.equal(rows_of(features), before)
    image.unlink()
    features, seen = compute(folder, backbone)
    assert seen == len(features.index) == 8
    extractor = Extractor(backbone, DATA)
    for kind in (extractor.pooled(), extractor.patches(0), extractor.patches(1)):
        count = len(folders(tmp_path))
        cached_features(tmp_path / 'cache', extractor, kind, read_images(folder), '', torch.float16, num_workers=0)
        assert len(folders(tmp_path)) == count + 1


def test_a_damaged_file_is_made_again(write_images, tmp_path, backbone, compute):
    folder = write_images(tmp_path / 'images', 20)
    first, _ = compute(folder, backbone)
    expected = rows_of(first).clone()
    paths = sorted((tmp_path / 'cache').rglob('*.safetensors'))
    assert len(paths) == 3
    paths[0].write_bytes(paths[0].read_bytes()[:-100])
    paths[2].write_bytes(b'')
    features, seen = compute(folder, backbone)
    assert seen == 8 + 4 and torch.equal(rows_of(features), expected)


KILLED = """
import sys, time, torch
from builders import tiny_beit
from mmbeit.apis.data import DataConfig
from mmbeit.probing import cache
from mmbeit.probing.extraction import Extractor
from mmbeit.probing.images import read_images

cache.SHARD = 8
torch.manual_seed(0)
backbone = tiny_beit()
backbone.patch_embed.register_forward_pre_hook(lambda *_: time.sleep(0.2))
extractor = Extractor(backbone, DataConfig((100, 110, 120), (50, 55, 60), 32))
images, folder = read_images(sys.argv[1]), cache.Path(sys.argv[2])
cache.cached_features(folder, extractor, extractor.pooled(), images, '', torch.float32, 3, 0)
"""


def test_a_killed_run_goes_on(write_images, tmp_path, compute):
    folder = write_images(tmp_path / 'images', 40, broken=[7])
    torch.manual_seed(0)
    backbone = tiny_beit()  # the same as in the other process
    env = {**os.environ, 'PYTHONPATH': os.pathsep.join([str(Path(__file__).parents[1]), *sys.path])}
    process = subprocess.Popen([sys.executable, '-W', 'ignore', '-c', KILLED, folder, tmp_path / 'cache'], env=env)
    until = time.monotonic() + 100
    while len(done := list((tmp_path / 'cache').rglob('*.safetensors'))) < 2 and time.monotonic() < until:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert 2 <= len(done) < 5
    left = 5 - len(list((tmp_path / 'cache').rglob('*.safetensors')))
    features, seen = compute(folder, backbone)
    assert left > 0 and 8 * left - 1 <= seen <= 8 * left, 'what was there was not computed again'
    assert len(folders(tmp_path)) == 1
    shutil.rmtree(tmp_path / 'cache')
    whole, seen = compute(folder, backbone)
    assert seen == 39
    assert torch.equal(rows_of(features), rows_of(whole)) and torch.equal(features.index, whole.index)


def test_a_second_run_waits_for_the_first(write_images, tmp_path, backbone, compute, capfd, monkeypatch):
    folder = write_images(tmp_path / 'images', 9)
    compute(folder, backbone)
    (kept,) = (tmp_path / 'cache').iterdir()
    lock = FileLock(kept / 'lock')
    lock.acquire()
    acquire = FileLock.acquire

    def give_way(self, *args, **kwargs):
        if not kwargs:
            lock.release()
        return acquire(self, *args, **kwargs)

    monkeypatch.setattr(FileLock, 'acquire', give_way)
    assert compute(folder, backbone)[1] == 0
    assert capfd.readouterr().err == f'waiting for another run, which computes the features in {kept}\n'


def test_bad_images_are_told_of_in_a_line_each_and_left_out(write_images, tmp_path, backbone, compute, capfd):
    folder = write_images(tmp_path / 'images', 20, broken=[3, 16])
    features, seen = compute(folder, backbone)
    lines = capfd.readouterr().err.splitlines()
    paths = [read_images(folder).path(i) for i in range(20)]
    broken = {i for i, path in enumerate(paths) if path.read_bytes() == b'broken'}
    assert len(lines) == len(broken) == 2
    assert all(line.startswith('cannot read image ') and line.endswith('; it is left out') for line in lines)
    assert seen == 18 and set(features.index.tolist()) == set(range(20)) - broken
    again, seen = compute(folder, backbone)
    assert seen == 0 and torch.equal(features.index, again.index) and capfd.readouterr().err == ''
    everything = write_images(tmp_path / 'broken', 9, broken=range(9))
    with pytest.raises(FeatureError, match=f'none of the 9 images of {everything} can be read'):
        compute(everything, backbone)


def test_progress_counts_images_from_where_the_last_run_was(
    write_images, tmp_path, backbone, compute, capfd, monkeypatch
):
    folder = write_images(tmp_path / 'images', 20)
    compute(folder, backbone)
    assert capfd.readouterr().err == '', 'nothing is drawn into a file'
    monkeypatch.setenv('FORCE_COLOR', '1')  # rich takes it for a terminal
    sorted((tmp_path / 'cache').rglob('*.safetensors'))[1].unlink()
    compute(folder, backbone)
    err = capfd.readouterr().err
    assert 'features' in err and '20/20' in err and '0/20' not in err.replace('20/20', '')


def test_what_cannot_be_kept(write_images, tmp_path, backbone, compute, monkeypatch):
    folder = write_images(tmp_path / 'images', 9)
    extractor = Extractor(backbone, DATA)
    arguments = tmp_path / 'cache', extractor, extractor.pooled(), read_images(folder), ''
    with torch.no_grad():
        backbone.cls_token.fill_(1e6)
    with pytest.raises(
        FeatureError, match=r'pooled features reach 1e\+06, which torch.float16 cannot hold: use dtype float32'
    ):
        cached_features(*arguments, num_workers=0)
    with torch.no_grad():
        backbone.cls_token.fill_(float('nan'))
    with pytest.raises(FeatureError, match='pooled features are not finite: are these the right weights'):
        cached_features(*arguments, num_workers=0)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, 'disk_usage', lambda _: usage._replace(free=100))
    with pytest.raises(FeatureError, match='features of 9 images need 0.0 GB in .*, where 0.0 GB are free'):
        cached_features(*arguments, num_workers=0)


def test_half_precision_is_near(write_images, tmp_path, backbone):
    images = read_images(write_images(tmp_path / 'images', 9))
    extractor = Extractor(backbone, DATA)
    half, full = (
        rows_of(cached_features(tmp_path, extractor, extractor.pooled(), images, '', dtype, num_workers=0))
        for dtype in (torch.float16, torch.float32)
    )
    assert half.dtype == torch.float16
    torch.testing.assert_close(half.float(), full, rtol=5e-4, atol=1e-6)
    assert not torch.equal(half.float(), full)
