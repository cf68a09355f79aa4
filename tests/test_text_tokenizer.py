"""The text tokenizer, on a small model of a few hundred sentences."""

import importlib.util
import pickle
import random
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mmbeit.datasets.transforms.text import MaskText, TokenizeText, mask_text
from mmbeit.text_tokenizer import BOS, EOS, PAD, UNK, TextTokenizer, pad_texts

ROOT = Path(__file__).parents[1]
WORDS = [
    *('a', 'man', 'riding', 'the', 'big', 'wave', 'on', 'his', 'surfboard', ',', 'two', 'dogs', 'and', 'cats', '.'),
    *('What', 'color', 'is', 'it', '?', "don't", '1,000', 'café'),
]


@pytest.fixture(scope='module')
def sentencepiece():
    return pytest.importorskip('sentencepiece')


@pytest.fixture(scope='module')
def tool():
    spec = importlib.util.spec_from_file_location('train_text_tokenizer', ROOT / 'tools' / 'train_text_tokenizer.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope='module')
def sentences(tmp_path_factory):
    draw = random.Random(0)
    path = tmp_path_factory.mktemp('texts') / 'texts.txt'
    path.write_text('\n'.join(' '.join(draw.choices(WORDS, k=8)) for _ in range(300)))
    return path


@pytest.fixture(scope='module')
def tokenizer(sentencepiece, tool, sentences):
    return tool.train([sentences], sentences.with_name('own.spm'), vocab_size=50, coverage=1.0)


# ---- ids ----


def test_ids_are_those_of_xlm_r(tokenizer):
    """`<s>`, `<pad>`, `</s>`, `<unk>`, the pieces from the model's fourth on, `<mask>`."""
    assert (BOS, PAD, EOS, UNK) == (0, 1, 2, 3)
    assert tokenizer.mask_id == 49 and tokenizer.vocab_size == 50 and len(tokenizer.model) == 48
    for text in ('a man riding the big wave', 'What color is it ?', 'two dogs and cats .'):
        pieces = tokenizer.model.EncodeAsPieces(text)
        expected = [tokenizer.model.PieceToId(piece) + 1 for piece in pieces]
        assert min(expected) >= 4
        assert tokenizer.encode(text) == [0, *expected, 2]


def test_case_and_punctuation_are_kept(tokenizer):
    for text in ('What color is it?', "don't", 'a man, a wave.'):
        assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.encode('what') != tokenizer.encode('What')


def test_names_of_special_tokens_stand_for_them_and_spaces_collapse(tokenizer):
    man, wave = (tokenizer.encode(word)[1:-1] for word in ('man', 'wave'))
    for text in ('man <mask> wave', 'man<mask>wave', ' man   <mask>  wave '):
        assert tokenizer.encode(text) == [0, *man, 49, *wave, 2]
    assert tokenizer.encode('<s></s><pad><unk>') == [0, 0, 2, 1, 3, 2]
    assert tokenizer.encode('man  wave') == tokenizer.encode('man wave')


def test_unknown_characters_give_one_id_for_each_run(tokenizer):
    ids = tokenizer.encode('man ☃☃☃ wave')
    assert ids.count(UNK) == 1


def test_long_texts_lose_their_end_but_not_their_last_id(tokenizer):
    text = ' '.join(WORDS * 20)
    whole = tokenizer.encode(text, max_length=10_000)
    assert len(whole) > 64
    assert tokenizer.encode(text) == [*whole[:63], 2]
    assert tokenizer.encode(text, max_length=3) == [0, whole[1], 2]
    assert tokenizer.encode(text, max_length=len(whole)) == whole


@pytest.mark.parametrize('text', ['', '   ', '\n'])
def test_an_empty_text_is_refused(tokenizer, text):
    with pytest.raises(ValueError, match=re.escape(f'the text {text!r} is empty')):
        tokenizer.encode(text)


@pytest.mark.parametrize('text', ['', '  ', ['a man', '']])
def test_empty_texts_may_be_skipped(tokenizer, text):
    results = dict(text=text, text_path='texts.txt, byte 7')
    with pytest.raises(ValueError, match='is empty'):
        TokenizeText(tokenizer).transform(results)
    with pytest.warns(UserWarning, match=r"texts.txt, byte 7: the text '.*' is empty; another sample takes its place"):
        assert TokenizeText(tokenizer, on_error='skip').transform(results) is None
    with pytest.raises(ValueError, match=r"on_error 'stop' is not one of \('raise', 'skip'\)"):
        TokenizeText(tokenizer, on_error='stop')


def test_a_length_without_place_for_text_is_refused(tokenizer):
    with pytest.raises(ValueError, match='max_length 2 leaves no place for text'):
        tokenizer.encode('man', max_length=2)


def test_batches_are_as_long_as_their_longest_text(tokenizer):
    texts = ['a man', 'a man riding the big wave', 'wave']
    batch = tokenizer(texts)
    rows = [tokenizer.encode(text) for text in texts]
    assert batch.ids.shape == batch.padding_mask.shape == (3, max(map(len, rows)))
    assert batch.ids.dtype == torch.long and batch.padding_mask.dtype == torch.bool
    for ids, padding, row in zip(batch.ids, batch.padding_mask, rows, strict=True):
        assert ids[~padding].tolist() == row
        assert (ids[padding] == PAD).all() and padding.sum() == len(ids) - len(row)
    assert tokenizer(texts, max_length=4).ids.shape == (3, 4)
    for form in (rows, [torch.tensor(row) for row in rows]):
        assert all(map(torch.equal, pad_texts(form), batch))


# ---- back to texts ----


def test_special_ids_are_left_out_of_texts(tokenizer):
    man, wave = (tokenizer.encode(word)[1:-1] for word in ('man', 'wave'))
    assert tokenizer.decode([0, *man, 49, 3, 1, *wave, 2, 2, 1, 1]) == 'man wave'
    assert tokenizer.decode(torch.tensor([0, 2, 1])) == '' == tokenizer.decode([])


def test_spaces_before_punctuation_are_cleaned_up(tokenizer):
    ids = tokenizer.encode('a man , two dogs . What color is it ?')
    assert tokenizer.decode(ids) == 'a man, two dogs. What color is it?'


def test_ids_of_nothing_are_refused(tokenizer):
    for ids in ([0, 50], [-1]):
        with pytest.raises(ValueError, match=r'ids from .* are not all of the 50 of .*own\.spm'):
            tokenizer.decode(ids)


# ---- files ----


def test_a_file_that_is_no_model_is_refused_in_one_line(sentencepiece, tmp_path):
    with pytest.raises(FileNotFoundError, match='no such text tokenizer: .*none.spm'):
        TextTokenizer(tmp_path / 'none.spm')
    contents = [b'', b'<html>404</html>', b'\x80' * 100, torch.arange(50.0).numpy().tobytes(), b'\x0a\x02\x0a\x00' * 9]
    for content in contents:
        (tmp_path / 'wrong.spm').write_bytes(content)
        with pytest.raises(ValueError, match='cannot read .*wrong.spm: it is') as error:
            TextTokenizer(tmp_path / 'wrong.spm')
        assert '\n' not in str(error.value)


def test_a_truncated_file_is_refused_wherever_it_is_cut_off(tokenizer, tmp_path):
    """SentencePiece itself loads what is cut off between two pieces, with fewer of them and without normalisation."""
    content, path = tokenizer.path.read_bytes(), tmp_path / 'cut.spm'
    normalizer = content.rindex(b'\x1a', 0, content.rindex(b'nmt_nfkc'))  # the last part that texts depend on
    for size in [*range(1, normalizer, 37), normalizer, normalizer + 5, len(content) // 2]:
        path.write_bytes(content[:size])
        with pytest.raises(ValueError, match='cannot read .*cut.spm: it is truncated'):
            TextTokenizer(path)
    path.write_bytes(content)
    assert TextTokenizer(path).vocab_size == 50


def test_a_model_with_other_special_ids_is_refused(sentencepiece, sentences, tmp_path):
    kwargs = dict(vocab_size=48, pad_id=0, unk_id=1, bos_id=2, eos_id=3, minloglevel=2)
    sentencepiece.SentencePieceTrainer.train(input=str(sentences), model_prefix=str(tmp_path / 'other'), **kwargs)
    with pytest.raises(ValueError, match=r'has <unk>, <s> and </s> at \(1, 2, 3\), expected them at \(0, 1, 2\)'):
        TextTokenizer(tmp_path / 'other.model')


def test_without_sentencepiece_it_says_what_to_install(tokenizer, monkeypatch):
    monkeypatch.setitem(sys.modules, 'sentencepiece', None)
    with pytest.raises(ImportError, match='pip install sentencepiece'):
        TextTokenizer(tokenizer.path)


def test_it_goes_to_worker_processes(tokenizer):
    assert pickle.loads(pickle.dumps(tokenizer)).encode('a man') == tokenizer.encode('a man')


# ---- the tool ----


def test_the_tool_runs_as_a_script(sentencepiece, sentences, tmp_path):
    command = [sys.executable, '-W', 'ignore', str(ROOT / 'tools' / 'train_text_tokenizer.py'), str(sentences)]

    def run(*args):
        return subprocess.run([*command, *args], capture_output=True, text=True, env=env)

    env = {'PYTHONPATH': ':'.join([str(ROOT), *sys.path])}
    done = run('--out', str(tmp_path / 'own.spm'), '--vocab-size', '48')
    assert done.returncode == 0 and 'own.spm: vocab_size=48, <mask> is 47' in done.stdout
    assert TextTokenizer(tmp_path / 'own.spm').vocab_size == 48
    done = run('--out', str(tmp_path / 'more.spm'))
    assert done.returncode == 2
    (line,) = (line for line in done.stderr.splitlines() if line.startswith('error: '))
    assert re.search(r'vocab_size 64002 is too much for these texts: expected at most \d+', line)
    assert [path.name for path in tmp_path.iterdir()] == ['own.spm']


def test_the_most_that_the_tool_tells_is_possible(sentencepiece, tool, sentences, tmp_path):
    with pytest.raises(ValueError, match='expected at most') as error:
        tool.train([sentences], tmp_path / 'own.spm', vocab_size=10_000)
    most = int(re.search(r'at most (\d+)', str(error.value))[1])
    assert tool.train([sentences], tmp_path / 'own.spm', vocab_size=most).vocab_size == most
    with pytest.raises(FileNotFoundError, match='no such file'):
        tool.train([tmp_path / 'none.txt'], tmp_path / 'own.spm', vocab_size=48)


# ---- transforms ----


def test_texts_of_a_sample_become_ids(tokenizer):
    transform = TokenizeText(str(tokenizer.path), max_length=6)
    assert transform({'text': 'a man'})['text_ids'] == tokenizer.encode('a man')
    captions = ['a man', 'a man riding the big wave']
    with pytest.warns(UserWarning, match='is cut off to 6'):
        ids = transform({'text': captions})['text_ids']
    assert ids == [tokenizer.encode(text, max_length=6) for text in captions]
    with pytest.raises(KeyError):  # by which mmpretrain's inferencers know that a step is not for them
        transform({'img': 0})
    assert TokenizeText(tokenizer, key='question')({'question': 'a'})['text_ids'] == tokenizer.encode('a')


# Seeds, and what the official code makes of them: 12 ids with 0.7 of them hidden.
OFFICIAL = {
    0: ([0, 64001, 64001, 64001, 64001, 23468, 105, 64001, 107, 64001, 109, 2], [1, 2, 3, 4, 5, 7, 9, 10]),
    1: ([0, 100, 64001, 64001, 64001, 64001, 105, 64001, 64001, 108, 109, 64001], [1, 2, 3, 4, 5, 7, 8, 11]),
    2: ([0, 64001, 101, 41845, 103, 64001, 105, 106, 107, 35666, 64001, 2], [1, 3, 5, 6, 7, 9, 10, 11]),
    3: ([0, 100, 64001, 64001, 64001, 104, 105, 64001, 64001, 108, 64001, 64001], [2, 3, 4, 7, 8, 9, 10, 11]),
}


@pytest.mark.parametrize('seed', OFFICIAL)
def test_masks_of_texts_are_the_official_ones(seed):
    random.seed(seed)
    shown, mask = mask_text([0, *range(100, 110), 2], 0.7, 64001)
    assert (shown, [i for i, hidden in enumerate(mask) if hidden]) == OFFICIAL[seed]


@pytest.mark.parametrize('mask_end', [True, False])
def test_every_token_that_may_be_hidden_is_hidden_as_often_as_any_other(mask_end):
    random.seed(0)
    masks = torch.tensor([mask_text([0, *range(50, 60), 2], 0.5, 99, mask_end)[1] for _ in range(4000)]).float()
    frequency = masks.mean(dim=0)
    assert frequency[0] == 0
    count = 6 if mask_end else 5
    assert (masks.sum(dim=1) == count).all()
    hidden = frequency[1:] if mask_end else frequency[1:-1]
    torch.testing.assert_close(hidden, torch.full_like(hidden, count / len(hidden)), rtol=0, atol=0.04)
    assert mask_end or frequency[-1] == 0


def test_hidden_tokens_become_mask_themselves_or_anything():
    random.seed(0)
    became = []
    for _ in range(6000):
        shown, mask = mask_text([0, 50, 2], 0.4, 99)
        assert sum(mask) == 1
        became += [shown[1]] if mask[1] else []
        assert mask[1] or shown[1] == 50
    share = {what: sum(map(test, became)) / len(became) for what, test in {
        'mask': lambda i: i == 99, 'same': lambda i: i == 50, 'other': lambda i: i not in (50, 99)
    }.items()}  # fmt: skip
    assert share == {
        'mask': pytest.approx(0.8, abs=0.03),
        'same': pytest.approx(0.1, abs=0.02),
        'other': pytest.approx(0.1, abs=0.02),
    }
    others = set(became)
    assert min(others) == UNK and max(others) == 99 and len(others) > 60


def test_at_least_one_token_is_hidden_and_never_the_first():
    for probability in (0.01, 1.0):
        for ids in ([0, 50, 2], [0, 50, 51, 2]):
            for mask_end in (True, False):
                _, mask = mask_text(ids, probability, 99, mask_end)
                assert not mask[0] and (sum(mask) == 1 if probability < 1 else sum(mask) == len(ids) - 2 + mask_end)


def test_mask_of_a_sample(tokenizer):
    results = TokenizeText(tokenizer)({'text': 'a man riding the big wave'})
    random.seed(3)
    results = MaskText(tokenizer, 0.7)(results)
    random.seed(3)
    assert (results['masked_text_ids'], results['text_mask']) == mask_text(results['text_ids'], 0.7, 49)
    assert results['text_ids'] == tokenizer.encode('a man riding the big wave')
    with pytest.raises(ValueError, match=r'probability \(1.5\) is not between 0 and 1'):
        MaskText(tokenizer, 1.5)
