"""The data of the segmentation quickstart, and its chain to the picture, a few steps each."""

import argparse
import json
import runpy
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmbeit.engine.quickstart import pretrained_in
from test_tools.test_quickstart import ROOT, run

pytest.importorskip('mmseg', reason='needs onedl-mmsegmentation, the extra `seg`')
COUNTS = dict(training=12, validation=6)
CONVERTER = ROOT / 'tools' / 'dataset_converters' / 'digit_scenes.py'


@pytest.fixture(scope='module')
def scenes(tmp_path_factory, digits):
    root = tmp_path_factory.mktemp('scenes')
    options = [f'--{split}={count}' for split, count in COUNTS.items()]
    run('tools/dataset_converters/digit_scenes.py', str(digits), str(root), *options)
    return root


def read(root: Path, split: str) -> list[tuple[np.ndarray, np.ndarray]]:
    names = sorted(path.stem for path in (root / 'images' / split).iterdir())
    return [
        tuple(np.asarray(Image.open(root / kind / split / name)) for kind, name in pair)
        for pair in ((('images', f'{n}.jpg'), ('annotations', f'{n}.png')) for n in names)
    ]


def test_scenes_have_the_layout_and_the_numbering_of_ade20k(scenes):
    for split, count in COUNTS.items():
        pairs = read(scenes, split)
        assert len(pairs) == count
        for image, labels in pairs:
            assert image.shape == (*labels.shape, 3)
            assert set(np.unique(labels)) <= set(range(12))
            assert {0, 1} < set(np.unique(labels)), 'rims, ground and digits'


def test_a_label_is_where_its_scan_is_inked(scenes):
    for image, labels in read(scenes, 'training'):
        brightness = image.mean(axis=2)
        assert brightness[labels > 1].mean() > brightness[labels == 1].mean() + 50
        assert brightness[labels > 1].mean() > brightness[labels == 0].mean() > brightness[labels == 1].mean()


def test_held_out_scenes_share_neither_scans_nor_grounds_with_the_others(digits, tmp_path):
    converter = runpy.run_path(str(CONVERTER))
    used = converter['write_scenes'](digits, tmp_path, COUNTS)
    assert all(path.is_relative_to(digits / 'train') for path in used['training'])
    assert all(path.is_relative_to(digits / 'val') for path in used['validation'])
    for ours, theirs in zip(*map(converter['photographs'], ('training', 'validation')), strict=True):
        assert ours.shape[1] + theirs.shape[1] == 640, 'of the width of a photograph'
        assert not np.array_equal(ours[:, -9:], theirs[:, :9])


def test_scenes_depend_on_the_arguments_alone(digits, scenes, tmp_path):
    run('tools/dataset_converters/digit_scenes.py', str(digits), str(tmp_path), '--training=12', '--validation=6')
    for split in COUNTS:
        for ours, theirs in zip(read(scenes, split), read(tmp_path, split), strict=True):
            assert all(map(np.array_equal, ours, theirs))


def test_scenes_need_digits(tmp_path):
    converter = runpy.run_path(str(CONVERTER))
    with pytest.raises(FileNotFoundError, match=f'no digits in {tmp_path}/train: write them with'):
        converter['write_scenes'](tmp_path, tmp_path / 'scenes', COUNTS)


def test_quickstart_goes_from_the_scans_to_the_picture(digits, scenes, log, tmp_path):
    options = ['--digits', digits, '--scenes', scenes, '--work-dir', tmp_path, '--pretrained', tmp_path / 'none']
    output = run('tools/quickstart_seg.py', *map(str, options), '--epochs', '1', '--iters', '1')
    results = json.loads((tmp_path / 'results.json').read_text())
    assert {name: len(values) for name, values in results['IoU'].items()} == {'scratch': 11, 'beit': 11}
    for name, mean in results['mIoU'].items():
        assert mean == pytest.approx(np.nanmean(results['IoU'][name]))
        logged = [line['mIoU'] for line in log(tmp_path / name) if 'mIoU' in line]
        assert logged[0] == pytest.approx(mean, abs=0.006), 'of the validation at the end of the training'
    assert results['gain'] == pytest.approx(results['mIoU']['beit'] - results['mIoU']['scratch'])
    assert f'{results["gain"]:+.1f} points' in output
    assert np.array(Image.open(tmp_path / 'segmentation.png')).std() > 10


def test_weights_that_are_there_are_taken(tmp_path):
    runs = runpy.run_path(str(ROOT / 'tools' / 'quickstart_seg.py'))['runs']
    args = argparse.Namespace(work_dir=tmp_path, digits='digits', scenes='scenes', epochs=None, iters=None)
    assert pretrained_in(tmp_path / 'pretrain') is None
    (first,) = next(runs(args, None))
    assert first.work_dir == tmp_path / 'dvae'
    (tmp_path / 'pretrain').mkdir()
    (tmp_path / 'pretrain' / 'last_checkpoint').write_text('weights.pth')
    ((scratch, beit),) = runs(args, pretrained_in(tmp_path / 'pretrain'))
    assert (scratch.options[-1], beit.options[-1]) == (
        'model.backbone.init_cfg=None',
        'model.backbone.init_cfg.checkpoint=weights.pth',
    )
    assert scratch.options[:-1] == beit.options[:-1]
