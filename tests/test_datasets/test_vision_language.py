"""Images with texts, from files of the official forms, right and wrong ones."""

import json
import shutil
import warnings

import numpy as np
import pytest
from mmengine.registry import DATASETS
from official_data import CAPTIONS, COLORS, write_karpathy, write_nlvr2, write_nocaps, write_visual_genome, write_vqa
from PIL import Image

from mmbeit.datasets.samplers import SampleIndex
from mmbeit.datasets.transforms.answers import ScoreAnswers
from mmbeit.datasets.transforms.text import TokenizeText
from mmbeit.text_tokenizer import BOS, EOS

COLOR_IDS = {name: i for i, name in enumerate(COLORS)}


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp('data')
    write_vqa(root / 'vqa')
    write_visual_genome(root / 'vg')
    write_nlvr2(root / 'nlvr2')
    write_karpathy(root / 'coco')
    write_karpathy(root / 'flickr30k', 'dataset_flickr30k.json')
    write_nocaps(root / 'nocaps')
    return root


def build(kind: str, **kwargs):
    return DATASETS.build(
        dict(type=f'mmbeit.{kind}', **{k: str(v) if k == 'data_root' else v for k, v in kwargs.items()})
    )


def vqa(root, split: str = 'train2014', **kwargs):
    return build(
        'VQAv2',
        data_root=root,
        data_prefix=split,
        question_file=f'v2_OpenEnded_mscoco_{split}_questions.json',
        ann_file=f'v2_mscoco_{split}_annotations.json',
        **kwargs,
    )


# ---- VQAv2 ----


def test_vqa_gives_what_mmpretrains_dataset_gives(data):
    from mmpretrain.datasets.coco_vqa import COCOVQA  # registered only where pycocotools is installed

    theirs = COCOVQA(
        data_root=str(data / 'vqa'),
        data_prefix='train2014',
        question_file='v2_OpenEnded_mscoco_train2014_questions.json',
        ann_file='v2_mscoco_train2014_annotations.json',
    )
    ours = vqa(data / 'vqa')
    assert len(ours) == len(theirs) == 8
    for i in range(8):
        a, b = ours.get_data_info(i), theirs.get_data_info(i)
        assert a == {key: b[key] for key in a} and set(b) - set(a) == {'multiple_choice_answer'}
    assert ours[0]['gt_answer'] == ['red', 'Red-ish', 'none'] and ours[0]['gt_answer_weight'] == [0.8, 0.1, 0.1]


def test_questions_without_an_answer_of_the_vocabulary_are_left_out_where_it_is_given(data):
    kept = vqa(data / 'vqa', answers=str(data / 'vqa' / 'answer2label.txt'))
    assert [info['question'] for info in kept] == ['What color is it?'] * 4


