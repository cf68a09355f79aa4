"""Images with texts, from the files that the official code reads (unilm:beit3/datasets.py).

What is wrong with such a file is an error of one line when the data set is built. mmpretrain's data sets of these names
differ, see each; others of its data sets can be used with BEiT-3 as well.
"""

import os
import random
from collections import Counter
from collections.abc import Sequence

from mmengine.dataset import BaseDataset
from mmengine.dataset import ConcatDataset as _ConcatDataset
from mmengine.fileio import join_path

from mmbeit.answers import normalize_word, read_answers
from mmbeit.datasets.annotations import Entries, collector_off, filled, image_paths, path_of, read_json, read_json_lines
from mmbeit.datasets.samplers import SampleIndex
from mmbeit.registry import DATASETS

NUM_HELD_OUT = 1000


class ImageTextDataset(BaseDataset):
    """What these data sets share.

    Args:
        ann_file: Annotation file, below `data_root`.
        data_root: Folder of everything.
        data_prefix: Folder of the images, below `data_root`.
        kwargs: Of :class:`mmengine.dataset.BaseDataset`, such as `pipeline` and `test_mode`.
    """

    def __init__(
        self,
        ann_file: str = '',
        data_root: str | os.PathLike = '',
        data_prefix: str | dict[str, str] = '',
        **kwargs,
    ):
        prefix = data_prefix if isinstance(data_prefix, dict) else dict(img_path=data_prefix)
        super().__init__(ann_file=ann_file, data_root=str(data_root), data_prefix=prefix, **kwargs)

    def full_init(self) -> None:
        """Read the annotations, unless that is done."""
        with collector_off():
            super().full_init()

    @property
    def img_prefix(self) -> str:
        """Folder of the images."""
        return self.data_prefix['img_path']


@DATASETS.register_module()
class ConcatDataset(_ConcatDataset):
    """mmengine's, for pipelines that begin with :class:`mmbeit.datasets.transforms.seed.SeedTransforms`.

    The seed of a sample reaches the data set that it is of.
    """

    def _get_ori_dataset_idx(self, idx: int) -> tuple[int, int]:
        dataset, index = super()._get_ori_dataset_idx(idx)
        return dataset, SampleIndex(index, idx.seed, idx.epoch) if isinstance(idx, SampleIndex) else index


def vocabulary_of(answers: str | None) -> frozenset[str] | None:
    """The answers of a file (:func:`mmbeit.answers.read_answers`), or None without one."""
    return None if answers is None else frozenset(read_answers(answers))


@DATASETS.register_module()
class VQAv2(ImageTextDataset):
    """Questions about images of COCO, and what ten people answered.

    Gives `img_path`, `image_id`, `question`, `question_id`, and with annotations `gt_answer`, the different answers as
    they were given, `gt_answer_weight`, the share of the people who gave each, `question_type` and `answer_type`: the
    keys of mmpretrain's `COCOVQA`, which leaves no question out, and names nothing that is wrong.

    Args:
        question_file: `v2_OpenEnded_mscoco_*_questions.json`, below `data_root`.
        ann_file: `v2_mscoco_*_annotations.json`, below `data_root`; without it there are no answers, as of the test.
        answers: File of the answers that are classes. Questions to which none of them was given are left out, as they
            officially are of training and validation. None: all stay.
        images: Which images count: 'all'; 'held_out', `num_held_out` of them; 'rest', all others. Officially 1000 of
            val2014 are held out, which are drawn anew wherever the files are made; here they are always the same.
        num_held_out: How many images are held out.
        kwargs: Of :class:`ImageTextDataset`.

    Raises:
        ValueError: A file is malformed, a question is empty, or its image or its annotation is missing.
    """

    def __init__(
        self,
        question_file: str,
        ann_file: str = '',
        answers: str | None = None,
        images: str = 'all',
        num_held_out: int = NUM_HELD_OUT,
        **kwargs,
    ):
        if images not in ('all', 'held_out', 'rest'):
            raise ValueError(f"images {images!r} is not one of ('all', 'held_out', 'rest')")
        self.question_file = question_file
        self.answers = answers
        self.images = images
        self.num_held_out = num_held_out
        super().__init__(ann_file=ann_file, **kwargs)

    def _join_prefix(self) -> None:
        self.question_file = join_path(self.data_root, self.question_file)
        super()._join_prefix()

    def load_data_list(self) -> list[dict]:
        """The questions, in the order of the file."""
        vocabulary = vocabulary_of(self.answers)
        annotations = self._annotations() if self.ann_file else None
        paths = image_paths(self.img_prefix)
        data = []
        with Entries(self.question_file, 'questions', read_json(self.question_file)) as questions:
            for entry in questions:
                i = entry['question_id']
                info = dict(question=filled(entry['question'], 'question'), question_id=i, image_id=entry['image_id'])
                info['img_path'] = path_of(paths, entry['image_id'], self.img_prefix)
                if annotations is not None:
                    if i not in annotations:
                        raise ValueError(f'{self.ann_file} has no annotation of question {i}')
                    info.update(annotations[i])
                    if vocabulary is not None and vocabulary.isdisjoint(info['gt_answer']):
                        continue
                data.append(info)
            return self._part_of(data, {entry['image_id'] for entry in questions.entries})

    def _annotations(self) -> dict[int, dict]:
        """By the id of the question."""
        found = {}
        with Entries(self.ann_file, 'annotations', read_json(self.ann_file)) as annotations:
            for entry in annotations:
                given = [answer['answer'] for answer in entry['answers']]
                if not given:
                    raise ValueError('there are no answers')
                counts = Counter(given)
                info = dict(gt_answer=list(counts), gt_answer_weight=[n / len(given) for n in counts.values()])
                info.update((key, entry[key]) for key in ('question_type', 'answer_type') if key in entry)
                found[entry['question_id']] = info
        return found

    def _part_of(self, data: list[dict], image_ids: set[int]) -> list[dict]:
        if self.images == 'all':
            return data
        if self.num_held_out >= len(image_ids):
            raise ValueError(f'num_held_out ({self.num_held_out}) of {len(image_ids)} images leaves none')
        held_out = set(random.Random(0).sample(sorted(image_ids), self.num_held_out))
        return [info for info in data if (info['image_id'] in held_out) == (self.images == 'held_out')]


