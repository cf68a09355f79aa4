"""The data of the segmentation quickstart, and its chain to the picture, a few steps each."""

import json
import runpy
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from test_tools.test_quickstart import ROOT, run

pytest.importorskip('mmseg', reason='needs onedl-mmsegmentation, the extra `seg`')
COUNTS = dict(training=12, validation=6)
CONVERTER = ROOT / 'tools' / 'dataset_converters' / 'digit_scenes.py'


@pytest.fixture(scope='module')
def digits(tmp_path_factory):
    root = tmp_path_factory.mktemp('digits')
    run('tools/dataset_converters/digits.py', str(root))
    return root


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


def test_iou_is_the_one_of_mmseg():
    import torch
    from mmseg.evaluation import IoUMetric

    draw = torch.Generator().manual_seed(0)
    samples = []
    for _ in range(3):
        truth, found = (torch.randint(0, 4, (1, 9, 7), generator=draw) for _ in range(2))
        truth[:, :2] = 255
        samples.append({key: dict(data=x) for key, x in (('gt_sem_seg', truth), ('pred_sem_seg', found))})
    metric = IoUMetric(iou_metrics=['mIoU'])
    metric.dataset_meta = dict(classes=tuple('abcde'))
    metric.process({}, samples)
    areas = [sum(area) for area in zip(*metric.results, strict=True)]
    expected = metric.total_area_to_metrics(*areas)['IoU']
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        found = runpy.run_path(str(ROOT / 'tools' / 'quickstart_seg.py'))['intersection_over_union'](samples, 5)
    np.testing.assert_allclose(found, 100 * np.asarray(expected), rtol=1e-6)
    assert np.isnan(found[4]) and not np.isnan(found[:4]).any()


def test_quickstart_goes_from_the_scans_to_the_picture(digits, scenes, tmp_path):
    options = ['--digits', str(digits), '--scenes', str(scenes), '--work-dir', str(tmp_path), '--epochs', '1']
    output = run('tools/quickstart_seg.py', *options, '--pretrained', str(tmp_path / 'none.pth'))
    results = json.loads((tmp_path / 'results.json').read_text())
    assert {name: len(values) for name, values in results['IoU'].items()} == {'scratch': 11, 'beit': 11}
    for name, mean in results['mIoU'].items():
        assert mean == pytest.approx(np.nanmean(results['IoU'][name]))
        logged = [
            json.loads(line) for path in (tmp_path / name).glob('*/vis_data/scalars.json') for line in path.open()
        ]
        assert mean == pytest.approx(next(line['mIoU'] for line in logged if 'mIoU' in line), abs=0.01)
    assert f'{results["mIoU"]["beit"] - results["mIoU"]["scratch"]:+.1f} points' in output
    assert np.array(Image.open(tmp_path / 'segmentation.png')).std() > 10
    # Once there are weights they are taken.
    weights = next((tmp_path / 'pretrain').glob('epoch_*.pth'))
    options[options.index('--work-dir') + 1] = str(tmp_path / 'again')
    run('tools/quickstart_seg.py', *options, '--pretrained', str(weights))
    assert sorted(path.name for path in (tmp_path / 'again').iterdir() if path.is_dir()) == ['beit', 'scratch']
    assert json.loads((tmp_path / 'again' / 'results.json').read_text()) == results
