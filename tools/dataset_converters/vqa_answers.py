"""Write the answers of VQAv2 that are classes, and their labels.

`python tools/dataset_converters/vqa_answers.py v2_mscoco_train2014_annotations.json v2_mscoco_val2014_annotations.json
--out answer2label.txt`

The official files, in this order, give the official 3129 answers, which the released weights are for. Other files of
their form give those of other data.
"""

import argparse
from pathlib import Path

from mmbeit.answers import frequent_answers, write_answers
from mmbeit.datasets.annotations import Entries, read_json
from mmbeit.engine.errors import readable_errors

NUM_OFFICIAL = 3129


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('annotations', nargs='+', type=Path, metavar='ANNOTATIONS', help='train first, then val')
    parser.add_argument('--out', type=Path, required=True, help='file to write, such as answer2label.txt')
    parser.add_argument('--min-count', type=int, default=9, help='how often an answer occurs at least (9)')
    return parser.parse_args(argv)


def most_common_answers(path: Path) -> list[str]:
    """The answer that most people gave, of every question.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is malformed; the message names the entry.
    """
    with Entries(path, 'annotations', read_json(path)) as annotations:
        return [str(entry['multiple_choice_answer']) for entry in annotations]


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    with readable_errors():
        given = [answer for path in args.annotations for answer in most_common_answers(path)]
        answers = frequent_answers(given, args.min_count)
        if not answers:
            raise ValueError(f'no answer occurs {args.min_count} times: try a smaller --min-count')
        write_answers(answers, args.out)
    note = '' if len(answers) == NUM_OFFICIAL else f' (officially there are {NUM_OFFICIAL})'
    print(f'{args.out}: {len(answers)} answers{note}, of {len(given)} questions')


if __name__ == '__main__':
    main()
