"""Scores of captions, against pycocoevalcap as it is used officially."""

import json
import random
import shutil

import pytest
from mmengine.evaluator import Evaluator
from processes import run_ranks

from mmbeit.evaluation import captions
from mmbeit.evaluation.captions import CaptionScores, read_references, score_captions, split_words, split_words_by_ptb

pytest.importorskip('pycocoevalcap')
java = pytest.mark.skipif(shutil.which('java') is None, reason='no Java')
WORDS = ('a', 'man', 'riding', 'the', 'big', 'wave', 'on', 'his', 'surfboard', 'two', 'dogs', 'and', "cats'", 'play')


@pytest.fixture
def written():
    """Captions of 12 images, and one to five references of each."""
    draw = random.Random(0)

    def text() -> str:
        return ' '.join(draw.choices(WORDS, k=draw.randint(3, 9))).capitalize() + draw.choice(['.', '', ' !', ', too.'])

    return {i: text() for i in range(12)}, {i: [text() for _ in range(draw.randint(1, 5))] for i in range(12)}


def write_references(path, references, images=None) -> str:
    annotations = [dict(image_id=i, caption=text) for i, texts in references.items() for text in texts]
    path.write_text(json.dumps(dict(images=[dict(id=i) for i in images or references], annotations=annotations)))
    return str(path)


@java
def test_scores_are_those_of_cocos_evaluation(written, tmp_path):
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    predicted, references = written
    evaluator = Evaluator(
        dict(type='mmbeit.CaptionScores', ann_file=write_references(tmp_path / 'gt.json', references))
    )
    evaluator.process([dict(image_id=f'{i:012}', pred_caption=text) for i, text in reversed(predicted.items())])
    metrics = evaluator.evaluate(12)
    gts = PTBTokenizer().tokenize({i: [dict(caption=text) for text in texts] for i, texts in references.items()})
    res = PTBTokenizer().tokenize({i: [dict(caption=text)] for i, text in predicted.items()})
    expected = {f'caption/Bleu_{n}': 100 * v for n, v in enumerate(Bleu(4).compute_score(gts, res, verbose=0)[0], 1)}
    expected['caption/ROUGE_L'] = 100 * Rouge().compute_score(gts, res)[0]
    expected['caption/CIDEr'] = 100 * Cider().compute_score(gts, res)[0]
    assert metrics == pytest.approx(expected, rel=1e-12)
    assert metrics['caption/CIDEr'] > 5


@java
def test_words_are_those_of_the_penn_treebank():
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    texts = ["The man's dog isn't here!", 'A T-shirt (old), 10:30.', 'two\ndogs', "a café's 1,000 people", 'Mr. X & Y']
    expected = PTBTokenizer().tokenize({i: [dict(caption=text)] for i, text in enumerate(texts)})
    assert split_words_by_ptb(texts) == [words[0] for words in expected.values()]
    assert split_words_by_ptb(['', 'a', ' ', '']) == ['', 'a', '', '']


@java
@pytest.mark.parametrize(
    'text',
    [
        *('A man riding a wave, on top of a surfboard.', "The man's dog isn't here, it's at the zoo!", ''),
        *('A T-shirt with a 10:30 clock.', "They've said we'll see you're I'm he'd.", "At nine o'clock: 50% & $5"),
    ],
)
def test_words_without_java_are_the_same_where_nothing_is_unusual(text):
    assert split_words([text]) == split_words_by_ptb([text])


def test_a_perfect_caption_has_the_best_score():
    texts = {0: 'a man on a wave', 1: 'two dogs and cats play', 2: 'the big surfboard is red'}
    scores = score_captions(texts, {i: [text] for i, text in texts.items()}, ('BLEU', 'ROUGE_L', 'CIDEr'), split_words)
    assert scores == pytest.approx(
        dict(Bleu_1=100, Bleu_2=100, Bleu_3=100, Bleu_4=100, ROUGE_L=100, CIDEr=1000), rel=1e-6
    )


def test_cider_by_hand():
    # A word of one of the two images has idf log 2. In image 0 "b" is right, no bigram is: the cosine of words is
    # (log 2)^2 / (sqrt(2) log 2)^2, those of longer parts are 0. The mean of the four counts ten times.
    scores = score_captions({0: 'b x', 1: 'q q'}, {0: ['b c'], 1: ['d e']}, ('CIDEr',), split_words)
    assert scores == {'CIDEr': pytest.approx(100 * (10 * 0.5 / 4) / 2)}


def test_references_may_come_with_the_samples(written):
    predicted, references = written
    evaluator = Evaluator(dict(type='mmbeit.CaptionScores', tokenizer='words'))
    evaluator.process([dict(image_id=i, pred_caption=predicted[i], gt_caption=references[i]) for i in predicted])
    scores = score_captions(predicted, references, ('BLEU', 'ROUGE_L', 'CIDEr'), split_words)
    assert evaluator.evaluate(12) == {f'caption/{name}': value for name, value in scores.items()}
    with pytest.raises(ValueError, match='image 3 has no gt_caption, and there is no ann_file'):
        evaluator.process([dict(image_id=3, pred_caption='a', gt_caption=[])])


