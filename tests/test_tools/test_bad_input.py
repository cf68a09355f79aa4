"""Whatever is wrong with what a user gives to the tools is said in one line, with status 2 and no traceback."""

import pytest
import torch

from mmbeit.models import BEiT


@pytest.fixture
def refused(tool, capsys, tmp_path):
    """Run a tool that has to refuse its input; give the one line that says why."""

    def run(name: str, *args: object) -> str:
        with pytest.raises(SystemExit) as end:
            tool(name, *args)
        assert end.value.code == 2
        out, err = capsys.readouterr()
        assert 'Traceback' not in out + err
        lines = [line for line in err.splitlines() if line.startswith('error: ')]
        assert len(lines) == 1
        assert err.splitlines()[-1] == lines[0]
        assert len(lines[0]) < 600
        return lines[0]

    return run


@pytest.fixture
def config(finetune_config, tmp_path, monkeypatch):
    """Arguments of both tools: the tiny fine-tuning recipe, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv('MMBEIT_TRACEBACK', raising=False)
    return finetune_config


@pytest.fixture
def checkpoint(finetuned):
    return finetuned / 'epoch_3.pth'


@pytest.fixture(params=['train', 'test'])
def both(request, config, checkpoint):
    """Name and first arguments of each tool."""
    return [request.param, config] if request.param == 'train' else [request.param, config, checkpoint]


OVERRIDES = {
    'train_confg.max_epochs=2': ("'train_confg.max_epochs'", 'did you mean train_cfg'),
    'model.backbon.drop_path_rate=0.1': ("model has no 'backbon'", 'did you mean backbone'),
    'model.backbone.neck.depth=1': ("model.backbone has no 'neck'", 'it has'),
    'param_scheduler.2.end=5': ("param_scheduler has no '2'", 'it has 0, 1'),
    'model.type.x=1': ("model.type has no 'x'", "it is 'ImageClassifier'"),
    'max_epochs=5': ("overriding 'max_epochs' has no effect", 'train_cfg.max_epochs'),
    'test_pipeline.0.type=X': ("overriding 'test_pipeline.0.type' has no effect", 'val_dataloader.dataset.pipeline'),
    'model.backbone.type=mmbeit.BEIT': ("unknown type 'mmbeit.BEIT'", 'mmbeit.BEiT'),
    'model.backbone.type=mmbiet.BEiT': ("unknown type 'mmbiet.BEiT'", 'mmbeit.BEiT'),
    'model.type=ImageClasifier': ("unknown type 'ImageClasifier'", 'did you mean ImageClassifier'),
    'model.backbone.depth=3': ('BEiT', "'depth'"),
    'model.backbone.arch.depth=3': ("'depth'", 'num_layers'),
    'LOADER.dataset.type=CustomDatset': ("unknown type 'CustomDatset'", 'CustomDataset'),
    'LOADER.dataset.typo=1': ('typo',),
    'custom_hooks.0.type=StepSeedHook': ("unknown type 'StepSeedHook'", 'mmbeit.StepSeedHook'),
    'default_hooks.logger.intervall=1': ('intervall',),
}
TRAIN_OVERRIDES = {
    'optim_wrapper.optimizer.type=AdamWW': ("unknown type 'AdamWW'", 'AdamW'),
    'optim_wrapper.optimizer.learning_rate=1': ("'learning_rate'",),
    'optim_wrapper.paramwise_cfg.layer_decay=0.5': ('layer_decay',),
    'param_scheduler.0.begining=0': ("'begining'",),
    'train_dataloader.sampler.type=mmbeit.SeedSampler': ("unknown type 'mmbeit.SeedSampler'", 'mmbeit.SeededSampler'),
    'train_dataloader.batchsize=2': ('batchsize',),
    'train_dataloader.dataset.pipeline.2.size=5': ("'size'",),
    'load_from=none.pth': ('no such checkpoint: none.pth', 'load_from'),
    'model.backbone.init_cfg.checkpoint=none.pth': ('none.pth', 'model.backbone.init_cfg.checkpoint'),
}


@pytest.mark.parametrize('option', OVERRIDES)
def test_override(option, both, refused):
    own = option.replace('LOADER', 'val_dataloader' if both[0] == 'train' else 'test_dataloader')
    line = refused(*both, '--cfg-options', own)
    for part in OVERRIDES[option]:
        assert part in line


@pytest.mark.parametrize('option', TRAIN_OVERRIDES)
def test_override_of_training(option, config, refused):
    line = refused('train', config, '--cfg-options', option)
    for part in TRAIN_OVERRIDES[option]:
        assert part in line


@pytest.mark.parametrize('option', ['load_from', 'model.backbone.out_indices=[0,1'])
def test_override_that_is_none(option, both, tool, capsys):
    with pytest.raises(SystemExit, match='2'):
        tool(*both, '--cfg-options', option)
    last = capsys.readouterr().err.splitlines()[-1]
    assert 'error: --cfg-options' in last
    assert option.partition('=')[2] in last


def test_missing_config(both, refused):
    name, _, *rest = both
    line = refused(name, 'configs/beit/beit_beit-base-p16_8xb256-amp-coslr-301e_in1k.py', *rest)
    assert '301e_in1k.py' in line
    assert 'did you mean beit_beit-base-p16_8xb256-amp-coslr-300e_in1k' in line


def test_config_with_a_syntax_error(both, refused, tmp_path):
    name, _, *rest = both
    (tmp_path / 'broken.py').write_text('model = dict(\n')
    line = refused(name, tmp_path / 'broken.py', *rest)
    assert 'broken.py' in line
    assert 'syntax error' in line


def test_config_with_a_missing_base(both, refused, tmp_path):
    name, _, *rest = both
    (tmp_path / 'child.py').write_text("_base_ = 'nobody.py'\n")
    assert 'nobody.py' in refused(name, tmp_path / 'child.py', *rest)


def test_config_without_a_model(both, refused, tmp_path):
    name, _, *rest = both
    (tmp_path / 'empty.py').write_text('test_dataloader = test_evaluator = test_cfg = dict()\n')
    assert 'has no model' in refused(name, tmp_path / 'empty.py', *rest)


def test_data_folders(both, refused, tmp_path):
    loader = 'train_dataloader' if both[0] == 'train' else 'test_dataloader'
    option = f'{loader}.dataset.data_root={tmp_path}/images'
    line = refused(*both, '--cfg-options', option)
    assert f'no such folder: {tmp_path}/images/' in line
    assert f'named by {loader}.dataset' in line
    for split in ('train', 'val'):
        (tmp_path / 'images' / split).mkdir(parents=True)
    assert f'empty folder: {tmp_path}/images/' in refused(*both, '--cfg-options', option)
    for split in ('train', 'val'):
        (tmp_path / 'images' / split / 'class_0').mkdir()
    line = refused(*both, '--cfg-options', option)
    assert f'{loader}: ' in line
    assert f'{tmp_path}/images/' in line
    line = refused(*both, '--cfg-options', f'{loader}.dataset.ann_file=lists/none.txt')
    assert 'lists/none.txt' in line
    assert 'ann_file' in line


def test_checkpoint_to_evaluate(config, checkpoint, refused, tmp_path):
    line = refused('test', config, checkpoint.with_name('epoch_4.pth'))
    assert f'no such checkpoint: {checkpoint.with_name("epoch_4.pth")}' in line
    assert 'epoch_3.pth' in line
    whole = checkpoint.read_bytes()
    for name, content in {'cut.pth': whole[: len(whole) // 2], 'no.pth': b'?' * 9999, 'empty.pth': b''}.items():
        (tmp_path / name).write_bytes(content)
        assert str(tmp_path / name) in refused('test', config, tmp_path / name)


def test_checkpoint_to_start_from(config, checkpoint, refused, tmp_path):
    (tmp_path / 'cut.pth').write_bytes(checkpoint.read_bytes()[:5000])
    for key in ('load_from', 'model.backbone.init_cfg.checkpoint'):
        assert str(tmp_path / 'cut.pth') in refused('train', config, '--cfg-options', f'{key}={tmp_path}/cut.pth')


def test_tokenizer_that_does_not_fit(pretrain_config, refused, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    line = refused('train', pretrain_config, '--cfg-options', 'model.target_generator.num_codes=32')
    assert 'tokenizer.pth' in line


def test_checkpoint_to_resume_from(config, checkpoint, refused, tmp_path):
    line = refused('train', config, '--resume', 'none.pth')
    assert 'no such checkpoint: none.pth, named by --resume' in line
    (tmp_path / 'epoch_1.pth').write_bytes(checkpoint.read_bytes()[:5000])
    assert 'epoch_1.pth' in refused('train', config, '--resume', tmp_path / 'epoch_1.pth')
    line = refused('train', config, '--resume', '--work-dir', tmp_path)
    assert f'no checkpoint of {tmp_path} is complete' in line


def test_resuming_from_weights_alone(config, refused, pretrained, tmp_path):
    torch.save(dict(state_dict={}), tmp_path / 'weights.pth')
    line = refused('train', config, '--resume', tmp_path / 'weights.pth')
    assert 'weights.pth' in line


@pytest.mark.parametrize(
    'args', [('--out', 'result.txt'), ('--out', 'result.json', '--out-item', 'pred'), ('--out-item', 'pred')]
)
def test_where_results_go(args, config, checkpoint, refused):
    line = refused('test', config, checkpoint, *args)
    assert '--out' in line
    assert args[1] in line or 'no --out' in line


def test_scaling_without_a_base(config, refused, tmp_path):
    (tmp_path / 'no_base.py').write_text(f"_base_ = '{config}'\nauto_scale_lr = None\n")
    assert 'auto_scale_lr' in refused('train', tmp_path / 'no_base.py', '--auto-scale-lr')


@pytest.mark.parametrize('args', [('train.py', 'nothing'), ('test.py', 'nothing', 'none.pth')])
def test_as_a_process(args, root, python, tmp_path):
    done = python(root / 'tools' / args[0], *args[1:], cwd=tmp_path, check=False)
    assert done.returncode == 2
    assert 'Traceback' not in done.stdout + done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith("error: no config 'nothing': expected a file, or the name of a config or model of mmbeit")


def test_traceback_on_request(config, tool, monkeypatch):
    monkeypatch.setenv('MMBEIT_TRACEBACK', '1')
    with pytest.raises(FileNotFoundError):
        tool('train', 'nothing')


def test_a_bug_in_training_keeps_its_traceback(config, tool, monkeypatch, tmp_path):
    monkeypatch.setattr(BEiT, 'forward', lambda *args, **kwargs: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        tool('train', config, '--work-dir', tmp_path)
