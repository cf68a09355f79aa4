"""A published recipe of segmentation, shrunk, through the tools."""

import json
import re
import socket

import numpy as np
import pytest
import torch
from mmengine.fileio import load
from scenes import write_scene

from mmbeit.checkpoint.mmengine_loader import load_from_local

pytest.importorskip('mmseg', reason='needs onedl-mmsegmentation, the extra `seg`')

# Nothing is drawn in a step, and no norm or optimizer makes a small difference large.
EXACT = """
_base_ = '{config}'
model = dict(
    backbone=dict(drop_path_rate=0.0), decode_head=dict(dropout_ratio=0.0), auxiliary_head=dict(dropout_ratio=0.0)
)
optim_wrapper = dict(optimizer=dict(_delete_=True, type='SGD', lr=0.1, weight_decay=0.05))
"""


@pytest.fixture(scope='module')
def config(segmentation_config):
    return segmentation_config


@pytest.fixture(scope='module')
def trained(tmp_path_factory, config, tool):
    """Work folder of six steps without an interruption."""
    work_dir = tmp_path_factory.mktemp('trained')
    tool('train', config, '--work-dir', work_dir)
    return work_dir


def last(log, work_dir, key):
    return [line for line in log(work_dir) if key in line][-1]


def test_training_logs_losses_and_the_mean_iou(trained, log):
    losses = [line for line in log(trained) if 'loss' in line]
    assert [line['step'] for line in losses] == [1, 2, 3, 4, 5, 6]
    for line in losses:
        assert line['loss'] == pytest.approx(line['decode.loss_ce'] + line['aux.loss_ce'], rel=1e-3)
    assert len([line for line in log(trained) if 'mIoU' in line]) == 2
    assert sorted(path.name for path in trained.glob('*.pth')) == ['iter_3.pth', 'iter_6.pth']


def test_resumed_run_is_identical(config, trained, tool, log, tmp_path):
    tool('train', config, '--work-dir', tmp_path, '--cfg-options', 'train_cfg.max_iters=3')
    tool('train', config, '--work-dir', tmp_path, '--resume')
    assert log(tmp_path)[-4:] == log(trained)[-4:]
    ours, theirs = (load_from_local(str(folder / 'iter_6.pth'))['state_dict'] for folder in (tmp_path, trained))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)


def test_evaluation_gives_the_mean_iou_of_training(config, trained, tool, log, tmp_path):
    out = tmp_path / 'metrics.json'
    tool('test', config, trained / 'iter_6.pth', '--work-dir', tmp_path, '--out', out)
    expected = last(log, trained, 'mIoU')
    assert json.loads(out.read_text()) == {key: expected[key] for key in ('aAcc', 'mIoU', 'mAcc')}


@pytest.mark.parametrize('mode', ['slide', 'whole'])
def test_evaluation_at_six_sizes_averages_the_probabilities(mode, config, trained, tool, tmp_path):
    from mmengine.config import Config
    from mmengine.registry import DATASETS, DefaultScope

    from mmbeit.apis.model import get_model

    out = tmp_path / 'predictions.pkl'
    options = ('--cfg-options', f'model.test_cfg.mode={mode}', '--work-dir', tmp_path)
    tool('test', config, trained / 'iter_6.pth', '--tta', '--out', out, *options)
    found = load(out)
    cfg = Config.fromfile(config)
    cfg.model.test_cfg.mode = mode
    model = get_model(cfg, pretrained=str(trained / 'iter_6.pth'))
    with DefaultScope.overwrite_default_scope('mmseg'):
        scenes = DATASETS.build(dict(cfg.test_dataloader.dataset, pipeline=cfg.tta_pipeline))
        for scene, prediction in zip(scenes, found, strict=True):
            probabilities = []
            for inputs, sample in zip(scene['inputs'], scene['data_samples'], strict=True):
                with torch.no_grad():
                    (result,) = model.test_step(dict(inputs=[inputs], data_samples=[sample]))
                probabilities.append(result.seg_logits.data.softmax(dim=0))
            assert len(probabilities) == 12
            mean = torch.stack(probabilities).mean(dim=0)
            # Where two classes are as good as equally probable, rounding decides.
            clear = mean.topk(2, dim=0).values.diff(dim=0).abs()[0] > 1e-6
            assert torch.equal(mean.argmax(dim=0)[clear], prediction['pred_sem_seg']['data'][0][clear])
            assert clear.float().mean() > 0.9


