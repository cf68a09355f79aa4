"""The quickstart's data, and its chain from the tokenizer to the picture, one epoch each."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

ROOT = Path(__file__).parents[2]


def run(*args: str) -> str:
    environment = {**os.environ, 'OMP_NUM_THREADS': '1', 'PYTHONPATH': str(ROOT)}
    done = subprocess.run([sys.executable, *args], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def test_digits_are_the_scans_of_scikit_learn(digits):
    data = load_digits()
    paths = sorted(digits.glob('*/*/*.png'))
    assert len(paths) == len(data.images) == 1797
    for path in paths[::100]:
        number = int(path.stem)
        assert int(path.parent.name) == data.target[number]
        np.testing.assert_array_equal(np.array(Image.open(path)), np.round(data.images[number] * 255 / 16))


def test_labelled_digits_are_training_images_and_held_out_ones_are_not(digits):
    train = {str(path.relative_to(digits / 'train')) for path in (digits / 'train').glob('*/*.png')}
    held_out = {str(path.relative_to(digits / 'val')) for path in (digits / 'val').glob('*/*.png')}
    assert len(held_out) == 360 and not train & held_out
    lists = [(digits / f'labelled_{split}.txt').read_text().split('\n')[:-1] for split in range(3)]
    assert len({tuple(lines) for lines in lists}) == 3
    for lines in lists:
        names, labels = zip(*(line.split() for line in lines), strict=True)
        assert len(set(names)) == 50 and set(names) <= train
        assert sorted(labels) == sorted('0123456789' * 5)
        assert all(name.split('/')[0] == label for name, label in zip(names, labels, strict=True))


def test_quickstart_goes_from_the_tokenizer_to_the_picture(digits, tmp_path):
    options = ['--data', str(digits), '--work-dir', str(tmp_path), '--epochs', '1', '--seeds', '2']
    output = run('tools/quickstart.py', *options)
    results = json.loads((tmp_path / 'results.json').read_text())
    assert {name: len(values) for name, values in results['accuracy'].items()} == {'scratch': 2, 'beit': 2}
    means = {name: sum(values) / 2 for name, values in results['accuracy'].items()}
    assert results['gain'] == pytest.approx(means['beit'] - means['scratch'])
    assert f'{results["gain"]:+.1f} points' in output
    assert 0 < results['codebook']['codebook/usage'] <= 100
    assert np.array(Image.open(tmp_path / 'tokens.png')).std() > 10
