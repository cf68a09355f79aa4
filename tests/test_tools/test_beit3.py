"""Recipes of BEiT-3, shrunk, through tools/train.py and tools/test.py, on tiny data in the official files."""

import importlib.util
import json
import math

import mmengine
import numpy as np
import pytest
import torch
from official_data import CAPTIONS, COLORS, write_karpathy, write_nlvr2, write_nocaps, write_visual_genome, write_vqa

from test_tools.conftest import ROOT, call_tool, logged

pytest.importorskip('sentencepiece')

CHILD = """
_base_ = '{root}/configs/beit3/benchmarks/{recipe}.py'
model = dict(
    backbone=dict(
        arch=dict(_delete_=True, embed_dims=24, num_layers=2, num_heads=3, feedforward_channels=48),
        img_size=32,
        patch_size=8,
        vocab_size={vocab_size},
        with_cp=False,
        init_cfg=None,
    ),
    init_cfg=None,
)
optim_wrapper = dict(type='OptimWrapper')  # float32
_base_.param_scheduler[0].end = _base_.param_scheduler[1].begin = 1
_base_.param_scheduler[1].end = 2
train_cfg = dict(max_epochs=2)
default_hooks = dict(logger=dict(interval=1))
"""
LOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')


@pytest.fixture(scope='module')
def texts(tmp_path_factory):
    """Root of all data, and a text tokenizer of their words."""
    root = tmp_path_factory.mktemp('texts')
    write_vqa(root / 'vqav2')
    write_visual_genome(root / 'vg')
    write_nlvr2(root / 'nlvr2')
    write_karpathy(root / 'coco')
    write_karpathy(root / 'flickr30k', 'dataset_flickr30k.json')
    write_nocaps(root / 'nocaps')
    lines = [caption.format(name) for name in COLORS for caption in CAPTIONS]
    (root / 'texts.txt').write_text(
        '\n'.join([*lines, 'What color is it?', 'Why?', 'Both squares have one color.'] * 3)
    )
    spec = importlib.util.spec_from_file_location('trainer', ROOT / 'tools' / 'train_text_tokenizer.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return root, module.train([root / 'texts.txt'], root / 'own.spm', vocab_size=40, coverage=1.0)


@pytest.fixture
def run(texts, tmp_path):
    """Train a recipe and test the result: what was logged, and the metrics of the test."""
    root, tokenizer = texts

    def both(recipe: str, data: str, *options: str, scales: tuple[str, ...] = (), resize: int = 1) -> tuple[list, dict]:
        config = tmp_path / 'tiny.py'
        config.write_text(CHILD.format(root=ROOT, recipe=recipe, vocab_size=tokenizer.vocab_size))
        options = [f'data_root={root / data}', f'tokenizer={tokenizer.path}', *options]
        for loader in LOADERS:
            options += [f'{loader}.batch_size=4', f'{loader}.num_workers=0', f'{loader}.persistent_workers=False']
        options += [f'train_dataloader.dataset.{place}scale=32' for place in scales or ('pipeline.2.',)]
        options += [f'{loader}.dataset.pipeline.{resize}.scale=(32,32)' for loader in LOADERS[1:] if resize]
        call_tool('train', config, '--work-dir', tmp_path / 'run', '--cfg-options', *options)
        out = tmp_path / 'metrics.json'
        test_options = ['--work-dir', tmp_path / 'test', '--out', out, '--cfg-options', *options]
        call_tool('test', config, tmp_path / 'run' / 'epoch_2.pth', *test_options)
        records = logged(tmp_path / 'run')
        losses = [record['loss'] for record in records if 'loss' in record]
        assert losses and all(map(math.isfinite, losses))
        return records, mmengine.load(out)

    return both


def test_vqa_is_trained_and_writes_its_submission(run, texts, tmp_path):
    root, _ = texts
    records, metrics = run(
        'beit3-base-p16_beit3-pre_8xb16-coslr-10e_vqav2-480px',
        'vqav2',
        'model.head.num_classes=5',
        'train_dataloader.dataset.datasets.1.num_held_out=1',
        'val_dataloader.dataset.num_held_out=1',
        f'test_evaluator.file_path={tmp_path / "answers.json"}',
        scales=('datasets.0.pipeline.2.', 'datasets.1.pipeline.2.'),
    )
    # Of 4 + 3 images one question each can be answered: a whole batch of four an epoch.
    assert len([record for record in records if 'loss' in record]) == 2
    (validation,) = [record for record in records if 'vqa/score' in record and record['step'] == 2]
    assert validation['vqa/accuracy'] == validation['vqa/accuracy_other'] <= 50
    assert validation['vqa/score'] in (0, 30, 100) and metrics == {}
    submission = json.loads((tmp_path / 'answers.json').read_text())
    assert [entry['question_id'] for entry in submission] == [10 * i + k for i in range(200, 204) for k in (0, 1)]
    assert {entry['answer'] for entry in submission} <= {*COLORS, '0'}


def test_vqa_takes_questions_of_visual_genome(run, texts, tmp_path):
    root, _ = texts
    records, _ = run(
        'beit3-large-p16_beit3-indomain-pre_8xb16-coslr-10e_vqav2-vgqa-768px',
        'vqav2',
        'model.head.num_classes=5',
        f'vg_root={root / "vg"}',
        'train_dataloader.dataset.datasets.1.num_held_out=1',
        'val_dataloader.dataset.num_held_out=1',
        f'test_evaluator.file_path={tmp_path / "answers.json"}',
        scales=tuple(f'datasets.{i}.pipeline.2.' for i in range(3)),
    )
    assert len([record for record in records if 'loss' in record]) == 2 * ((4 + 3 + 4) // 4)


def test_nlvr2_is_trained_and_judges_test_p(run):
    places = ('pipeline.1.transforms.1.',)
    options = [f'{loader}.dataset.pipeline.0.transforms.1.scale=(32,32)' for loader in LOADERS[1:]]
    records, metrics = run('beit3-base-p16_beit3-pre_8xb32-coslr-20e_nlvr2', 'nlvr2', *options, scales=places, resize=0)
    assert [record for record in records if 'accuracy/top1' in record]
    assert metrics['accuracy/top1'] in (0, 25, 50, 75, 100)


def test_captions_are_trained_and_scored(run):
    pytest.importorskip('pycocoevalcap')
    records, metrics = run(
        'beit3-base-p16_beit3-pre_8xb32-coslr-10e_coco-caption-480px',
        'coco',
        'model.max_length=8',
        'val_evaluator.tokenizer=words',
        'test_evaluator.tokenizer=words',
        'custom_hooks.2.begin=6',
    )
    assert len([record for record in records if 'loss' in record]) == 2 * 6
    assert [record for record in records if 'caption/CIDEr' in record]
    assert set(metrics) == {f'caption/{name}' for name in ('Bleu_1', 'Bleu_2', 'Bleu_3', 'Bleu_4', 'ROUGE_L', 'CIDEr')}


def test_nocaps_is_evaluated_by_what_coco_has_taught(run, texts, tmp_path):
    pytest.importorskip('pycocoevalcap')
    root, _ = texts
    _, metrics = run(
        'beit3-base-p16_beit3-pre_8xb32-coslr-10e_nocaps-480px',
        'coco',
        f'nocaps_root={root / "nocaps"}',
        'model.max_length=8',
        'val_evaluator.tokenizer=words',
        'test_evaluator.0.tokenizer=words',
        f'test_evaluator.1.file_path={tmp_path / "nocaps.json"}',
    )
    assert 'caption/CIDEr' in metrics
    assert [entry['image_id'] for entry in json.loads((tmp_path / 'nocaps.json').read_text())] == [0, 1, 2]


@pytest.mark.parametrize(
    ('recipe', 'data'),
    [
        ('beit3-base-p16_beit3-itc-pre_16xb192-coslr-20e_flickr30k-retrieval-384px', 'flickr30k'),
        ('beit3-base-p16_beit3-pre_32xb512-coslr-5e_itc', 'coco'),
    ],
)
def test_retrieval_is_trained_and_searches_all_images_and_texts(run, texts, tmp_path, recipe, data):
    records, metrics = run(recipe, data, 'val_evaluator.topk=(1,2,3)', 'test_evaluator.topk=(1,2,3)')
    assert [record for record in records if 'i2t/retrieval/Recall@1' in record]
    assert set(metrics) == {f'{way}/retrieval/Recall@{k}' for way in ('i2t', 't2i') for k in (1, 2, 3)}
    assert metrics == pytest.approx(recall_by_hand(texts, tmp_path, data), abs=1e-4)


@pytest.mark.parametrize(
    ('option', 'message'),
    [
        ('tokenizer={root}/none.spm', 'no such text tokenizer: {root}/none.spm'),
        ('tokenizer={root}/texts.txt', 'cannot read {root}/texts.txt: it is truncated, or no model of SentencePiece'),
        ('answers={root}/none.txt', 'no such file of answers: {root}/none.txt'),
        ('answers={root}/texts.txt', '{root}/texts.txt, line 1: expected an answer with label 0'),
        (
            'data_root={root}/none',
            'no such folder: {root}/none/train2014, named by train_dataloader.dataset.datasets.0',
        ),
        (
            'train_dataloader.dataset.datasets.0.question_file=none.json',
            'no such file: {root}/vqav2/none.json, named by train_dataloader.dataset.datasets.0.question_file',
        ),
        (
            'train_dataloader.dataset.datasets.0.question_file=answer2label.txt',
            'train_dataloader: {root}/vqav2/answer2label.txt is no JSON',
        ),
        (
            'train_dataloader.dataset.datasets.0.ann_file=v2_OpenEnded_mscoco_train2014_questions.json',
            'v2_OpenEnded_mscoco_train2014_questions.json has no list of annotations',
        ),
    ],
)
def test_what_is_wrong_is_one_line_before_training(texts, tmp_path, capsys, option, message):
    root, tokenizer = texts
    config = tmp_path / 'tiny.py'
    recipe = 'beit3-base-p16_beit3-pre_8xb16-coslr-10e_vqav2-480px'
    config.write_text(CHILD.format(root=ROOT, recipe=recipe, vocab_size=tokenizer.vocab_size))
    options = {'data_root': f'{root}/vqav2', 'tokenizer': str(tokenizer.path), 'model.head.num_classes': '5'}
    key, _, value = option.format(root=root).partition('=')
    options[key] = value
    with pytest.raises(SystemExit):
        call_tool('train', config, '--work-dir', tmp_path, '--cfg-options', *(f'{k}={v}' for k, v in options.items()))
    error = [line for line in capsys.readouterr().err.splitlines() if line.startswith('error: ')]
    assert len(error) == 1 and message.format(root=root) in error[0]


def recall_by_hand(texts, tmp_path, data: str) -> dict[str, float]:
    """The same numbers: four images of the test with three texts each, compared one by one."""
    from mmengine.config import Config
    from mmengine.registry import DATASETS, MODELS

    root, tokenizer = texts
    cfg = Config.fromfile(tmp_path / 'test' / 'tiny.py')
    model = MODELS.build({**cfg.model, 'data_preprocessor': cfg.data_preprocessor}).eval()
    model.load_state_dict(torch.load(tmp_path / 'run' / 'epoch_2.pth', weights_only=False)['state_dict'])
    dataset = DATASETS.build(cfg.test_dataloader.dataset)
    assert len(dataset) == 4
    images, sentences = [], []
    with torch.no_grad():
        for item in dataset:
            batch = model.data_preprocessor(dict(inputs=item['inputs'][None], data_samples=[item['data_samples']]))
            images.append(model.extract_feat(images=batch['images'])['image_feat'][0])
            for text in item['data_samples'].text:
                sample = type(item['data_samples'])(text_ids=tokenizer.encode(text))
                sentences.append(model.extract_feat(data_samples=[sample])['text_feat'][0])
    scores = np.array([[float(image @ sentence) for sentence in sentences] for image in images])
    numbers = {}
    for k in (1, 2, 3):
        hits = [any(j // 3 == i for j in np.argsort(-row)[:k]) for i, row in enumerate(scores)]
        numbers[f'i2t/retrieval/Recall@{k}'] = 100 * np.mean(hits)
        hits = [j // 3 in np.argsort(-column)[:k] for j, column in enumerate(scores.T)]
        numbers[f't2i/retrieval/Recall@{k}'] = 100 * np.mean(hits)
    return numbers
