"""Write pictures of two or three digits, and what there is to say about them, in the formats of COCO, VQAv2 and NLVR2.

`python tools/dataset_converters/digit_pairs.py data/digits data/digit_pairs`

The digits are the scans that `digits.py` has written, each resized and inked anew. Pictures to evaluate on have no scan
in common with those to train on, and no two of them show the same digits in the same order, so each has captions of its
own.

    train2014/COCO_train2014_000000000001.jpg           pictures to train on; in val2014/ those to evaluate on
    v2_OpenEnded_mscoco_train2014_questions.json, v2_mscoco_train2014_annotations.json    likewise of val2014
    answer2label.txt                                    the answers that are classes
    dataset_coco.json                                   captions in the form of Karpathy,
    coco_karpathy_train.json, coco_karpathy_val.json, coco_karpathy_val_gt.json    of BLIP
    caption_karpathy_train2014.json, caption_karpathy_val2014.json                 and of COCO
    nlvr2/train.json, nlvr2/dev.json                    statements about two pictures,
    nlvr2/images/train/0/train-0-0-img0.png, nlvr2/dev/dev-0-0-img0.png    which are these
    pairs.jsonl, texts.txt                              to pretrain on: the pictures to train on with their captions;
                                                        texts of digits that no picture shows
    text.spm                                            text tokenizer with a piece for every word of all these
"""

import argparse
import json
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np
from PIL import Image

from mmbeit.answers import frequent_answers, write_answers
from mmbeit.engine.processes import command

CELL = 16  # side of a place for a digit, in pixels
SIDES = (15, 16)  # of a digit, in pixels
SHARE_OF_TWO = 0.25  # of the pictures that show two digits, and not three: of those there are only a hundred
GROUND, INK = (0, 50), (180, 255)  # grey levels
NUM_PEOPLE = 10  # who have answered each question; here they agree
NUM_TEXTS = 12000
VOCAB_SIZE = 84  # of the text tokenizer
PLACES = {'left': 'on the left', 'middle': 'in the middle', 'right': 'on the right'}  # each a column
WHOLE = {'train': 'train2014', 'val': 'val2014'}  # folders of COCO

Digits = tuple[int, ...]  # of one picture, from left to right


class Scan(NamedTuple):
    """One of the digits that pictures are made of."""

    path: Path
    image: Image.Image


Scans = dict[int, list[Scan]]  # of each digit


class Question(NamedTuple):
    """One of VQA, with the answer; `kind` and `type` are what VQAv2 calls question_type and answer_type."""

    text: str
    answer: str
    kind: str
    type: str


def one(digit: int) -> str:
    """A digit with its article."""
    return f'an {digit}' if digit == 8 else f'a {digit}'


def places_of(digits: Digits) -> list[str]:
    """Where each of two or three digits is."""
    return list(PLACES) if len(digits) == len(PLACES) else ['left', 'right']


def caption(digits: Digits) -> str:
    """All that can be said about a picture as a whole; where a digit is comes before which it is."""
    return ' and '.join(f'{place} {digit}' for place, digit in zip(places_of(digits), digits, strict=True))


def questions(digits: Digits, draw: np.random.Generator) -> list[Question]:
    """Questions about a picture: how many digits there are, which one is at each place, and whether one is there."""
    asked = [Question('How many digits are there?', str(len(digits)), 'how many', 'number')]
    for place, digit in zip(places_of(digits), digits, strict=True):
        asked.append(Question(f'Which digit is {PLACES[place]}?', str(digit), 'which', 'number'))
    present = draw.random() < 0.5
    digit = int(draw.choice([digit for digit in range(10) if (digit in digits) == present]))
    return [*asked, Question(f'Is there {one(digit)}?', 'yes' if present else 'no', 'is there', 'yes/no')]


