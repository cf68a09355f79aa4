"""Data sets that are files of lines."""

import json
import pickle

import numpy as np
import pytest
from mmengine.dataset import ConcatDataset
from processes import run_ranks

from mmbeit.datasets import lines
from mmbeit.datasets.lines import LineFile, PairLines, TextLines

TEXT = 'one\n\ntwo words\r\n   \nthrée\n\t\nfour'
LINES = ['one', 'two words', 'thrée', 'four']


@pytest.fixture
def file(tmp_path):
    path = tmp_path / 'texts.txt'
    path.write_bytes(TEXT.encode())
    return path


def read(file):
    return [file[i].decode() for i in range(len(file))]


@pytest.mark.parametrize('chunk', [1, 2, 3, 7, 100])
def test_blank_lines_are_left_out_wherever_a_chunk_ends(file, monkeypatch, chunk):
    monkeypatch.setattr(lines, 'CHUNK', chunk)
    assert read(LineFile(file)) == LINES


@pytest.mark.parametrize('end', ['', '\n', '\n\n'])
def test_the_last_line_may_have_an_end(file, end):
    file.write_bytes(TEXT.encode() + end.encode())
    assert read(LineFile(file)) == LINES


def test_lines_are_looked_for_once(file, monkeypatch):
    LineFile(file)
    monkeypatch.setattr(LineFile, '_scan', lambda self: pytest.fail('looked for them again'))
    assert read(LineFile(file)) == LINES


def test_a_changed_file_gets_a_new_index(file):
    LineFile(file)
    file.write_text('other\nlines\n')
    assert read(LineFile(file)) == ['other', 'lines']
    assert sorted(path.name for path in file.parent.glob('*.index*')) == ['texts.txt.index', 'texts.txt.index.lock']


def test_nothing_of_the_file_goes_to_a_worker(tmp_path):
    path = tmp_path / 'long.txt'
    path.write_text('some words\n' * 10_000)
    ours = LineFile(path)
    assert ours[9_999] == b'some words'
    content = pickle.dumps(ours)
    assert len(content) < 1000
    assert pickle.loads(content)[9_999] == b'some words'
    assert isinstance(ours.offsets, np.memmap)


def test_the_index_may_be_elsewhere(file, tmp_path):
    texts = TextLines(str(file), index_dir=tmp_path / 'indices' / 'here')
    assert len(texts) == 4 and not file.with_name('texts.txt.index').exists()
    (tmp_path / 'other').mkdir()
    (tmp_path / 'other' / 'texts.txt').write_text('five\n')
    other = TextLines(str(tmp_path / 'other' / 'texts.txt'), index_dir=tmp_path / 'indices' / 'here')
    assert [other[0]['text'], texts[0]['text']] == ['five', 'one']
    assert len(list((tmp_path / 'indices' / 'here').glob('texts.txt.*.index'))) == 2


def test_processes_look_for_lines_once(file):
    code = """
        from mmbeit.datasets import lines
        scan = lines.LineFile._scan
        def slow(self):
            import time
            time.sleep(0.5)
            with open(folder / 'scans', 'a') as file:
                file.write('x')
            return scan(self)
        lines.LineFile._scan = slow
        distributed.barrier()
        assert len(lines.LineFile(folder / 'texts.txt')) == 4
    """
    run_ranks(code, 2, file.parent)
    assert (file.parent / 'scans').read_text() == 'x'


def test_an_index_that_cannot_be_written(file):
    """There is a file where its folder should be."""
    with pytest.raises(ValueError, match=r'cannot write .*texts.txt.*.index: .*; index_dir names another'):
        LineFile(file, file)


@pytest.mark.parametrize('content', ['', '\n', ' \n\t\n'])
def test_a_file_without_lines(file, content):
    file.write_text(content)
    with pytest.raises(ValueError, match=r'texts.txt has no lines'):
        TextLines(str(file))


def test_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r'no such file: .*none.txt'):
        TextLines('none.txt', str(tmp_path))


def test_texts_of_several_files(file, tmp_path):
    (tmp_path / 'more.txt').write_text('five\nsix\n')
    texts = TextLines(['texts.txt', 'more.txt'], str(tmp_path))
    assert [texts[i]['text'] for i in range(len(texts))] == [*LINES, 'five', 'six']
    assert [texts[i]['sample_idx'] for i in range(len(texts))] == list(range(6))
    assert texts[1]['text_path'] == f'{tmp_path}/texts.txt, byte 5'
    for i in (-1, 6):
        with pytest.raises(IndexError, match=f'line {i} of 6'):
            texts[i]
    assert len(ConcatDataset([texts, TextLines('more.txt', str(tmp_path))])) == 8


def test_a_line_that_is_no_text(tmp_path):
    (tmp_path / 'texts.txt').write_bytes(b'good\n\xff\xfe bad\n')
    texts = TextLines('texts.txt', str(tmp_path))
    np.random.seed(0)
    with pytest.warns(UserWarning, match=r"texts.txt, byte 5: 'utf-8' codec .*; another text takes its place"):
        assert texts[1]['text'] == 'good'


def pairs(tmp_path, *rows, **kwargs):
    content = ''.join((row if isinstance(row, str) else json.dumps(row)) + '\n' for row in rows)
    (tmp_path / 'pairs.jsonl').write_text(content)
    return PairLines('pairs.jsonl', str(tmp_path), **kwargs)


def test_pairs(tmp_path):
    data = pairs(tmp_path, dict(image='a/b.jpg', text='a cat'), dict(image='/c.jpg', text='a dog'))
    assert len(data) == 2
    assert data[0] == dict(
        img_path=f'{tmp_path}/a/b.jpg', text='a cat', text_path=f'{tmp_path}/pairs.jsonl, byte 0', sample_idx=0
    )
    assert data[1]['img_path'] == '/c.jpg'


def test_pairs_of_other_names_and_folders(tmp_path):
    row = dict(file='b.jpg', captions=['a cat', 'a dog'])
    data = pairs(tmp_path, row, image_key='file', text_key='captions', data_prefix=dict(img_path='images'))
    assert data[0]['img_path'] == f'{tmp_path}/images/b.jpg'
    assert {data[0]['text'] for _ in range(50)} == {'a cat', 'a dog'}


@pytest.mark.parametrize(
    ('row', 'reason'),
    [
        (dict(image='a.jpg'), "no 'text'"),
        (dict(text='a cat'), "no 'image'"),
        (dict(image='a.jpg', text=3), 'image and text are not both texts'),
        (dict(image='a.jpg', text=[]), '.+'),
        ('{"image": ', 'Expecting value'),
        ('[1, 2]', '.+'),
    ],
)
def test_a_broken_pair_is_skipped_with_a_warning_that_names_it(tmp_path, row, reason):
    good = dict(image='a.jpg', text='a cat')
    data = pairs(tmp_path, good, row)
    with pytest.warns(UserWarning, match=rf'pairs.jsonl, byte {len(json.dumps(good)) + 1}: {reason}.*another pair'):
        assert data[1]['text'] == 'a cat'
