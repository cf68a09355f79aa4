"""Tiny data sets of images with texts, in the files that the official data sets come in."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

COLORS = {'red': (220, 30, 30), 'green': (30, 200, 40), 'blue': (20, 40, 230), 'white': (250, 250, 250)}
CAPTIONS = ('a {} square.', 'A square that is {}', 'the square is {} !')


def dump(content, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def dump_lines(entries: list, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(''.join(json.dumps(entry) + '\n' for entry in entries))
    return path


def color(i: int) -> str:
    return list(COLORS)[i % len(COLORS)]


def save_image(path: Path, i: int, size: tuple[int, int] = (40, 48)) -> None:
    """An image of one color with some noise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(i).integers(-20, 20, (*size, 3))
    Image.fromarray((np.array(COLORS[color(i)]) + noise).clip(0, 255).astype(np.uint8)).save(path)


def write_vqa(root: Path, num_images: int = 4) -> None:
    """VQAv2: `train2014`, `val2014` and `test2015` with two questions of each image, and `answer2label.txt`.

    The color was said by eight of ten; the other question has an answer that is no class.
    """
    for split, first in (('train2014', 0), ('val2014', 100), ('test2015', 200)):
        questions, annotations = [], []
        for i in range(first, first + num_images):
            save_image(root / split / f'COCO_{split}_{i:012}.jpg', i)
            for k, (question, said) in enumerate(
                [('What color is it?', [color(i)] * 8 + ['Red-ish', 'none']), ('Why?', ['who knows'] * 10)]
            ):
                questions.append(dict(image_id=i, question=question, question_id=10 * i + k))
                answers = [dict(answer=a, answer_confidence='yes', answer_id=n) for n, a in enumerate(said, 1)]
                kinds = dict(question_type=question.lower(), answer_type='other')
                annotations.append(
                    dict(image_id=i, question_id=10 * i + k, multiple_choice_answer=said[0], answers=answers, **kinds)
                )
        dump(dict(questions=questions), root / f'v2_OpenEnded_mscoco_{split}_questions.json')
        if split != 'test2015':
            dump(dict(annotations=annotations), root / f'v2_mscoco_{split}_annotations.json')
    dump_lines([dict(answer=name, label=i) for i, name in enumerate([*COLORS, '0'])], root / 'answer2label.txt')


def write_visual_genome(root: Path, num_images: int = 4) -> None:
    """Visual Genome: `question_answers.json`, and images in two folders."""
    images = []
    for i in range(1, num_images + 1):
        save_image(root / f'VG_100K{"_2" * (i % 2)}' / f'{i}.jpg', i)
        entry = dict(image_id=i, a_objects=[], q_objects=[])
        first = dict(question='What color is it?', answer=f'{color(i).title()}.', qa_id=10 * i, **entry)
        second = dict(question='How many?', answer='A square, who knows.', qa_id=10 * i + 1, **entry)
        images.append(dict(id=i, qas=[first, second]))
    dump(images, root / 'question_answers.json')


def write_nlvr2(root: Path, num_pairs: int = 4) -> None:
    """NLVR2: `train.json`, `dev.json`, `test1.json`, and their images, those of train in numbered folders."""
    for split, folder in (('train', 'images/train'), ('dev', 'dev'), ('test1', 'test1')):
        sentences = []
        for i in range(num_pairs):
            directory = dict(directory=i % 3) if split == 'train' else {}
            where = root / folder / str(i % 3) if directory else root / folder
            for side in range(2):
                save_image(where / f'{split}-{i}-0-img{side}.png', i + side * (i % 2))
            label = str(i % 2 == 0)
            sentence = dict(sentence='Both squares have one color.', label=label, identifier=f'{split}-{i}-0-{i % 2}')
            sentences.append({**sentence, **directory})
        dump_lines(sentences, root / f'{split}.json')


def write_karpathy(root: Path, name: str = 'dataset_coco.json', num_images: int = 4) -> None:
    """Splits of Karpathy, of COCO or of Flickr30k, with three captions of each image, and COCO's files of captions."""
    coco = name == 'dataset_coco.json'
    images, sentid = [], 0
    splits = ('train', 'restval', 'val', 'test') if coco else ('train', 'val', 'test')
    for split in splits:
        folder = '' if not coco else 'train2014' if split == 'train' else 'val2014'
        annotations = []
        for _ in range(num_images):
            i = len(images)
            filename = f'COCO_{folder}_{i + 1000:012}.jpg' if coco else f'{i + 1000}.jpg'
            save_image(root / (folder or 'flickr30k-images') / filename, i)
            texts = [caption.format(color(i)) for caption in CAPTIONS]
            sentences = [dict(raw=text, imgid=i, sentid=sentid + k, tokens=[]) for k, text in enumerate(texts)]
            sentid += len(texts)
            place = dict(filepath=folder, cocoid=i + 1000) if coco else {}
            images.append(dict(filename=filename, imgid=i, split=split, sentences=sentences, **place))
            annotations += [
                dict(image_id=i + 1000, caption=text, id=len(annotations) + k) for k, text in enumerate(texts)
            ]
        if split in ('val', 'test') and coco:
            ids = sorted({annotation['image_id'] for annotation in annotations})
            dump(
                dict(images=[dict(id=i) for i in ids], annotations=annotations),
                root / f'coco_karpathy_{split}_gt.json',
            )
    dump(dict(images=images, dataset=name.removeprefix('dataset_').removesuffix('.json')), root / name)


def write_nocaps(root: Path, num_images: int = 3) -> None:
    """NoCaps: its validation with two captions of each image, and its test without any."""
    for split, file in (('val', 'nocaps_val_4500_captions.json'), ('test', 'nocaps_test_image_info.json')):
        images = [dict(id=i, file_name=f'{split}{i}.jpg', width=48, height=40) for i in range(num_images)]
        for image in images:
            save_image(root / split / image['file_name'], image['id'])
        content = dict(images=images, info={}, licenses=[])
        if split == 'val':
            content['annotations'] = [
                dict(id=2 * image['id'] + k, image_id=image['id'], caption=CAPTIONS[k].format(color(image['id'])))
                for k in range(2)
                for image in images
            ]
        dump(content, root / file)