def statements(left: Digits, right: Digits) -> dict[str, dict[str, bool]]:
    """Whether it is true of two pictures, for every statement of every kind."""
    both, either = set(left) & set(right), set(left) ^ set(right)
    return {
        'in all': {f'There are {n} digits in all.': n == len(left) + len(right) for n in (4, 5, 6)},
        'left': {f'The left picture shows {one(d)}.': d in left for d in range(10)},
        'right': {f'The right picture shows {one(d)}.': d in right for d in range(10)},
        'both': {f'Both pictures show {one(d)}.': d in both for d in range(10)},
        'only one': {f'Only one picture shows {one(d)}.': d in either for d in range(10)},
        'more': {
            'There are more digits in the left picture.': len(left) > len(right),
            'There are more digits in the right picture.': len(left) < len(right),
        },
    }


def true_and_false(left: Digits, right: Digits, draw: np.random.Generator) -> tuple[str, str]:
    """A statement that is true of two pictures, and a false one of the same kind, so that words give nothing away."""
    kinds = [list(kind.items()) for kind in statements(left, right).values() if len(set(kind.values())) == 2]
    kind = kinds[draw.integers(len(kinds))]
    return tuple(str(draw.choice([text for text, truth in kind if truth is wanted])) for wanted in (True, False))


def draw_digits(draw: np.random.Generator) -> Digits:
    return tuple(draw.integers(10, size=2 if draw.random() < SHARE_OF_TWO else 3).tolist())


def draw_picture(digits: Digits, scans: Scans, draw: np.random.Generator) -> tuple[Image.Image, list[Path]]:
    """A picture of some digits, each at its place, and the scans that are in it.

    Args:
        digits: From left to right.
        scans: Those that may be used.
        draw: Random numbers.
    """
    ground = draw.uniform(*GROUND)
    pixels = np.full((CELL, CELL * len(PLACES)), ground, dtype=np.float32)
    used = []
    for digit, place in zip(digits, places_of(digits), strict=True):
        scan = scans[digit][draw.integers(len(scans[digit]))]
        side = int(draw.integers(*SIDES, endpoint=True))
        top, left = draw.integers(CELL - side, endpoint=True, size=2)
        left += CELL * list(PLACES).index(place)
        ink = np.asarray(scan.image.resize((side, side), Image.Resampling.BICUBIC), dtype=np.float32) / 255
        pixels[top : top + side, left : left + side] += ink * (draw.uniform(*INK) - ground)
        used.append(scan.path)
    return Image.fromarray(pixels.round().clip(0, 255).astype(np.uint8)), used


def read_scans(folder: Path) -> Scans:
    """The scans of a split.

    Raises:
        FileNotFoundError: There are none of some digit.
    """
    paths = {digit: sorted((folder / str(digit)).glob('*.png')) for digit in range(10)}
    scans = {digit: [Scan(path, Image.open(path).convert('L')) for path in found] for digit, found in paths.items()}
    if not all(scans.values()):
        raise FileNotFoundError(f'no scans of all digits in {folder}: write them with dataset_converters/digits.py')
    return scans


def write_json(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content) + '\n')


