"""Extraction and training from what was extracted, as processes and as users call them."""

import json
import re
import signal

import numpy as np
import pytest
import torch
from builders import randomize
from PIL import Image

from mmbeit.engine.config import find_config
from mmbeit.models import DVAETokenizer

NUM_IMAGES = 150  # three files
STEPS = 6  # of an epoch of the tiny recipe
KILLED = """
import os, signal
fsync, saves = os.fsync, []

def kill(descriptor):
    saves.append(descriptor)
    if len(saves) == {save}:
        os.truncate(descriptor, 100)
        os.kill(os.getpid(), signal.SIGKILL)
    fsync(descriptor)

os.fsync = kill
"""


@pytest.fixture(scope='module')
def many(tmp_path_factory):
    """A folder of images, one of them unreadable."""
    folder = tmp_path_factory.mktemp('many')
    for i in range(NUM_IMAGES):
        pixels = np.random.default_rng(i).integers(256, size=(24, 24, 3), dtype=np.uint8)
        (folder / f'c{i % 3}').mkdir(exist_ok=True)
        Image.fromarray(pixels).save(folder / f'c{i % 3}' / f'{i}.png')
    (folder / 'c1' / '1.png').write_bytes(b'')
    return folder


@pytest.fixture(scope='module')
def extracted(tmp_path_factory, pretrain_config, many, tool):
    """Two views of each of these images, without an interruption."""
    out = tmp_path_factory.mktemp('extracted') / 'tokens'
    tool('extract_tokens', pretrain_config, out, '--images', many, '--views', 2)
    return out


@pytest.fixture(scope='module')
def tokens(tmp_path_factory, pretrain_config, tool):
    """Two views of each image of the tiny recipe."""
    out = tmp_path_factory.mktemp('tokens') / 'tokens'
    tool('extract_tokens', pretrain_config, out, '--views', 2)
    return out


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix != '.png'}


def test_result(extracted, capsys, tool, pretrain_config, many):
    names = ['codebook.json', 'codebook.png', 'paths.txt', 'tokens.json']
    names += ['tokens_000.npy', 'tokens_001.npy', 'tokens_002.npy', 'unreadable.txt']
    assert sorted(path.name for path in extracted.iterdir()) == names
    assert (extracted / 'unreadable.txt').read_text() == 'c1/1.png\n'
    capsys.readouterr()
    tool('extract_tokens', pretrain_config, extracted, '--images', many, '--views', 2)
    out, err = capsys.readouterr()
    health = json.loads((extracted / 'codebook.json').read_text())
    size = re.escape(f'{health["bytes"] / 1000:.1f} kB')
    assert re.search(rf'^{extracted}: 4 x 4 tokens of 2 views of 150 images, {size}$', out, re.M)
    assert f'images that could not be read: 1, see {extracted}/unreadable.txt' in out
    assert f'{health["usage"]:.1f} % of 16 codes in use, {health["dead_codes"]} are not' in out
    assert 'cannot read' not in err  # there was nothing left to do


def test_killed_while_it_writes_and_started_again(extracted, pretrain_config, many, python, root, tmp_path):
    """The second of three files: after the list of images, the contents and the first file."""
    (tmp_path / 'killer.py').write_text(KILLED.format(save=4))
    killed = tmp_path / 'killed.py'
    killed.write_text(f"_base_ = '{pretrain_config}'\ncustom_imports = dict(imports=['killer'])\n")
    out = tmp_path / 'tokens'
    options = [out, '--images', many, '--views', 2]
    done = python('tools/extract_tokens.py', killed, *options, check=False, PYTHONPATH=f'{tmp_path}:{root}')
    assert done.returncode == -signal.SIGKILL, done.stdout[-3000:] + done.stderr[-3000:]
    left = sorted(path.name for path in out.iterdir())
    assert left[:3] == ['paths.txt', 'tokens.json', 'tokens_000.npy']
    assert len(left) == 4 and left[3].startswith('tokens_001.npy.') and left[3].endswith('.partial')
    first = (out / 'tokens_000.npy').stat().st_mtime_ns
    python('tools/extract_tokens.py', pretrain_config, *options)
    assert (out / 'tokens_000.npy').stat().st_mtime_ns == first
    assert contents(out) == contents(extracted)


def test_two_processes(extracted, pretrain_config, many, python, tmp_path):
    out = tmp_path / 'tokens'
    done = python(
        *('-m', 'torch.distributed.run', '--standalone', '--nproc_per_node', 2, '-m', 'mmbeit', 'extract_tokens'),
        *(pretrain_config, out, '--images', many, '--views', 2, '--launcher', 'pytorch'),
    )
    assert contents(out) == contents(extracted)
    assert 'tokens of 2 views of 150 images' in done.stdout


def test_centre_of_any_size(pretrain_config, many, tool, tmp_path, capsys):
    tool('extract_tokens', pretrain_config, tmp_path, '--images', many, '--size', 20)
    assert '5 x 5 tokens of 1 views of 150 images' in capsys.readouterr().out