def test_every_image_needs_a_caption(written, tmp_path):
    predicted, references = written
    cfg = dict(type='mmbeit.CaptionScores', tokenizer='words')
    cfg['ann_file'] = write_references(tmp_path / 'gt.json', references)
    evaluator = Evaluator(cfg)
    evaluator.process([dict(image_id=i, pred_caption=predicted[i]) for i in range(2, 12)])
    with pytest.raises(ValueError, match='2 of 12 images are not among the predictions, such as 0'):
        evaluator.evaluate(10)
    evaluator = Evaluator(cfg)
    evaluator.process([dict(image_id=i, pred_caption='a') for i in range(13)])
    with pytest.raises(ValueError, match=r'1 of 13 images are not in .*gt.json, such as 12'):
        evaluator.evaluate(13)
    with pytest.raises(ValueError, match='image 1 has no pred_caption: give the model its text `tokenizer`'):
        evaluator.process([dict(image_id=1)])


def test_what_is_missing_is_said_before_anything_runs(monkeypatch, tmp_path):
    with pytest.raises(ValueError, match=r"scores \('BLUE',\) are not among \('BLEU', 'METEOR'"):
        CaptionScores(scores='BLUE')
    with pytest.raises(ValueError, match="tokenizer 'nltk' is not one of"):
        CaptionScores(tokenizer='nltk')
    (tmp_path / 'gt.json').write_text('{"annotations": [{"image_id": 1}]}')
    with pytest.raises(ValueError, match="gt.json, annotations 0: there is no 'caption'"):
        read_references(tmp_path / 'gt.json')
    monkeypatch.setenv('PATH', str(tmp_path))
    with pytest.raises(RuntimeError, match="METEOR, tokenizer='ptb' needs Java, and there is no command java: install"):
        CaptionScores(scores=('BLEU', 'METEOR'))
    CaptionScores(tokenizer='words')
    monkeypatch.setattr(captions, 'find_spec', lambda name: None)
    with pytest.raises(ImportError, match='pip install pycocoevalcap'):
        CaptionScores()


def test_submission_has_every_image_once(tmp_path):
    path = tmp_path / 'out' / 'nocaps.json'
    evaluator = Evaluator(dict(type='mmbeit.ReportCaptions', file_path=str(path)))
    evaluator.process([dict(image_id=i, pred_caption=f'caption {i}') for i in (4, 7, 4)])
    assert evaluator.evaluate(3) == {}
    assert json.loads(path.read_text()) == [dict(image_id=i, caption=f'caption {i}') for i in (4, 7)]
    with pytest.raises(ValueError, match=r"file_path 'out.txt' does not end in .json"):
        Evaluator(dict(type='mmbeit.ReportCaptions', file_path='out.txt'))


def test_two_processes_score_what_one_does(written, tmp_path):
    """Each has half of the images; the sampler hands the first one out twice, as mmengine's does to fill up."""
    predicted, references = written
    ann_file = write_references(tmp_path / 'gt.json', {i: references[i] for i in range(11)})
    code = f"""
    import json, mmbeit
    from mmengine.evaluator import Evaluator
    evaluator = Evaluator([
        dict(type='mmbeit.CaptionScores', ann_file={ann_file!r}, tokenizer='words'),
        dict(type='mmbeit.ReportCaptions', file_path=str(folder / 'out.json')),
        dict(type='mmbeit.VQAAccuracy'),
        dict(type='mmbeit.VQAScore'),
    ])
    captions = {predicted!r}
    for i in [*range(11), 0][rank::2]:
        vqa = dict(pred_answer='a', gt_answer=['a' if i % 3 else 'b'], pred_label=0)
        vqa['gt_score'] = torch.tensor([i / 10, 1.0])
        evaluator.process([dict(image_id=i, pred_caption=captions[i], **vqa)])
    (folder / f'{{rank}}.json').write_text(json.dumps(evaluator.evaluate(11)))
    """
    run_ranks(code, 2, tmp_path)
    metrics = [json.loads((tmp_path / f'{rank}.json').read_text()) for rank in range(2)]
    assert metrics[0] == metrics[1]
    kept = {i: predicted[i] for i in range(11)}
    scores = score_captions(kept, references, ('BLEU', 'ROUGE_L', 'CIDEr'), split_words)
    assert metrics[0] == pytest.approx(
        {
            **{f'caption/{name}': value for name, value in scores.items()},
            'vqa/accuracy': 100 * 7 / 11,
            'vqa/score': 50.0,
        }
    )
    assert [entry['image_id'] for entry in json.loads((tmp_path / 'out.json').read_text())] == list(range(11))