def write_lines(path: Path, lines: Sequence[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text('\n'.join(lines) + '\n')


class Picture(NamedTuple):
    """One of COCO: its number, its path, and what it shows."""

    id: int
    path: str
    digits: Digits


def write_pictures(
    split: str, count: int, first_id: int, scans: Scans, root: Path, draw: np.random.Generator
) -> tuple[list[Picture], set[Path]]:
    """Draw the pictures of COCO; those to evaluate on show different digits each. Also gives the scans in them."""
    folder = WHOLE[split]
    (root / folder).mkdir(parents=True)
    pictures, seen, used = [], set(), set()
    while len(pictures) < count:
        digits = draw_digits(draw)
        if split == 'val' and digits in seen:
            continue
        seen.add(digits)
        number = first_id + len(pictures)
        image, paths = draw_picture(digits, scans, draw)
        pictures.append(Picture(number, f'{folder}/COCO_{folder}_{number:012}.jpg', digits))
        image.convert('RGB').save(root / pictures[-1].path, quality=95)
        used.update(paths)
    return pictures, used


def write_vqa(split: str, pictures: list[Picture], folder: Path, draw: np.random.Generator) -> list[str]:
    """Write questions and annotations of VQAv2; gives the answers in their order."""
    asked, annotations = [], []
    for picture in pictures:
        for i, question in enumerate(questions(picture.digits, draw)):
            ids = dict(image_id=picture.id, question_id=1000 * picture.id + i)
            asked.append({**ids, 'question': question.text})
            answer = dict(answer=question.answer, answer_confidence='yes')
            annotations.append(
                {
                    **ids,
                    'question_type': question.kind,
                    'answer_type': question.type,
                    'multiple_choice_answer': question.answer,
                    'answers': [{**answer, 'answer_id': person} for person in range(1, NUM_PEOPLE + 1)],
                }
            )
    subset = dict(data_type='mscoco', data_subtype=WHOLE[split])
    path = folder / f'v2_OpenEnded_mscoco_{WHOLE[split]}_questions.json'
    write_json(path, {**subset, 'task_type': 'Open-Ended', 'questions': asked})
    write_json(folder / f'v2_mscoco_{WHOLE[split]}_annotations.json', {**subset, 'annotations': annotations})
    return [annotation['multiple_choice_answer'] for annotation in annotations]


def write_captions(pictures: dict[str, list[Picture]], folder: Path) -> None:
    """Write the captions of both splits in the forms of BLIP, Karpathy and COCO."""
    karpathy = []
    for split, members in pictures.items():
        images, sentences = [], []
        for picture in members:
            filepath, filename = picture.path.split('/')
            text, number = caption(picture.digits), len(karpathy)
            sentence = dict(raw=text, tokens=text.split(), imgid=number, sentid=number)
            ids = dict(imgid=number, cocoid=picture.id, sentids=[number])
            karpathy.append(
                {**ids, 'split': split, 'filepath': filepath, 'filename': filename, 'sentences': [sentence]}
            )
            sentences.append(dict(image_id=picture.id, id=number, caption=text))
            images.append(
                dict(id=picture.id, file_name=filename, coco_url=f'http://images.cocodataset.org/{picture.path}')
            )
        write_json(folder / f'caption_karpathy_{WHOLE[split]}.json', dict(images=images, annotations=sentences))
        if split == 'train':
            rows = [
                dict(image=picture.path, image_id=f'coco_{picture.id}', caption=caption(picture.digits))
                for picture in members
            ]
        else:
            rows = [dict(image=picture.path, caption=[caption(picture.digits)]) for picture in members]
            truth = dict(images=[dict(id=picture.id) for picture in members], annotations=sentences)
            write_json(folder / f'coco_karpathy_{split}_gt.json', truth)
        write_json(folder / f'coco_karpathy_{split}.json', rows)
    write_json(folder / 'dataset_coco.json', dict(dataset='coco', images=karpathy))


def write_nlvr(split: str, count: int, scans: Scans, root: Path, draw: np.random.Generator) -> set[Path]:
    """Write pairs of pictures, with a true and a false statement each; gives the scans in them."""
    lines, used = [], set()
    for pair in range(count):
        both = draw_digits(draw), draw_digits(draw)
        directory = str(pair % 100)  # only the pictures to train on lie in such folders
        folder = root / (f'images/train/{directory}' if split == 'train' else split)
        folder.mkdir(parents=True, exist_ok=True)
        for side, digits in enumerate(both):
            image, paths = draw_picture(digits, scans, draw)
            image.convert('RGB').save(folder / f'{split}-{pair}-0-img{side}.png')
            used.update(paths)
        for i, (sentence, label) in enumerate(zip(true_and_false(*both, draw), ('True', 'False'), strict=True)):
            line = dict(identifier=f'{split}-{pair}-0-{i}', sentence=sentence, label=label, synset='digit')
            lines.append(json.dumps({**line, 'directory': directory} if split == 'train' else line))
    write_lines(root / f'{split}.json', lines)
    return used


def true_texts(draw: np.random.Generator) -> Iterator[str]:
    """Texts of digits that no picture shows: captions, questions with their answers, statements."""
    while True:
        digits, others = draw_digits(draw), draw_digits(draw)
        yield caption(digits)
        asked = questions(digits, draw)
        question = asked[draw.integers(len(asked))]
        yield f'{question.text} {question.answer}'
        yield true_and_false(digits, others, draw)[0]


def write_tokenizer(texts: list[Path], path: Path) -> None:
    """Train a text tokenizer that has a piece for every word."""
    words = sorted({word.strip('.?') for file in texts for word in file.read_text().split()})
    with TemporaryDirectory() as folder:
        # What is to become a piece has to occur in two different words.
        write_lines(Path(folder) / 'words.txt', [f'{word} {word},' for word in words])
        files = [*texts, Path(folder) / 'words.txt']
        options = ('--out', path, '--vocab-size', VOCAB_SIZE, '--coverage', 1)
        subprocess.run(command('train_text_tokenizer', *files, *options), check=True)


def write_pairs(
    digits: Path, root: Path, counts: dict[str, int], nlvr_counts: dict[str, int], seed: int = 0
) -> dict[str, set[Path]]:
    """Write everything. What is in it depends on nothing but the arguments.

    Args:
        digits: Folder with `train/DIGIT/*.png` and `val/DIGIT/*.png`.
        root: Folder to write to. What an earlier call has left there is replaced.
        counts: Pictures of COCO, of 'train' and 'val'.
        nlvr_counts: Pairs of NLVR2, likewise.
        seed: Of all that is drawn.

    Returns:
        The scans that are in the pictures of each split.

    Raises:
        FileNotFoundError: There are no scans.
        ValueError: There are not as many different pictures to evaluate on.
    """
    if counts['val'] > 1000:
        raise ValueError(f'{counts["val"]} pictures to evaluate on: expected at most 1000, to show different digits')
    scans = {split: read_scans(digits / split) for split in WHOLE}
    for part in (*WHOLE.values(), 'nlvr2'):
        shutil.rmtree(root / part, ignore_errors=True)
    used, pictures, answers = {}, {}, []
    for number, split in enumerate(WHOLE):
        draw = np.random.default_rng((seed, number))
        first_id = 1 + sum(len(members) for members in pictures.values())
        pictures[split], used[split] = write_pictures(split, counts[split], first_id, scans[split], root, draw)
        answers += write_vqa(split, pictures[split], root, draw)
        nlvr_split = {'train': 'train', 'val': 'dev'}[split]
        used[split] |= write_nlvr(nlvr_split, nlvr_counts[split], scans[split], root / 'nlvr2', draw)
    write_captions(pictures, root)
    write_answers(frequent_answers(answers), root / 'answer2label.txt')
    pairs = [json.dumps(dict(image=picture.path, text=caption(picture.digits))) for picture in pictures['train']]
    write_lines(root / 'pairs.jsonl', pairs)
    draw = np.random.default_rng((seed, len(WHOLE)))
    write_lines(root / 'texts.txt', list(islice(true_texts(draw), NUM_TEXTS)))
    write_tokenizer([root / 'texts.txt'], root / 'text.spm')
    return used


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('digits', type=Path, help='folder that digits.py has written')
    parser.add_argument('root', type=Path, help='folder to write to')
    parser.add_argument('--train', type=int, default=3000, help='pictures to train on (%(default)s)')
    parser.add_argument('--val', type=int, default=300, help='pictures to evaluate on (%(default)s)')
    parser.add_argument('--nlvr-train', type=int, default=500, help='pairs of pictures to train on (%(default)s)')
    parser.add_argument('--nlvr-val', type=int, default=100, help='pairs of pictures to evaluate on (%(default)s)')
    parser.add_argument('--seed', type=int, default=0, help='of all that is drawn (%(default)s)')
    args = parser.parse_args(argv)
    counts, nlvr_counts = dict(train=args.train, val=args.val), dict(train=args.nlvr_train, val=args.nlvr_val)
    used = write_pairs(args.digits, args.root, counts, nlvr_counts, args.seed)
    print(
        f'{args.root}: {args.train} pictures and {args.nlvr_train} pairs of {len(used["train"])} scans to train on, '
        f'{args.val} and {args.nlvr_val} of {len(used["val"])} other scans to evaluate on'
    )


if __name__ == '__main__':
    main()