@DATASETS.register_module()
class VisualGenomeQA(ImageTextDataset):
    """Questions about images of Visual Genome, each with one answer.

    Gives what :class:`VQAv2` gives. The answers are normalised, as the classes are: 'Two.' is '2'. mmpretrain's data
    set of this name reads keys that the file does not have.

    Args:
        ann_file: `question_answers.json`, below `data_root`.
        answers: As of :class:`VQAv2`: which questions stay.
        kwargs: Of :class:`ImageTextDataset`. The images may be in folders within that of `data_prefix`.

    Raises:
        ValueError: The file is malformed, a question is empty, or its image is missing.
    """

    def __init__(self, ann_file: str = 'question_answers.json', answers: str | None = None, **kwargs):
        self.answers = answers
        super().__init__(ann_file=ann_file, **kwargs)

    def load_data_list(self) -> list[dict]:
        """The questions, in the order of the file."""
        vocabulary = vocabulary_of(self.answers)
        paths = image_paths(self.img_prefix)
        data = []
        with Entries(self.ann_file, 'image', read_json(self.ann_file)) as images:
            for image in images:
                for entry in image['qas']:
                    answer = normalize_word(entry['answer'])
                    if vocabulary is not None and answer not in vocabulary:
                        continue
                    info = dict(question=filled(entry['question'], 'question'), question_id=entry['qa_id'])
                    info.update(image_id=entry['image_id'], gt_answer=[answer], gt_answer_weight=[1.0])
                    info['img_path'] = path_of(paths, entry['image_id'], self.img_prefix)
                    data.append(info)
        return data


@DATASETS.register_module()
class NLVR2(ImageTextDataset):
    """Sentences about two images each, true or false.

    Gives `img_path`, a list of two, `text`, `gt_label`, 1 where the sentence is true, and `identifier`. mmpretrain's
    data set of this name does not find the images of the training split, which are in numbered folders.

    Args:
        ann_file: `train.json`, `dev.json` or `test1.json` (test-P), of https://github.com/lil-lab/nlvr, below
            `data_root`.
        data_prefix: Where the images of this split are: 'images/train', 'dev' or 'test1'.
        kwargs: Of :class:`ImageTextDataset`.

    Raises:
        ValueError: The file is malformed, or a sentence is empty.
    """

    LABELS = {'True': 1, 'False': 0}

    def load_data_list(self) -> list[dict]:
        """The sentences, in the order of the file."""
        data = []
        with Entries(self.ann_file, 'sentence', read_json_lines(self.ann_file), first=1) as sentences:
            for entry in sentences:
                label = str(entry['label'])
                if label not in self.LABELS:
                    raise ValueError(f'the label is {label!r}, neither True nor False')
                folder = [str(entry['directory'])] if 'directory' in entry else []
                stem = entry['identifier'].rpartition('-')[0]
                paths = [join_path(self.img_prefix, *folder, f'{stem}-img{i}.png') for i in range(2)]
                text = filled(entry['sentence'], 'sentence')
                data.append(
                    dict(img_path=paths, text=text, gt_label=self.LABELS[label], identifier=entry['identifier'])
                )
        return data


