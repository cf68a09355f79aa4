"""Answers of VQAv2: how they are normalised, which of them are classes, and the file that says so.

Reference: unilm:beit3/glossary.py, beit3/datasets.py; GT-Vision-Lab/VQA:PythonEvaluationTools/vqaEvaluation/vqaEval.py.
"""

import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
COMMA_IN_NUMBER = re.compile(r'\d,\d')
# Meant not to follow a digit, either; as it is officially written, what it follows does not matter.
PERIOD = re.compile(r'\.(?!\d)')
NUM_PERIODS = 32  # no more are deleted: a flag of `re` stands where the count belongs, officially
DIGITS = ('zero', 'one', 'two', 'three', 'four', 'five', 'six', 'seven', 'eight', 'nine', 'ten')
NUMBERS = {'none': '0', **{name: str(i) for i, name in enumerate(DIGITS)}}
ARTICLES = ('a', 'an', 'the')
CONTRACTED = """
    'ow's'at 'twas ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't
    he'd he'd've he's how'd how'll how's isn't it'd it'd've it'll ma'am might've mightn't mightn't've must've mustn't
    needn't not've o'clock oughtn't shan't she'd've should've shouldn't shouldn't've somebody'd've somebody'll
    somebody's someone'd someone'd've someone'll someone's something'd something'd've something'll that's there'd
    there'd've there're there's they'd they'd've they'll they're they've wasn't we'd've we've weren't what'll
    what're what's what've when's where'd where's where've who'd who'd've who'll who's who've why'll why're why's won't
    would've wouldn't wouldn't've y'all y'all'd've y'all'll you'd you'd've you'll you're you've
"""
# A word of which one apostrophe is missing gets it back. And the one that loses it.
CONTRACTIONS = {w[:i] + w[i + 1 :]: w for w in CONTRACTED.split() for i, c in enumerate(w) if c == "'"}
CONTRACTIONS["somebody'd"] = 'somebodyd'


def process_punctuation(answer: str) -> str:
    """Delete or space out punctuation, and delete periods that no digit follows."""
    deleted = COMMA_IN_NUMBER.search(answer) is not None
    out = answer
    for mark in PUNCTUATION:
        spaced = f'{mark} ' in answer or f' {mark}' in answer
        out = out.replace(mark, '' if spaced or deleted else ' ')
    return PERIOD.sub('', out, count=NUM_PERIODS)


def process_words(answer: str) -> str:
    """Lower case, numbers up to ten as digits, no articles, contractions with their apostrophes."""
    words = (NUMBERS.get(word, word) for word in answer.lower().split())
    return ' '.join(CONTRACTIONS.get(word, word) for word in words if word not in ARTICLES)


def normalize_word(answer: str) -> str:
    """The form of an answer under which it is counted and has its label: 'The dog' is 'dog', 'two' is '2'."""
    return process_words(process_punctuation(answer)).replace(',', '')


def frequent_answers(answers: Iterable[str], min_count: int = 9) -> list[str]:
    """The classes: those that occur often enough once they are normalised, in the order of their first occurrence.

    Args:
        answers: `multiple_choice_answer` of every question, those of train2014 first, then of val2014, in the order of
            the files: with these and `min_count=9` there are the official 3129.
        min_count: How often an answer occurs at least.
    """
    counts = Counter(normalize_word(answer) for answer in answers)
    return [answer for answer, count in counts.items() if count >= min_count]


def write_answers(answers: Sequence[str], path: str | os.PathLike) -> None:
    """Write a file of answers, of the form that :func:`read_answers` reads."""
    lines = (json.dumps({'answer': answer, 'label': label}) for label, answer in enumerate(answers))
    Path(path).write_text(''.join(f'{line}\n' for line in lines), encoding='utf-8')


def read_answers(path: str | os.PathLike) -> list[str]:
    """Answers of VQA by their label, from a file of the official form: a line of JSON with `answer` and `label` each.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It has another form; the message names the line.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        raise FileNotFoundError(f'no such file of answers: {file}')
    answers = []
    for number, line in enumerate(file.read_text(encoding='utf-8').splitlines()):
        try:
            entry = json.loads(line)
            if entry['label'] != number:
                raise ValueError(f'label {entry["label"]}')
            answers.append(str(entry['answer']))
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f'{file}, line {number + 1}: expected an answer with label {number} ({error})') from error
    return answers
