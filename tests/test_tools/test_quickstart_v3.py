"""The third quickstart, from the tokens to the answers, one epoch each on a few pictures."""

import json

import numpy as np
import pytest
from PIL import Image

from mmbeit.engine.processes import last_metrics
from test_tools.test_quickstart import run

pytest.importorskip('sentencepiece')
COLUMNS = {
    'questions': ('vqa', 'vqa/accuracy'),
    'of few questions': ('vqa-few', 'vqa/accuracy'),
    'captions': ('caption', 'caption/exact'),
    'captions found': ('retrieval', 'i2t/retrieval/Recall@1'),
    'pictures found': ('retrieval', 't2i/retrieval/Recall@1'),
}


def test_quickstart_goes_from_the_tokens_to_the_answers(digits, tmp_path):
    data, work_dir = tmp_path / 'data', tmp_path / 'run'
    counts = dict(train=200, val=50, nlvr_train=1, nlvr_val=1)
    options = [str(part) for name, n in counts.items() for part in (f'--{name.replace("_", "-")}', n)]
    run('tools/dataset_converters/digit_pairs.py', str(digits), str(data), *options)
    options = dict(data=data, work_dir=work_dir, few=160, epochs=1)
    output = run(
        'tools/quickstart_v3.py',
        *(str(part) for name, v in options.items() for part in (f'--{name.replace("_", "-")}', v)),
    )
    results = json.loads((work_dir / 'results.json').read_text())
    for start in ('scratch', 'mdm'):
        for column, (task, name) in COLUMNS.items():
            value = last_metrics(work_dir / f'{task}-{start}')[name]
            assert results[start][column] == value and 0 <= value <= 100
    for column, gain in results['gains'].items():
        assert gain == pytest.approx(results['mdm'][column] - results['scratch'][column])
        assert f'{gain:+.1f} {column}' in ' '.join(output.split())
    assert 0 < results['codebook']['codebook/usage'] <= 100
    assert np.array(Image.open(work_dir / 'answers.png')).std() > 10
