"""Pictures of digits with texts: whether these are true of the pictures, and whether data sets can read the files."""

import json
import re
import runpy
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmbeit.answers import read_answers
from mmbeit.datasets.lines import PairLines, TextLines
from mmbeit.datasets.vision_language import NLVR2, KarpathyCaption, KarpathyRetrieval, VQAv2
from mmbeit.text_tokenizer import UNK, TextTokenizer
from test_tools.conftest import ROOT

pytest.importorskip('sentencepiece')
TOOL = ROOT / 'tools' / 'dataset_converters' / 'digit_pairs.py'
COUNTS = dict(train=60, val=40), dict(train=8, val=6)
PLACES = ('left', 'middle', 'right')


@pytest.fixture(scope='module')
def write_pairs():
    return runpy.run_path(str(TOOL))['write_pairs']


@pytest.fixture(scope='module')
def written(digits, write_pairs, tmp_path_factory) -> tuple[Path, dict[str, set[Path]]]:
    """The folder, and the scans that are in it."""
    root = tmp_path_factory.mktemp('pairs')
    return root, write_pairs(digits, root, *COUNTS)


@pytest.fixture(scope='module')
def root(written) -> Path:
    return written[0]


@pytest.fixture(scope='module')
def templates(digits) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """What a place can look like, (number, 256) of length 1, and the digit of each."""
    found = {}
    for split in ('train', 'val'):
        rows, labels = [], []
        for path in sorted((digits / split).glob('*/*.png')):
            for side, offset in ((16, (0, 0)), *((15, (i, j)) for i in (0, 1) for j in (0, 1))):
                place = np.zeros((16, 16))
                scan = Image.open(path).resize((side, side), Image.Resampling.BICUBIC)
                place[offset[0] : offset[0] + side, offset[1] : offset[1] + side] = scan
                rows.append(place.ravel() - place.mean())
                labels.append(int(path.parent.name))
        rows = np.stack(rows)
        found[split] = rows / np.linalg.norm(rows, axis=1, keepdims=True), np.array(labels)
    return found


def read_places(path: str | Path, templates: tuple[np.ndarray, np.ndarray]) -> dict[str, int]:
    """What a picture shows, from its pixels alone."""
    pixels = np.asarray(Image.open(path).convert('L'), dtype=float)
    assert pixels.shape == (16, 48)
    found = {}
    for i, name in enumerate(PLACES):
        place = pixels[:, 16 * i : 16 * i + 16].ravel()
        if np.ptp(place) > 60:
            rows, labels = templates
            found[name] = int(labels[(rows @ (place - place.mean())).argmax()])
    return found


@pytest.mark.parametrize('split', ['train', 'val'])
def test_captions_are_true_of_the_pixels(root, templates, split):
    dataset = KarpathyCaption(ann_file='dataset_coco.json', data_root=root, split=split)
    assert len(dataset) == COUNTS[0][split]
    for sample in dataset:
        said = re.findall(r'(left|middle|right) (\d)', sample['gt_caption'])
        assert {place: int(digit) for place, digit in said} == read_places(sample['img_path'], templates[split])


def true_answer(question: str, shown: dict[str, int]) -> str:
    if question == 'How many digits are there?':
        return str(len(shown))
    if found := re.fullmatch(r'Which digit is (?:on|in) the (\w+)\?', question):
        return str(shown[found[1]])
    return 'yes' if int(re.fullmatch(r'Is there an? (\d)\?', question)[1]) in shown.values() else 'no'


@pytest.mark.parametrize(('split', 'folder'), [('train', 'train2014'), ('val', 'val2014')])
def test_answers_are_true_of_the_pixels(root, templates, split, folder):
    dataset = VQAv2(
        f'v2_OpenEnded_mscoco_{folder}_questions.json',
        ann_file=f'v2_mscoco_{folder}_annotations.json',
        data_root=root,
        data_prefix=folder,
        answers=root / 'answer2label.txt',
    )
    answers = []
    for sample in dataset:
        assert sample['gt_answer_weight'] == [1.0]
        assert sample['gt_answer'] == [
            true_answer(sample['question'], read_places(sample['img_path'], templates[split]))
        ]
        answers += sample['gt_answer']
    assert answers.count('yes') + answers.count('no') == COUNTS[0][split]
    assert 0.25 < answers.count('yes') / COUNTS[0][split] < 0.75
    assert set(answers) <= set(read_answers(root / 'answer2label.txt')) == {*map(str, range(10)), 'yes', 'no'}


def is_true(sentence: str, left: dict[str, int], right: dict[str, int]) -> bool:
    if found := re.fullmatch(r'There are (\d) digits in all\.', sentence):
        return len(left) + len(right) == int(found[1])
    if found := re.fullmatch(r'There are more digits in the (left|right) picture\.', sentence):
        more, less = (left, right) if found[1] == 'left' else (right, left)
        return len(more) > len(less)
    who, digit = re.fullmatch(r'(.+) pictures? shows? an? (\d)\.', sentence).groups()
    shows = [int(digit) in picture.values() for picture in (left, right)]
    return {'The left': shows[0], 'The right': shows[1], 'Both': all(shows), 'Only one': sum(shows) == 1}[who]


@pytest.mark.parametrize(('split', 'file', 'folder'), [('train', 'train', 'images/train'), ('val', 'dev', 'dev')])
def test_statements_are_as_true_of_the_pixels_as_their_labels_say(root, templates, split, file, folder):
    samples = list(NLVR2(ann_file=f'{file}.json', data_root=root / 'nlvr2', data_prefix=folder))
    assert sorted(sample['gt_label'] for sample in samples) == [0] * COUNTS[1][split] + [1] * COUNTS[1][split]
    for sample in samples:
        pictures = [read_places(path, templates[split]) for path in sample['img_path']]
        assert is_true(sample['text'], *pictures) == sample['gt_label'], sample['text']


