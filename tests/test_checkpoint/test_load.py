import os
import pickle
import runpy
import sys
from collections import OrderedDict
from functools import partial

import numpy as np
import pytest
import torch
from builders import TINY, tiny_backbone_cfg, tiny_beit
from mmengine.logging import HistoryBuffer, MessageHub
from mmengine.registry import MODELS
from mmengine.runner import CheckpointLoader
from torch import nn

import mmbeit
from mmbeit.checkpoint.load import CheckpointError, Shell, read_checkpoint
from mmbeit.checkpoint.weights import load_into, load_state
from mmbeit.models import DVAETokenizer
from mmbeit.resources import resource_root


@pytest.fixture(params=[True, False], ids=['zip', 'legacy'])
def save(request, tmp_path):
    """Write an object in one of torch's two file formats."""

    def write(content, name='checkpoint.pth'):
        torch.save(content, tmp_path / name, _use_new_zipfile_serialization=request.param)
        return tmp_path / name

    return write


def load_by_mmengine(path):
    CheckpointLoader.load_checkpoint(str(path))


def load_as_pretrained(path):
    init_cfg = dict(type='Pretrained', checkpoint=str(path))
    MODELS.build(tiny_backbone_cfg(init_cfg=init_cfg)).init_weights()


def load_as_tokenizer(path):
    DVAETokenizer(16, 8, 1, 1, init_cfg=dict(type='Pretrained', checkpoint=str(path))).init_weights()


def load_by_name(path):
    mmbeit.get_model('beit-mini-p4_1xb50-coslr-200e_digits', pretrained=path)


