"""Overrides of the places of files."""

import argparse

from test_configs.recipes import PATHS

from mmbeit.engine.config import load_config, move


def test_a_place_takes_everything_below_it_along():
    cfg = dict(a='data/coco', b=['data/coco/x.json', dict(c='data/coco2', d=3)], e=('data/cocoa/x', None))
    assert move(cfg, 'data/coco', '/mnt') == dict(
        a='/mnt', b=['/mnt/x.json', dict(c='data/coco2', d=3)], e=('data/cocoa/x', None)
    )


def test_one_override_reaches_every_copy():
    name = 'beit3-base-p16_beit3-pre_8xb16-coslr-10e_vqav2-480px'
    options = {'data_root': '/mnt/vqa', 'tokenizer': 'own.spm', 'optim_wrapper.optimizer.lr': 1.0}
    args = argparse.Namespace(
        config=str(PATHS[name]), cfg_options=options, launcher='none', work_dir=None, local_rank=0
    )
    cfg = load_config(args)
    text = cfg.pretty_text
    assert 'data/vqav2' not in text and 'beit3.spm' not in text
    assert cfg.train_dataloader.dataset.datasets[1].data_root == cfg.test_dataloader.dataset.data_root == '/mnt/vqa'
    assert cfg.model.head.answers == cfg.answers == '/mnt/vqa/answer2label.txt'
    for pipeline in (cfg.train_dataloader.dataset.datasets[0].pipeline, cfg.test_dataloader.dataset.pipeline):
        assert [step.tokenizer for step in pipeline if step.type == 'mmbeit.TokenizeText'] == ['own.spm']
    assert cfg.optim_wrapper.optimizer.lr == 1.0