def test_evaluation_at_six_sizes_needs_them_in_the_config(finetune_config, finetuned, tool, capsys, tmp_path):
    with pytest.raises(SystemExit, match='2'):
        tool('test', finetune_config, finetuned / 'epoch_3.pth', '--tta', '--work-dir', tmp_path)
    line = capsys.readouterr().err.splitlines()[-1]
    assert f'--tta: {finetune_config} has no tta_model and no tta_pipeline' in line


# ---- two processes ----


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(('127.0.0.1', 0))
        return sock.getsockname()[1]


def test_two_processes_train_and_validate_as_one_with_all_images(config, command, tool, log, tmp_path):
    """With SyncBN, which a recipe has and PyTorch has for GPUs only."""
    exact = tmp_path / 'exact.py'
    exact.write_text(EXACT.format(config=config))
    tool('train', exact, '--work-dir', tmp_path / 'one')
    options = ('--work-dir', tmp_path / 'two', '--cfg-options', 'train_dataloader.batch_size=2')
    command('bash', 'tools/dist_train.sh', exact, 2, *options, PORT=free_port())
    one, two = (load_from_local(str(tmp_path / name / 'iter_6.pth'))['state_dict'] for name in ('one', 'two'))
    assert one.keys() == two.keys()
    for key in one:
        torch.testing.assert_close(two[key], one[key], rtol=1e-4, atol=1e-5, msg=lambda text, key=key: f'{key}: {text}')
    first, second = (last(log, tmp_path / name, 'mIoU') for name in ('one', 'two'))
    assert {key: first[key] for key in ('aAcc', 'mIoU')} == pytest.approx(
        {key: second[key] for key in ('aAcc', 'mIoU')}, abs=0.5
    )
    command(
        *('bash', 'tools/dist_test.sh', exact, tmp_path / 'two' / 'iter_6.pth', 2),
        *('--work-dir', tmp_path / 'test', '--out', tmp_path / 'two.json'),
        PORT=free_port(),
    )
    found = json.loads((tmp_path / 'two.json').read_text())
    assert found == {key: second[key] for key in ('aAcc', 'mIoU', 'mAcc')}


# ---- bad input ----

BAD = {
    'labels.png are 5 x 60': (np.zeros((40, 60, 3), np.uint8), np.ones((5, 60), np.uint8)),
    'labels.png contain 151': (np.zeros((40, 60, 3), np.uint8), np.full((40, 60), 151, np.uint8)),
    'cannot read labels .*labels.png': (np.zeros((40, 60, 3), np.uint8), b'not a picture'),
    'cannot read image .*labels.jpg': (b'', np.ones((40, 60), np.uint8)),
}


@pytest.mark.parametrize('line', BAD)
def test_what_is_wrong_with_the_data_is_said_with_the_name_of_the_file(line, config, tool, tmp_path):
    write_scene(tmp_path / 'bad', 'labels', *BAD[line])
    options = [f'train_dataloader.dataset.data_root={tmp_path}/bad', 'val_dataloader=None', 'val_cfg=None']
    options += ['val_evaluator=None', 'test_dataloader=None', 'test_cfg=None', 'test_evaluator=None']
    with pytest.raises(ValueError) as error:
        tool('train', config, '--work-dir', tmp_path / 'run', '--cfg-options', *options)
    assert re.search(line, str(error.value)) and '\n' not in str(error.value)
