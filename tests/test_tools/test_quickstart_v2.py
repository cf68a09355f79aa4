"""The second quickstart, from a teacher to the probes, one epoch each."""

import json

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS
from PIL import Image

from test_tools.test_quickstart import ROOT, run


@pytest.fixture(scope='module')
def teacher(tmp_path_factory):
    """Work folder of a pretraining, as the first quickstart leaves it; of weights as they are drawn."""
    folder = tmp_path_factory.mktemp('pretrain')
    cfg = Config.fromfile(ROOT / 'configs/beit/quickstart/beit_beit-mini-p4_1xb64-amp-coslr-90e_digits.py').model
    model = MODELS.build({**cfg, 'target_generator': None, 'head': dict(cfg.head, num_codes=128)})
    torch.save({'state_dict': model.state_dict(), 'meta': {}}, folder / 'epoch_90.pth')
    (folder / 'last_checkpoint').write_text(str(folder / 'epoch_90.pth'))
    return folder


def test_quickstart_goes_from_the_teacher_to_the_probes(digits, teacher, tmp_path):
    options = ['--data', digits, '--teacher', teacher, '--work-dir', tmp_path, '--epochs', 1, '--seeds', 1]
    output = run('tools/quickstart_v2.py', *map(str, options))
    results = json.loads((tmp_path / 'results.json').read_text())
    assert {name: len(values) for name, values in results['accuracy'].items()} == dict(scratch=1, beit=1, beitv2=1)
    (ours,), (scratch,) = results['accuracy']['beitv2'], results['accuracy']['scratch']
    assert results['gains']['scratch'] == pytest.approx(ours - scratch)
    assert f'{results["gains"]["scratch"]:+.1f} points over scratch' in output
    assert not (tmp_path / 'teacher').exists(), 'there was one'
    assert 0 < results['codebook']['codebook/usage'] <= 100
    for name in ('beit', 'beitv2'):
        assert {kind: len(one['val']) for kind, one in results['probes'][name].items()} == dict(linear=4, knn=4)
        assert np.array(Image.open(tmp_path / f'blocks-{name}.png')).std() > 10