class KarpathyDataset(ImageTextDataset):
    """Images with captions in the splits of Karpathy and Fei-Fei, of COCO and of Flickr30k.

    Args:
        ann_file: `dataset_coco.json` or `dataset_flickr30k.json`, below `data_root`.
        split: One of 'train', 'restval', 'val', 'test', or several. Training on COCO takes ('train', 'restval').
        test_mode: False: a sample for every caption. True: one for every image.
        kwargs: Of :class:`ImageTextDataset`.

    Raises:
        ValueError: The file is malformed, an image has no caption or an empty one, or there is no such split.
    """

    def __init__(self, ann_file: str, split: str | Sequence[str], **kwargs):
        self.split = (split,) if isinstance(split, str) else tuple(split)
        super().__init__(ann_file=ann_file, **kwargs)

    def images(self) -> list[tuple[str, int, list[str]]]:
        """Path, id and captions of every image of the split."""
        found, splits = [], set()
        with Entries(self.ann_file, 'images', read_json(self.ann_file)) as images:
            for entry in images:
                splits.add(entry['split'])
                if entry['split'] not in self.split:
                    continue
                captions = [filled(sentence['raw'], 'caption') for sentence in entry['sentences']]
                if not captions:
                    raise ValueError(f'{entry["filename"]} has no caption')
                path = join_path(self.img_prefix, entry.get('filepath', ''), entry['filename'])
                found.append((path, entry.get('cocoid', entry.get('imgid')), captions))
        if not set(self.split) <= splits:
            raise ValueError(f'split {self.split} is not among those of {self.ann_file}: {sorted(splits)}')
        return found


@DATASETS.register_module()
class KarpathyCaption(KarpathyDataset):
    """Captions to learn from, or images to write captions for.

    A sample has `img_path`, `image_id` and `gt_caption`: the caption, or in `test_mode` the list of all of the image.
    mmpretrain's `COCOCaption` gives the same from the files of BLIP.
    """

    def load_data_list(self) -> list[dict]:
        """The captions, or the images."""
        data = []
        for path, i, captions in self.images():
            for caption in [captions] if self.test_mode else captions:
                data.append(dict(img_path=path, image_id=i, gt_caption=caption))
        return data


@DATASETS.register_module()
class KarpathyRetrieval(KarpathyDataset):
    """Images and texts to find by each other.

    A sample has `img_path`, `image_id`, which counts the images from 0, and `text`. In `test_mode` `text` is a list,
    and `gt_text_id` and `gt_image_id` say which numbers these texts and the image have: what mmpretrain's
    `RetrievalValLoop` wants, and what its `Flickr30kRetrieval` and `COCORetrieval` give, the latter from other files.

    Attributes:
        img_size: Number of images.
        text_size: Number of texts.
    """

    def load_data_list(self) -> list[dict]:
        """The pairs, or the images."""
        data, num_texts = [], 0
        images = self.images()
        for i, (path, _, captions) in enumerate(images):
            ids = list(range(num_texts, num_texts + len(captions)))
            num_texts += len(captions)
            if self.test_mode:
                shared = dict(text=captions, gt_text_id=ids, gt_image_id=[i] * len(ids))
                data.append(dict(img_path=path, image_id=i, **shared))
            else:
                data += [dict(img_path=path, image_id=i, text=text) for text in captions]
        self.img_size, self.text_size = len(images), num_texts
        return data


@DATASETS.register_module()
class NoCaps(ImageTextDataset):
    """Images of NoCaps to write captions for, each once.

    Gives `img_path`, `image_id` and `gt_caption`, the list of its captions; empty for the test split, of which nobody
    has them. mmpretrain's data set of this name has a sample for every caption, so none for the test split.

    Args:
        ann_file: `nocaps_val_4500_captions.json` or `nocaps_test_image_info.json`, below `data_root`.
        data_prefix: Where the images of this split are.
        kwargs: Of :class:`ImageTextDataset`.

    Raises:
        ValueError: The file is malformed.
    """

    def load_data_list(self) -> list[dict]:
        """The images, in the order of the file."""
        content = read_json(self.ann_file)
        data = {}
        with Entries(self.ann_file, 'images', content) as images:
            for entry in images:
                path = join_path(self.img_prefix, entry['file_name'])
                data[entry['id']] = dict(img_path=path, image_id=entry['id'], gt_caption=[])
        if 'annotations' in content:
            with Entries(self.ann_file, 'annotations', content) as annotations:
                for entry in annotations:
                    if entry['image_id'] not in data:
                        raise ValueError(f'there is no image {entry["image_id"]}')
                    data[entry['image_id']]['gt_caption'].append(filled(entry['caption'], 'caption'))
        return list(data.values())