def test_no_scan_is_in_both_splits(written, digits):
    _, used = written
    for split, paths in used.items():
        assert paths and all(path.is_relative_to(digits / split) for path in paths)
    contents = {split: {path.read_bytes() for path in paths} for split, paths in used.items()}
    assert not contents['train'] & contents['val']


def test_pictures_to_evaluate_on_have_captions_of_their_own(root):
    dataset = KarpathyRetrieval(ann_file='dataset_coco.json', data_root=root, split='val', test_mode=True)
    texts = [text for sample in dataset for text in sample['text']]
    assert len(set(texts)) == len(texts) == dataset.text_size == dataset.img_size == COUNTS[0]['val']


def test_mmpretrain_reads_the_files(root):
    from mmpretrain.datasets.coco_caption import COCOCaption
    from mmpretrain.datasets.coco_retrieval import COCORetrieval
    from mmpretrain.datasets.coco_vqa import COCOVQA
    from mmpretrain.datasets.flickr30k_retrieval import Flickr30kRetrieval

    count = COUNTS[0]['val']
    ours = KarpathyRetrieval(ann_file='dataset_coco.json', data_root=root, split='val', test_mode=True)
    splits = dict(split='val', data_prefix='val2014', data_root=str(root), test_mode=True, pipeline=[])
    flickr = Flickr30kRetrieval(ann_file='dataset_coco.json', **splits)
    coco = COCORetrieval(ann_file='caption_karpathy_val2014.json', data_root=str(root), test_mode=True)
    for theirs in (flickr, coco):
        for i in range(count):
            for key in ('img_path', 'text', 'gt_text_id', 'image_id'):
                assert theirs[i][key] == ours[i][key]
    caption = COCOCaption(
        ann_file='coco_karpathy_val.json', data_root=str(root), data_prefix=dict(img_path=''), pipeline=[]
    )
    assert [sample['gt_caption'] for sample in caption] == [sample['text'] for sample in ours]
    vqa = COCOVQA(
        str(root),
        'val2014',
        'v2_OpenEnded_mscoco_val2014_questions.json',
        'v2_mscoco_val2014_annotations.json',
        pipeline=[],
    )
    assert all(Path(sample['img_path']).is_file() and len(sample['gt_answer']) == 1 for sample in vqa)
    truth = json.loads((root / 'coco_karpathy_val_gt.json').read_text())
    assert {image['id'] for image in truth['images']} == {entry['image_id'] for entry in truth['annotations']}


def test_pretraining_sees_pictures_to_train_on_and_no_others(root):
    pairs = list(PairLines(ann_file='pairs.jsonl', data_root=str(root)))
    captions = KarpathyCaption(ann_file='dataset_coco.json', data_root=root, split='train')
    pairs_of = [(Path(pair['img_path']).name, pair['text']) for pair in pairs]
    assert sorted(pairs_of) == sorted((Path(sample['img_path']).name, sample['gt_caption']) for sample in captions)
    assert len(TextLines(ann_file='texts.txt', data_root=str(root))) == 12000


def test_words_have_a_piece_each_and_come_back(root):
    tokenizer = TextTokenizer(root / 'text.spm')
    for text in sorted(set((root / 'texts.txt').read_text().splitlines()))[::50]:
        ids = tokenizer.encode(text)
        assert UNK not in ids and tokenizer.decode(ids) == text
    assert len(tokenizer.encode('left 4 and middle 1 and right 5')) == 8 + 2


def contents(root: Path) -> dict[str, object]:
    """What is in every file; of the text tokenizer the pieces, since it also names the files that it was trained on."""
    paths = [path for path in root.rglob('*') if path.is_file() and path.suffix not in ('.index', '.lock', '.spm')]
    model = TextTokenizer(root / 'text.spm').model
    pieces = [(model.IdToPiece(i), model.GetScore(i)) for i in range(len(model))]
    return {'text.spm': pieces, **{str(path.relative_to(root)): path.read_bytes() for path in paths}}


def test_a_seed_gives_the_same_files_again_and_another_one_others(digits, root, write_pairs, tmp_path):
    write_pairs(digits, tmp_path / 'again', *COUNTS)
    first = contents(root)
    assert contents(tmp_path / 'again') == first
    write_pairs(digits, tmp_path / 'other', *COUNTS, seed=1)
    other = contents(tmp_path / 'other')
    assert other.keys() == first.keys()
    same = {name for name, content in first.items() if other[name] == content}
    assert not {name for name in same if name.endswith(('.jpg', '.png', '.txt', '.json', '.jsonl'))} - {
        'answer2label.txt'
    }


def test_what_an_earlier_call_left_is_replaced(digits, write_pairs, tmp_path):
    for count in (12, 11):
        write_pairs(digits, tmp_path, dict(train=count, val=10), dict(train=1, val=1))
    assert len(list((tmp_path / 'train2014').iterdir())) == 11


def test_bad_input_is_named(digits, write_pairs, tmp_path):
    with pytest.raises(FileNotFoundError, match='write them with'):
        write_pairs(tmp_path, tmp_path / 'out', *COUNTS)
    with pytest.raises(ValueError, match='1001 pictures to evaluate on: expected at most 1000'):
        write_pairs(digits, tmp_path / 'out', dict(train=1, val=1001), COUNTS[1])