def convert(path):
    """The tool raises as usual, where this variable is set, and not only prints."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('MMBEIT_TRACEBACK', '1')
        tool = runpy.run_path(str(resource_root() / 'tools' / 'convert_checkpoint.py'))
        tool['main']([str(path), f'{path}.out', '--to', 'timm'])


READERS = [
    read_checkpoint,
    load_state,
    partial(load_into, tiny_beit()),
    load_by_mmengine,
    load_as_pretrained,
    load_as_tokenizer,
    load_by_name,
    convert,
]
IDS = [
    'read_checkpoint',
    'load_state',
    'load_into',
    'CheckpointLoader',
    'Pretrained',
    'tokenizer',
    'get_model',
    'convert_checkpoint',
]


# ---- what is read ----


def test_checkpoint_of_a_runner_is_read_with_its_logs(save):
    model = tiny_beit()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    model(torch.randn(1, 3, 32, 32))[-1].sum().backward()
    optimizer.step()
    hub = MessageHub('a run')
    for loss in (3.0, 2.0, np.float32(1.0)):
        hub.update_scalar('train/loss', loss)
    hub.update_info('iter', 3)
    path = save(
        dict(
            meta=dict(epoch=1, iter=3, cfg='a = 1', seed=0, experiment_name='run', time='20260101_000000'),
            state_dict=model.state_dict(),
            message_hub=hub.state_dict(),
            optimizer=optimizer.state_dict(),
            param_schedulers=[dict(begin=0, last_step=3, _global_step=4, base_values=[np.float64(0.1)])],
        )
    )
    content = CheckpointLoader.load_checkpoint(str(path), map_location='cpu')
    log = content['message_hub']['log_scalars']['train/loss']
    assert isinstance(log, HistoryBuffer)
    assert log.data[0].tolist() == [3, 2, 1] and log.mean(2) == 1.5 and log.statistics('min') == 1
    assert content['message_hub']['runtime_info']['iter'] == 3
    assert content['param_schedulers'][0]['base_values'] == [0.1]
    restored = tiny_beit(arch=dict(TINY))
    restored.load_state_dict(content['state_dict'])
    optimizer.load_state_dict(content['optimizer'])
    x = torch.randn(1, 3, 32, 32)
    assert torch.equal(restored(x)[-1], model(x)[-1])


def test_logs_need_the_loader_of_mmengine(save):
    """Reading itself knows tensors and plain values; the loader adds the one class that a Runner writes."""
    path = save(dict(log=HistoryBuffer([1.0], [1])))
    with pytest.raises(CheckpointError, match='it names mmengine.logging.history_buffer.HistoryBuffer'):
        read_checkpoint(path)


def test_numpy_arrays_and_scalars_are_read(save):
    values = dict(array=np.arange(6, dtype=np.float32).reshape(2, 3), scalar=np.float64(0.5), flag=np.bool_(True))
    content = read_checkpoint(save(values))
    assert np.array_equal(content['array'], values['array']) and content['array'].dtype == np.float32
    assert content['scalar'] == 0.5 and content['flag']


def test_a_file_in_the_home_folder_is_found(save, monkeypatch):
    path = save({'a': torch.ones(2)})
    monkeypatch.setenv('HOME', str(path.parent))
    assert torch.equal(read_checkpoint(f'~/{path.name}')['a'], torch.ones(2))


def test_a_url_is_downloaded_and_read_alike(save, monkeypatch, tmp_path):
    monkeypatch.setenv('MMBEIT_CACHE', str(tmp_path))
    path = save({'a': torch.ones(2)})
    for scheme in ('https', 'http'):  # it is in the cache
        content = CheckpointLoader.load_checkpoint(f'{scheme}://example.com/{path.name}?token=1')
        assert torch.equal(content['a'], torch.ones(2))


# ---- what is refused ----


class Call:
    """Pickles as a call of a function, itself possibly the result of a call."""

    def __init__(self, function, *args):
        self.call = function, args

    def __call__(self):
        raise AssertionError('only there to be pickled')

    def __reduce__(self):
        return self.call


def call_system(command):
    return Call(os.system, command)


def call_by_getattr(command, method):
    """From a method of a class that the loader allows to every builtin."""
    scope = Call(getattr, Call(getattr, HistoryBuffer, method), '__builtins__')
    return Call(Call(Call(getattr, scope, 'get'), 'eval'), f'__import__("os").system({command!r})')


def call_within_a_module(command):
    module = nn.Sequential(nn.ReLU())
    module.extra = call_system(command)
    return module


ATTACKS = {
    'system': call_system,
    'getattr': partial(call_by_getattr, method='__init__'),
    'getattr of an allowed method': partial(call_by_getattr, method='mean'),
    'module': call_within_a_module,
}


@pytest.mark.filterwarnings('ignore:.*source code')
@pytest.mark.parametrize('attack', ATTACKS.values(), ids=ATTACKS)
@pytest.mark.parametrize('read', READERS, ids=IDS)
def test_nothing_in_a_hostile_file_is_executed(save, tmp_path, attack, read):
    marker = tmp_path / 'executed'
    path = save({'state_dict': {'x': attack(f'touch {marker}')}})
    torch.load(path, weights_only=False)
    assert marker.exists()  # it is hostile
    marker.unlink()
    with pytest.raises(CheckpointError) as error:
        read(path)
    assert not marker.exists()
    assert str(path) in str(error.value) and '\n' not in str(error.value)
    assert 'Nothing in it was executed' in str(error.value)


@pytest.mark.parametrize(('owner', 'name'), [(HistoryBuffer, '__init__'), (torch.Tensor, 'mean')])
def test_a_file_reaches_four_methods_of_the_logs_and_no_other_attribute(save, owner, name):
    with pytest.raises(CheckpointError, match=f"attribute '{name}' refused"):
        load_by_mmengine(save(Call(getattr, owner, name)))


def legacy_file(path, body):
    """A file of the legacy format around a hand-written pickle."""
    parts = (torch.serialization.MAGIC_NUMBER, torch.serialization.PROTOCOL_VERSION, dict(little_endian=True))
    path.write_bytes(b''.join(pickle.dumps(part, 2) for part in parts) + body + pickle.dumps([], 2))
    return path


def test_a_file_cannot_change_the_classes_that_it_names(tmp_path):
    """torch writes a file into the working folder for a class with `dump_patches`."""
    state = pickle.dumps((None, {'dump_patches': True}), 2)[2:-1]
    body = b'\x80\x02cdall_e.encoder\nEncoder\n' + state + b'b.'
    with pytest.raises(CheckpointError):
        read_checkpoint(legacy_file(tmp_path / 'encoder.pkl', body))
    assert Shell.dump_patches is False
    assert not any('dump_patches' in vars(cls) for cls in Shell.__subclasses__())


def test_the_name_that_a_file_was_refused_for_is_told(save):
    name = 'nt.system' if sys.platform == 'win32' else 'posix.system'
    with pytest.raises(CheckpointError, match=f'it names {name}, where a checkpoint holds tensors and plain values'):
        read_checkpoint(save(Call(os.system, 'true')))


def damaged(save, kind):
    path = save({'state_dict': OrderedDict(weight=torch.randn(50, 50))})
    whole = path.read_bytes()
    contents = {
        'empty': b'',
        'text': b'<html>404: Not Found</html>\n',
        'one byte': whole[:1],
        'start': whole[:40],
        'half': whole[: len(whole) // 2],
        'all but the end': whole[:-5],
    }
    if kind == 'missing':
        path.unlink()
    else:
        path.write_bytes(contents[kind])
    return path


@pytest.mark.parametrize('kind', ['empty', 'text', 'one byte', 'start', 'half', 'all but the end', 'missing'])
@pytest.mark.parametrize('read', READERS, ids=IDS)
def test_a_damaged_file_gives_one_line_that_names_it(save, kind, read):
    path = damaged(save, kind)
    expected = FileNotFoundError if kind == 'missing' else CheckpointError
    with pytest.raises(expected) as error:
        read(path)
    message = str(error.value)
    assert str(path) in message and '\n' not in message and len(message) < len(str(path)) + 250
    reason = {'missing': 'no such checkpoint', 'empty': 'is empty'}.get(kind, 'cannot read')
    assert reason in message
