"""`--attention` of the tools, and what they say of the kernels that ran."""

import re

import pytest


def kernels(folder):
    """What the log says of each part of a run."""
    text = next(folder.glob('*/*.log')).read_text()
    return dict(re.findall(r'Attention kernels \((\w+)\), and in how many blocks: (.+)', text))


@pytest.mark.parametrize(
    ('wanted', 'training', 'evaluation'),
    [('auto', 'own', 'whole'), ('whole', 'whole', 'whole'), ('rows', 'own', 'rows')],
)
def test_a_run_says_which_kernels_ran_and_its_losses_are_the_same(
    wanted, training, evaluation, finetune_config, finetuned, tool, log, tmp_path
):
    tool(
        'train',
        finetune_config,
        '--work-dir',
        tmp_path,
        '--attention',
        wanted,
        '--cfg-options',
        'train_cfg.max_epochs=1',
    )
    assert kernels(tmp_path) == {'train': f'{training} 2', 'val': f'{evaluation} 2'}
    found, expected = ([step['loss'] for step in log(folder) if 'loss' in step] for folder in (tmp_path, finetuned))
    assert found == pytest.approx(expected[: len(found)], rel=1e-5) and len(found) > 1


def test_those_of_a_frozen_tokenizer_are_named_and_each_part_once(pretrain_config_v2, tool, tmp_path):
    tool('train', pretrain_config_v2, '--work-dir', tmp_path, '--cfg-options', 'train_cfg.max_epochs=2')
    text = next(tmp_path.glob('*/*.log')).read_text()
    assert kernels(tmp_path) == {'train': 'own 4, whole 1'} and text.count('Attention kernels') == 1


def test_a_test_says_it_too(finetune_config, finetuned, tool, tmp_path):
    tool('test', finetune_config, finetuned / 'epoch_3.pth', '--work-dir', tmp_path, '--attention', 'rows')
    assert kernels(tmp_path) == {'test': 'rows 2'}
