"""Checkpoints of any format, wherever a tool takes one; and those that are wrong, or want to do harm."""

import mmengine
import pytest
import torch
from test_checkpoint.test_load import ATTACKS

from mmbeit.checkpoint.formats import from_ours
from mmbeit.checkpoint.load import read_checkpoint
from mmbeit.checkpoint.mmengine_loader import RUNNER_GLOBALS


@pytest.fixture
def config(finetune_config, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv('MMBEIT_TRACEBACK', raising=False)
    return finetune_config


@pytest.fixture(scope='module')
def state(finetuned):
    """The weights of a fine-tuned model, under our names."""
    return read_checkpoint(finetuned / 'epoch_3.pth', allowed=RUNNER_GLOBALS)['state_dict']


@pytest.mark.parametrize('format', ['official', 'timm', 'hf', 'mmpretrain'])
def test_evaluation_of_a_file_of_any_format(format, state, tool, config, tmp_path):
    """Scores of every image, not the accuracy: on random images a few weights more or less do not change that."""
    torch.save(from_ours(state, format)[0], tmp_path / 'theirs.pth')
    torch.save({'state_dict': state}, tmp_path / 'ours.pth')
    scores = {}
    for name in ('theirs', 'ours'):
        out = tmp_path / f'{name}.pkl'
        tool(
            'test', config, tmp_path / f'{name}.pth', '--work-dir', tmp_path / name, '--out', out, '--out-item', 'pred'
        )
        scores[name] = torch.stack([sample['pred_score'] for sample in mmengine.load(out)])
    assert torch.equal(scores['theirs'], scores['ours'])
    assert scores['ours'].std(dim=0).min() > 0


@pytest.mark.parametrize('format', ['official', 'hf', 'mmpretrain'])
def test_training_that_starts_from_a_file_of_any_format(format, state, tool, config, tmp_path):
    """One epoch at a rate of zero: what is saved is what was loaded; a head of other classes is drawn anew."""
    theirs, _ = from_ours(state, format)
    torch.save(theirs, tmp_path / 'theirs.pth')
    options = ['model.backbone.init_cfg=None', 'train_cfg.max_epochs=1', 'optim_wrapper.optimizer.lr=0']
    for classes in (6, 7):
        heads = ['data_preprocessor.num_classes=7', 'model.head.num_classes=7'] if classes == 7 else []
        work = tmp_path / str(classes)
        args = (*options, *heads, f'load_from={tmp_path}/theirs.pth', 'custom_hooks=[]', 'val_cfg=None')
        args = (*args, 'val_dataloader=None', 'val_evaluator=None')
        tool('train', config, '--work-dir', work, '--cfg-options', *args)
        saved = read_checkpoint(work / 'epoch_1.pth', allowed=RUNNER_GLOBALS)['state_dict']
        for key, value in state.items():
            if not key.startswith('head.') or classes == 6:
                assert torch.equal(saved[key], value), key
        out = next(work.glob('*/*.log')).read_text()
        said = [line for line in out.splitlines() if 'is not loaded' in line]
        assert len(said) == (classes == 7)
        if said:
            assert said[0].endswith(
                'theirs.pth: head is not loaded, its head.fc.weight is (6, 24), that of the model (7, 24)'
            )


@pytest.fixture
def refused(tool, capsys):
    def run(name, *args):
        with pytest.raises(SystemExit):
            tool(name, *args)
        out, err = capsys.readouterr()
        assert 'Traceback' not in out + err
        (line,) = [line for line in err.splitlines() if line.startswith('error: ')]
        return line

    return run


WRONG = {
    'classes': (['model.head.num_classes=7'], 'it has no head.fc.weight, head.fc.bias; its head is of another shape'),
    'blocks': (['model.backbone.arch.num_layers=3'], 'do not fit this backbone: 16 missing: blocks.2.attn'),
    'pooling': (['model.backbone.final_norm=True'], 'it has no backbone.norm.weight, backbone.norm.bias'),
}


@pytest.mark.parametrize(('options', 'said'), WRONG.values(), ids=WRONG)
def test_evaluation_of_another_model_is_refused(options, said, config, finetuned, refused):
    line = refused('test', config, finetuned / 'epoch_3.pth', '--cfg-options', *options)
    assert str(finetuned / 'epoch_3.pth') in line and said in line


def test_evaluation_of_a_pretrained_model_is_refused(config, pretrained, refused):
    line = refused('test', config, pretrained / 'epoch_3.pth')
    assert 'it has no backbone.fc_norm.weight' in line and 'its head is of another shape' in line


def test_training_from_another_model_is_refused(config, pretrained, refused):
    for key in ('load_from', 'model.backbone.init_cfg.checkpoint'):
        options = [f'{key}={pretrained}/epoch_3.pth', 'model.backbone.arch.num_layers=3']
        line = refused('train', config, '--cfg-options', *options)
        assert f'{pretrained}/epoch_3.pth: the weights do not fit this backbone: 15 missing: blocks.2.' in line


@pytest.mark.filterwarnings('ignore:.*source code')
@pytest.mark.parametrize('attack', ATTACKS.values(), ids=ATTACKS)
def test_no_tool_executes_anything_of_a_file(attack, config, refused, tmp_path):
    marker, path = tmp_path / 'executed', tmp_path / 'hostile.pth'
    torch.save({'state_dict': {'x': attack(f'touch {marker}')}}, path)
    torch.load(path, weights_only=False)
    assert marker.exists()  # it is hostile
    marker.unlink()
    for args in (
        ('test', config, path),
        ('train', config, '--resume', path),
        ('train', config, '--cfg-options', f'load_from={path}'),
        ('train', config, '--cfg-options', f'model.backbone.init_cfg.checkpoint={path}'),
    ):
        assert 'Nothing in it was executed' in refused(*args)
        assert not marker.exists()
