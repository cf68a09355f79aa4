"""`tools/train.py --compile`, with the compiler and not only its front end."""

import shutil

import pytest
from torch._dynamo.utils import counters

pytestmark = pytest.mark.skipif(shutil.which('g++') is None, reason='torch.compile needs a compiler of C++ on CPUs')


def test_a_compiled_run_has_the_losses_of_a_plain_one(pretrain_config, tool, log, tmp_path):
    # Masks differ in their number of patches, and with it the last block in its shapes. Drop path would draw others.
    options = ('--cfg-options', 'model.backbone.drop_path_rate=0', 'train_cfg.max_epochs=1')
    counters.clear()
    for name, compiled in (('plain', ()), ('compiled', ('--compile',))):
        tool('train', pretrain_config, '--work-dir', tmp_path / name, *compiled, *options)
    plain, compiled = ([step['loss'] for step in log(tmp_path / name)] for name in ('plain', 'compiled'))
    assert len(plain) == 6 and len(set(plain)) == 6
    assert '2 blocks are compiled' in next((tmp_path / 'compiled').glob('*/*.log')).read_text()
    assert counters['stats']['unique_graphs'] >= 2, 'one for all tokens, one for those that come out of the last block'
    assert compiled == pytest.approx(plain, rel=1e-4)