def test_page_of_the_documentation(extracted, root):
    text = (root / 'docs' / 'tokens.md').read_text()
    names = set(re.findall(r'(?:tokens.py |CONFIG=)(beit\w*\S+)', text))
    assert len(names) == 1 and find_config(names.pop()).is_file()
    code = re.search(r'```python\n(.*?)```', text, re.DOTALL)[1].replace('tokens/photos', str(extracted))
    scope = {}
    exec(code, scope)
    assert scope['ids'].shape == (64, 2, 4, 4)
    assert scope['path'] == 'c2/98.png' and scope['records']['ids'].shape == (2, 4, 4)


def steps(log, work_dir):
    return {line['step']: line for line in log(work_dir)}


@pytest.fixture(scope='module')
def weights(tmp_path_factory, pretrained):
    """To start from: which weights a run draws depends on whether it builds a tokenizer before."""
    return ['--cfg-options', f'load_from={pretrained}/epoch_1.pth']


@pytest.fixture(scope='module')
def trained(tmp_path_factory, pretrain_config, tokens, weights, tool):
    """Work folder of three epochs on stored tokens."""
    work_dir = tmp_path_factory.mktemp('trained')
    tool('train', pretrain_config, '--work-dir', work_dir, '--tokens', tokens, *weights)
    return work_dir


def test_training_is_that_with_the_tokenizer_until_views_come_again(
    trained, pretrain_config, weights, tool, log, tmp_path
):
    tool('train', pretrain_config, '--work-dir', tmp_path, *weights)
    stored, live = steps(log, trained), steps(log, tmp_path)
    assert stored.keys() == live.keys() and len(live) == 3 * STEPS
    for step in live:
        assert (stored[step] == live[step]) == (step <= 2 * STEPS), step


def test_resumed_training_is_identical(trained, pretrain_config, tokens, weights, tool, log, tmp_path):
    options = ['--work-dir', tmp_path, '--tokens', tokens]
    tool('train', pretrain_config, *options, *weights, 'train_cfg.max_epochs=2')
    tool('train', pretrain_config, *options, '--resume')
    resumed, whole = steps(log, tmp_path), steps(log, trained)
    assert {step: resumed[step] for step in whole if step > 2 * STEPS} == {
        step: whole[step] for step in whole if step > 2 * STEPS
    }


def test_what_was_run_can_be_run_again(trained, pretrain_config, weights, tool, log, tmp_path):
    """The config in the work folder says everything, and names no tokenizer."""
    config = trained / pretrain_config.name
    assert 'DVAETokenizer' not in config.read_text()
    tool('train', config, '--work-dir', tmp_path)
    assert steps(log, tmp_path) == steps(log, trained)


@pytest.fixture
def refused(tool, capsys, tmp_path, monkeypatch):
    """Run a tool that has to refuse its input; give the one line that says why."""
    monkeypatch.delenv('MMBEIT_TRACEBACK', raising=False)
    monkeypatch.chdir(tmp_path)

    def run(*args):
        with pytest.raises(SystemExit) as end:
            tool(*args)
        assert end.value.code == 2
        lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith('error: ')]
        assert len(lines) == 1 and len(lines[0]) < 600
        return lines[0]

    return run


def test_tokens_that_do_not_belong_to_the_run_are_refused(pretrain_config, tokens, extracted, refused, tmp_path):
    def refuse(*options, folder=tokens):
        return refused('train', pretrain_config, '--tokens', folder, *options)

    assert 'no tokens in nowhere' in refuse(folder='nowhere')
    line = refuse(folder=extracted)
    assert 'train_dataloader: ' in line
    assert f'{extracted} holds tokens of other images: image 0 is c0/0.png there' in line
    line = refuse('--cfg-options', 'train_dataloader.dataset.pipeline.4.size=64')
    assert f'{tokens} holds other tokens: pipeline.3.size is 32 there and 64 here' in line
    line = refuse('--cfg-options', 'train_dataloader.dataset.data_prefix=val')
    assert 'holds tokens of other images' in line
    other = randomize(DVAETokenizer(num_codes=16, width=8, num_groups=3, num_blocks=1))
    torch.save(dict(state_dict=other.state_dict()), tmp_path / 'other.pth')
    line = refuse('--cfg-options', f'model.target_generator.init_cfg.checkpoint={tmp_path}/other.pth')
    assert f'{tokens} holds other tokens: tokenizer.sha256 is ' in line


def test_bad_input_of_extraction_is_refused(pretrain_config, finetune_config, tokens, refused, tmp_path):
    def refuse(*options, config=pretrain_config, out='out'):
        line = refused('extract_tokens', config, out, *options)
        assert not (tmp_path / 'out').exists()
        return line

    assert 'no such folder: nowhere' in refuse('--images', 'nowhere')
    assert 'views is 2 there and 3 here; to extract these, name another folder' in refuse('--views', 3, out=tokens)
    assert 'views (0) is not at least 1' in refuse('--views', 0)
    assert 'no such checkpoint: none.pth' in refuse(
        '--cfg-options', 'model.target_generator.init_cfg.checkpoint=none.pth'
    )
    assert 'did you mean target_generator' in refuse('--cfg-options', 'model.target_generater.width=8')
    assert 'mmbeit.BlockwiseMask' in refuse(config=finetune_config)


def test_a_size_of_random_views_is_refused(pretrain_config, tool, tmp_path, capsys):
    with pytest.raises(SystemExit, match='2'):
        tool('extract_tokens', pretrain_config, tmp_path, '--views', 2, '--size', 32)
    assert 'the recipe says the size of random views' in capsys.readouterr().err
