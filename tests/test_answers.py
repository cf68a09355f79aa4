"""How answers are normalised, and which of them are classes."""

import json
import random
import runpy
from pathlib import Path

import pytest

from mmbeit.answers import CONTRACTED, CONTRACTIONS, PUNCTUATION, frequent_answers, normalize_word, process_words

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(
    ('answer', 'expected'),
    [
        *[
            ('two', '2'),
            ('none', '0'),
            ('The dog', 'dog'),
            ('t-shirt', 't shirt'),
            ('1,000', '1000'),
            ('dont', "don't"),
        ],
        *[('U.S.', 'us'), ('10:30', '10:30'), ('north/south', 'north south'), ('yes, it is', 'yes it is')],
        *[('a', ''), ('', ''), ('3.5', '3.5'), ("somebody'd", 'somebodyd'), ('couldnt', "couldn't"), ('a. b', 'b')],
        *[("couldn'tve", "couldn't've"), ('2, 3', '2 3'), ('. ' * 40, '. . . . . . . .'), ('What?!', 'what')],
    ],
)
def test_answers_are_normalised_as_officially(answer, expected):
    assert normalize_word(answer) == expected


def test_punctuation_and_words_are_those_of_mmpretrains_metric():
    from mmpretrain.evaluation.metrics.vqa import _process_digit_article, _process_punctuation

    draw = random.Random(0)
    parts = [*PUNCTUATION, *"  .,'09ab", 'the ', 'Two ', 'none ', ' 1,000', 'U.S.', *CONTRACTIONS, *CONTRACTED.split()]
    for _ in range(3000):
        answer = ''.join(draw.choices(parts, k=draw.randint(0, 7)))
        expected = _process_digit_article(_process_punctuation(answer))
        assert normalize_word(answer) == expected.replace(',', ''), answer
    for word in (*CONTRACTIONS, *CONTRACTED.split()):
        assert process_words(f'{word.upper()} x') == _process_digit_article(f'{word.upper()} x')
    assert len(CONTRACTIONS) == 114


def test_classes_are_what_is_frequent_in_the_order_of_first_occurrence():
    stream = ['rare', 'Two', 'a dog', *['2'] * 7, 'two', *['dog'] * 9, *['rare'] * 7]
    assert frequent_answers(stream) == ['2', 'dog']
    assert frequent_answers(stream, min_count=8) == ['rare', '2', 'dog']


def write_annotations(path: Path, answers: list[str]) -> Path:
    path.write_text(json.dumps({'annotations': [{'multiple_choice_answer': answer} for answer in answers]}))
    return path


def run_tool(*args: object) -> None:
    runpy.run_path(str(ROOT / 'tools/dataset_converters/vqa_answers.py'))['main']([str(arg) for arg in args])


def test_tool_writes_the_official_file(tmp_path, capsys):
    train = write_annotations(tmp_path / 'train.json', ['yes', 'no', 'no', 'café'])
    val = write_annotations(tmp_path / 'val.json', ['Yes', 'maybe', 'café', 'the no'])
    run_tool(train, val, '--out', tmp_path / 'answer2label.txt', '--min-count', 2)
    lines = (tmp_path / 'answer2label.txt').read_bytes().decode('ascii').splitlines()
    assert lines[0] == '{"answer": "yes", "label": 0}'
    assert [json.loads(line) for line in lines] == [
        {'answer': answer, 'label': i} for i, answer in enumerate(('yes', 'no', 'café'))
    ]
    assert '3 answers (officially there are 3129), of 8 questions' in capsys.readouterr().out


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        ('{"annotations": [', 'is no JSON'),
        ('{"questions": []}', 'has no list of annotations'),
        (
            '{"annotations": [{"multiple_choice_answer": "a"}, {}]}',
            "annotations 1: there is no 'multiple_choice_answer'",
        ),
        ('{"annotations": [{"multiple_choice_answer": "dog"}]}', 'no answer occurs 9 times: try a smaller --min-count'),
    ],
)
def test_tool_says_on_one_line_what_is_wrong(tmp_path, capsys, content, message):
    path = tmp_path / 'train.json'
    path.write_text(content)
    with pytest.raises(SystemExit):
        run_tool(path, '--out', tmp_path / 'out.txt')
    error = capsys.readouterr().err
    assert message in error and error.count('\n') == 1
    assert not (tmp_path / 'out.txt').exists()