def test_held_out_images_and_the_rest_are_all_and_always_the_same(data):
    ids = {}
    for images in ('held_out', 'rest', 'all'):
        ids[images] = [info['question_id'] for info in vqa(data / 'vqa', 'val2014', images=images, num_held_out=1)]
    assert sorted(ids['held_out'] + ids['rest']) == sorted(ids['all']) and len(ids['held_out']) == 2
    assert len({i // 10 for i in ids['held_out']}) == 1
    again = vqa(data / 'vqa', 'val2014', images='held_out', num_held_out=1)
    assert [info['question_id'] for info in again] == ids['held_out']
    with pytest.raises(ValueError, match=r'num_held_out \(1000\) of 4 images leaves none'):
        vqa(data / 'vqa', 'val2014', images='rest')
    with pytest.raises(ValueError, match="images 'some' is not one of"):
        vqa(data / 'vqa', images='some')


def test_test_questions_have_no_answers(data):
    name = 'v2_OpenEnded_mscoco_test2015_questions.json'
    test = build('VQAv2', data_root=data / 'vqa', data_prefix='test2015', question_file=name)
    assert len(test) == 8 and 'gt_answer' not in test[0] and test[0]['question_id'] == 2000


@pytest.fixture
def own_vqa(data, tmp_path):
    root = tmp_path / 'vqa'
    shutil.copytree(data / 'vqa', root)

    def change(name: str, edit) -> None:
        path = root / f'v2_{name}.json'
        content = json.loads(path.read_text())
        edit(content)
        path.write_text(json.dumps(content))

    return root, change


QUESTIONS, ANNOTATIONS = 'OpenEnded_mscoco_train2014_questions', 'mscoco_train2014_annotations'


@pytest.mark.parametrize(
    ('file', 'edit', 'message'),
    [
        (QUESTIONS, lambda c: c['questions'][3].update(question='  '), r"questions 3: the question is '  '"),
        (QUESTIONS, lambda c: c['questions'][3].update(question=None), r'questions 3: the question is None'),
        (QUESTIONS, lambda c: c['questions'][3].pop('question'), r"questions 3: there is no 'question'"),
        (QUESTIONS, lambda c: c['questions'].insert(3, 'Why?'), r'questions 3: string indices must be integers'),
        (
            QUESTIONS,
            lambda c: c['questions'][3].update(image_id=77),
            r'questions 3: there is no image 77 in .*2014',
        ),
        (QUESTIONS, lambda c: c.pop('questions'), r'questions.json has no list of questions'),
        (
            ANNOTATIONS,
            lambda c: c['annotations'].pop(3),
            r'questions 3: .*json has no annotation of question 11',
        ),
        (ANNOTATIONS, lambda c: c['annotations'][3].update(answers=[]), r'annotations 3: there are no answers'),
        (ANNOTATIONS, lambda c: c['annotations'][3].pop('answers'), r"annotations 3: there is no 'answers'"),
        (ANNOTATIONS, lambda c: c.pop('annotations'), r'annotations.json has no list of annotations'),
    ],
)
def test_what_is_wrong_with_a_file_is_said_on_one_line(own_vqa, file, edit, message):
    root, change = own_vqa
    change(file, edit)
    with pytest.raises(ValueError, match=message) as caught:
        vqa(root)
    assert '\n' not in str(caught.value) and str(root) in str(caught.value)


def test_a_file_that_is_cut_off_is_named(own_vqa):
    path = own_vqa[0] / f'v2_{QUESTIONS}.json'
    path.write_text(path.read_text()[:100])
    with pytest.raises(ValueError, match=f'{path} is no JSON: '):
        vqa(own_vqa[0])


def test_an_image_without_a_question_does_not_matter(own_vqa):
    root, change = own_vqa
    change(QUESTIONS, lambda c: c.update(questions=c['questions'][2:]))
    assert len(vqa(root)) == 6


# ---- targets ----


@pytest.mark.parametrize(('votes', 'score'), [(1, 0.3), (2, 0.6), (3, 0.9), (4, 1.0), (7, 1.0), (10, 1.0)])
def test_score_of_an_answer_grows_with_its_votes_up_to_four(votes, score):
    results = dict(gt_answer=['red', 'gone'], gt_answer_weight=[votes / 10, 1 - votes / 10])
    assert ScoreAnswers(['blue', 'red']).transform(results)['gt_score'].tolist() == [0.0, np.float32(score)]


def test_answers_are_looked_up_as_they_were_given(data):
    score = ScoreAnswers(str(data / 'vqa' / 'answer2label.txt'))
    results = score.transform(dict(gt_answer=['Red', 'green'], gt_answer_weight=[0.5, 0.5]))
    assert results['gt_score'].tolist() == [0, 1, 0, 0, 0] and results['gt_score'].dtype == np.float32
    assert score.transform(dict(gt_answer=['violet']))['gt_score'].tolist() == [0] * 5, 'outside of the vocabulary'
    assert score.transform(dict(gt_answer=['white']))['gt_score'].tolist() == [0, 0, 0, 1, 0], 'the only answer'


# ---- Visual Genome ----


def test_visual_genome_has_normalised_answers_and_images_of_both_folders(data):
    everything = build('VisualGenomeQA', data_root=data / 'vg')
    assert len(everything) == 8
    first = everything[0]
    assert first['question'] == 'What color is it?' and first['question_id'] == 10 and first['gt_answer'] == ['green']
    assert {info['img_path'].split('/')[-2] for info in everything} == {'VG_100K', 'VG_100K_2'}
    assert all(Image.open(info['img_path']).size == (48, 40) for info in everything)
    kept = build('VisualGenomeQA', data_root=data / 'vg', answers=str(data / 'vqa' / 'answer2label.txt'))
    assert [info['gt_answer'] for info in kept] == [['green'], ['blue'], ['white'], ['red']]


# ---- NLVR2 ----


@pytest.mark.parametrize(('split', 'folder'), [('train', 'images/train'), ('dev', 'dev'), ('test1', 'test1')])
def test_nlvr2_finds_both_images_of_every_split(data, split, folder):
    pairs = build('NLVR2', data_root=data / 'nlvr2', ann_file=f'{split}.json', data_prefix=folder)
    assert [info['gt_label'] for info in pairs] == [1, 0, 1, 0]
    for info in pairs:
        assert [path[-8:] for path in info['img_path']] == ['img0.png', 'img1.png']
        assert all(Image.open(path).size == (48, 40) for path in info['img_path'])
    assert ('/train/2/' in pairs[2]['img_path'][0]) == (split == 'train')


@pytest.mark.parametrize(
    ('line', 'message'),
    [
        ('{"sentence": "x", "label": "Maybe", "identifier": "dev-0-0-0"}', "sentence 2: the label is 'Maybe'"),
        ('{"sentence": "", "label": "True", "identifier": "dev-0-0-0"}', "sentence 2: the sentence is ''"),
        ('{"label": "True", "identifier": "dev-0-0-0"}', "sentence 2: there is no 'sentence'"),
        ('{"sentence": ', 'line 2: '),
    ],
)
def test_a_wrong_line_of_nlvr2_is_named(tmp_path, line, message):
    path = tmp_path / 'dev.json'
    path.write_text('{"sentence": "x", "label": "True", "identifier": "dev-0-0-0"}\n' + line + '\n')
    with pytest.raises(ValueError, match=f'{path}, {message}'):
        build('NLVR2', data_root=tmp_path, ann_file='dev.json', data_prefix='dev')


# ---- captions ----


def test_captions_are_one_sample_each_in_training_and_one_for_each_image_in_evaluation(data):
    coco = dict(data_root=data / 'coco', ann_file='dataset_coco.json')
    train = build('KarpathyCaption', split=('train', 'restval'), **coco)
    assert len(train) == 2 * 4 * 3
    assert [info['gt_caption'] for info in train][:3] == [caption.format('red') for caption in CAPTIONS]
    assert train[0]['image_id'] == 1000 and 'train2014' in train[0]['img_path'] and 'val2014' in train[12]['img_path']
    test = build('KarpathyCaption', split='test', test_mode=True, **coco)
    assert [info['image_id'] for info in test] == [1012, 1013, 1014, 1015]
    assert test[0]['gt_caption'] == [caption.format('red') for caption in CAPTIONS]
    assert all(Image.open(info['img_path']).size == (48, 40) for info in [*train, *test])


def test_nocaps_has_every_image_once_and_those_of_the_test_too(data):
    val = build('NoCaps', data_root=data / 'nocaps', ann_file='nocaps_val_4500_captions.json', data_prefix='val')
    assert [info['image_id'] for info in val] == [0, 1, 2]
    assert val[1]['gt_caption'] == [caption.format('green') for caption in CAPTIONS[:2]]
    test = build('NoCaps', data_root=data / 'nocaps', ann_file='nocaps_test_image_info.json', data_prefix='test')
    assert [info['gt_caption'] for info in test] == [[]] * 3
    assert all(Image.open(info['img_path']) for info in [*val, *test])


# ---- retrieval ----


def test_retrieval_on_flickr30k_gives_what_mmpretrains_dataset_gives(data):
    from mmpretrain.datasets.flickr30k_retrieval import Flickr30kRetrieval

    kwargs = dict(data_root=str(data / 'flickr30k'), ann_file='dataset_flickr30k.json', data_prefix='flickr30k-images')
    for split, test_mode in (('train', False), ('test', True)):
        ours = build('KarpathyRetrieval', split=split, test_mode=test_mode, **kwargs)
        theirs = Flickr30kRetrieval(split=split, test_mode=test_mode, **kwargs)
        assert (len(ours), ours.img_size, ours.text_size) == (len(theirs), theirs.img_size, theirs.text_size)
        assert (ours.img_size, ours.text_size) == (4, 12)
        for i in range(len(ours)):
            a, b = ours.get_data_info(i), theirs.get_data_info(i)
            assert a == {key: b[key] for key in a}
            assert Image.open(a['img_path']).size == (48, 40)


def test_retrieval_on_coco_trains_on_train_and_restval(data):
    coco = dict(data_root=data / 'coco', ann_file='dataset_coco.json')
    assert len(build('KarpathyRetrieval', split=('train', 'restval'), **coco)) == 24
    test = build('KarpathyRetrieval', split='test', test_mode=True, **coco)
    assert [info['gt_text_id'] for info in test] == [[0, 1, 2], [3, 4, 5], [6, 7, 8], [9, 10, 11]]
    assert [info['gt_image_id'] for info in test] == [[i] * 3 for i in range(4)]


@pytest.mark.parametrize(
    ('edit', 'message'),
    [
        (lambda c: c['images'][1].update(sentences=[]), r'images 1: 1001.jpg has no caption'),
        (lambda c: c['images'][1]['sentences'][0].update(raw=''), r"images 1: the caption is ''"),
        (lambda c: c['images'][1].pop('filename'), r"images 1: there is no 'filename'"),
        (lambda c: c['images'][1].pop('split'), r"images 1: there is no 'split'"),
        (lambda c: c.pop('images'), r'has no list of images'),
    ],
)
def test_an_image_without_a_caption_is_named(data, tmp_path, edit, message):
    content = json.loads((data / 'flickr30k' / 'dataset_flickr30k.json').read_text())
    edit(content)
    (tmp_path / 'own.json').write_text(json.dumps(content))
    with pytest.raises(ValueError, match=message):
        build('KarpathyRetrieval', data_root=tmp_path, ann_file='own.json', split='train')


def test_a_split_that_is_not_there_is_named_with_those_that_are(data):
    with pytest.raises(ValueError, match=r"split \('restval',\) is not among those of .*\['test', 'train', 'val'\]"):
        build('KarpathyCaption', data_root=data / 'flickr30k', ann_file='dataset_flickr30k.json', split='restval')


# ---- all ----


def test_seeds_reach_the_parts_of_a_concatenation(data):
    parts = [dict(type='mmbeit.VisualGenomeQA', data_root=str(data / 'vg'))] * 2
    both = build('ConcatDataset', datasets=parts)
    assert len(both) == 16
    index = both[SampleIndex(11, seed=5, epoch=2)]['sample_idx']
    assert (index, index.seed, index.epoch) == (3, 5, 2)
    assert both[11]['sample_idx'] == 3


class Letters:
    """A text tokenizer with an id for each letter."""

    mask_id = 300

    def encode(self, text: str, max_length: int = 64) -> list[int]:
        if not text.strip():
            raise ValueError(f'the text {text!r} is empty')
        return [BOS, *(4 + ord(c) for c in text[: max_length - 2]), EOS]


def test_a_long_question_is_cut_off_and_said_to_be_once(monkeypatch):
    monkeypatch.setattr('mmbeit.datasets.transforms.text.as_tokenizer', lambda tokenizer: tokenizer)
    tokenize = TokenizeText(Letters(), key='question', max_length=64)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        assert len(tokenize.transform(dict(question='x' * 62))['text_ids']) == 64
    with pytest.warns(UserWarning, match=r"a question of 10002 ids is cut off to 64 \(said once\): 'x{40}\.\.\.'"):
        ids = tokenize.transform(dict(question='x' * 10_000))['text_ids']
    assert ids == [BOS, *[4 + ord('x')] * 62, EOS]
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        assert tokenize.transform(dict(question=['x' * 10_000, 'y']))['text_ids'] == [ids, [BOS, 4 + ord('y'), EOS]]
    with pytest.raises(ValueError, match="the text ' ' is empty"):
        tokenize.transform(dict(question=' '))
