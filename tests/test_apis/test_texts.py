"""Inferencers that know texts, against direct calls of their models."""

import importlib.util
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from builders import randomize, tiny_classifier
from builders_beit3 import SIZES, TINY, tiny_task
from mmengine.config import Config
from mmpretrain.structures import DataSample
from PIL import Image

import mmbeit
from mmbeit import DataConfig
from mmbeit.answers import write_answers
from mmbeit.apis.data import steps_of
from mmbeit.apis.inference import INFERENCERS, call_options, needs, own_options
from mmbeit.apis.retrieval import Embedder, contact_sheet

pytest.importorskip('sentencepiece')

ROOT = Path(__file__).parents[2]
DATA = DataConfig((127.5,) * 3, (127.5,) * 3, 32, None)
WORDS = ['a', 'big', 'red', 'cat', 'and', 'two', 'small', 'dogs', 'on', 'the', 'left', 'of', 'it']
QUESTIONS = ['two dogs', 'a big red cat on the left of it', 'it']
VOCAB = 36


@pytest.fixture(scope='module')
def tokenizer(tmp_path_factory):
    spec = importlib.util.spec_from_file_location('train_text_tokenizer', ROOT / 'tools' / 'train_text_tokenizer.py')
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    texts = tmp_path_factory.mktemp('texts') / 'texts.txt'
    draw = np.random.default_rng(0)
    texts.write_text('\n'.join(' '.join(draw.choice(WORDS, 6)) for _ in range(200)))
    return tool.train([texts], texts.with_name('own.spm'), vocab_size=VOCAB, coverage=1.0)


def model(task, **kwargs):
    built = tiny_task(task, **{**SIZES, 'vocab_size': VOCAB, 'num_text_positions': 20, **kwargs}).eval()
    built.data_config = DATA
    return built


def picture(seed=0, size=(50, 40)):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*size[::-1], 3), np.uint8))


def pictures(count=3):
    return [picture(i, (40 + 5 * i, 60 - 5 * i)) for i in range(count)]


def samples(tokenizer, *texts):
    return [DataSample(text_ids=tokenizer.encode(text)) for text in texts]


# ---- each task ----


@pytest.mark.parametrize('batch_size', [1, 2, 8])
@torch.no_grad()
def test_answers_are_those_of_the_model(tokenizer, batch_size):
    vqa, images = model('vqa'), pictures()
    answers = [f'answer {i}' for i in range(vqa.head.fc2.out_features)]
    results = mmbeit.inference_model(
        vqa, images, QUESTIONS, tokenizer=tokenizer, answers=answers, batch_size=batch_size
    )
    expected = vqa(DATA(images), samples(tokenizer, *QUESTIONS), mode='tensor').sigmoid()
    for result, question, scores in zip(results, QUESTIONS, expected, strict=True):
        torch.testing.assert_close(torch.tensor(result['pred_scores']), scores)
        assert result['question'] == question
        assert (
            result['pred_label'] == int(scores.argmax()) and result['pred_answer'] == f'answer {int(scores.argmax())}'
        )
        assert result['pred_score'] == pytest.approx(float(scores.max()), abs=1e-6)
    assert len({result['pred_label'] for result in results}) > 1


def test_one_question_is_for_all_pictures_of_a_folder(tokenizer, tmp_path):
    for i, image in enumerate(pictures(2)):
        image.save(tmp_path / f'{i}.png')
    (tmp_path / 'broken.png').write_bytes(b'')
    infer = mmbeit.VisualQuestionAnsweringInferencer(model('vqa'), tokenizer=tokenizer)
    with pytest.warns(UserWarning, match=r'broken\.png'):
        results = infer(tmp_path, 'two dogs')
    assert results[str(tmp_path / 'broken.png')] is None
    single = infer(tmp_path / '0.png', 'two dogs')
    np.testing.assert_allclose(results[str(tmp_path / '0.png')]['pred_scores'], single['pred_scores'], atol=1e-6)
    assert 'pred_answer' not in single  # nothing says what the labels mean


def test_questions_that_do_not_fit_are_refused(tokenizer):
    infer = mmbeit.VisualQuestionAnsweringInferencer(model('vqa'), tokenizer=tokenizer)
    with pytest.raises(ValueError, match='2 questions for 3 pictures: expected one, or one for each'):
        infer(pictures(), QUESTIONS[:2])
    with pytest.raises(ValueError, match="the text '  ' is empty"):
        infer(pictures(), [*QUESTIONS[:2], '  '])
    with pytest.raises(ValueError, match='2 answers for a model of'):
        mmbeit.VisualQuestionAnsweringInferencer(model('vqa'), tokenizer=tokenizer, answers=['yes', 'no'])


@torch.no_grad()
def test_statements_are_judged_as_the_model_does(tokenizer, tmp_path):
    nlvr, images = model('nlvr2'), pictures(4)
    inputs = [(images[0], images[1], QUESTIONS[0]), (images[2], images[3], QUESTIONS[1])]
    results = mmbeit.inference_model(nlvr, inputs, tokenizer=tokenizer)
    batch = torch.stack([DATA(images[0::2]), DATA(images[1::2])], dim=1)
    expected = nlvr(batch, samples(tokenizer, *QUESTIONS[:2]), mode='tensor').softmax(dim=1)
    for result, scores in zip(results, expected, strict=True):
        torch.testing.assert_close(torch.tensor(result['pred_scores']), scores)
        assert result['pred_label'] == int(scores.argmax())
    one = mmbeit.inference_model(nlvr, inputs[0], tokenizer=tokenizer)
    np.testing.assert_allclose(one['pred_scores'], results[0]['pred_scores'], atol=1e-6)
    with pytest.warns(UserWarning, match='none.png'):
        broken = mmbeit.inference_model(nlvr, [(tmp_path / 'none.png', *inputs[0][1:])], tokenizer=tokenizer)
    assert broken == [None]
    with pytest.raises(ValueError, match=r'expected \(left picture, right picture, sentence\)'):
        mmbeit.inference_model(nlvr, (images[0], images[1]), tokenizer=tokenizer)


@torch.no_grad()
def test_captions_are_those_of_the_model(tokenizer):
    captioner, images = model('captioner'), pictures()
    captioner.mask_id = tokenizer.mask_id
    results = mmbeit.inference_model(captioner, images, tokenizer=tokenizer, batch_size=2)
    for result, found in zip(results, captioner.generate(DATA(images)), strict=True):
        assert result['pred_caption'] == tokenizer.decode(found.words)
        assert result['pred_score'] == pytest.approx(found.score, abs=1e-5)


# ---- pictures and texts in one space ----


@torch.no_grad()
def test_features_are_those_of_the_model(tokenizer):
    dual, images = model('retrieval'), pictures()
    feats = dual.extract_feat(DATA(images), samples(tokenizer, *QUESTIONS))
    found = mmbeit.embed_images(dual, images, tokenizer=tokenizer, batch_size=2)
    torch.testing.assert_close(torch.stack(found), feats['image_feat'])
    for batch_size in (1, 2, 64):
        found = mmbeit.embed_texts(dual, QUESTIONS, batch_size, tokenizer=tokenizer)
        torch.testing.assert_close(found, feats['text_feat'])
    assert mmbeit.embed_texts(dual, [], tokenizer=tokenizer).shape == (0, 24)
    with pytest.raises(TypeError, match='expected a list of texts'):
        mmbeit.embed_texts(dual, 'two dogs', tokenizer=tokenizer)


@torch.no_grad()
def test_texts_for_pictures_and_pictures_for_texts_are_by_cosine(tokenizer, tmp_path):
    dual, images = model('retrieval'), pictures(4)
    feats = dual.extract_feat(DATA(images), samples(tokenizer, *QUESTIONS))
    cosines = feats['image_feat'] @ feats['text_feat'].T
    for row, hits in zip(
        cosines, mmbeit.inference_model(dual, images, texts=QUESTIONS, tokenizer=tokenizer, top=2), strict=True
    ):
        order = row.argsort(descending=True)[:2].tolist()
        assert [hit['sample_idx'] for hit in hits] == order and [hit['text'] for hit in hits] == [
            QUESTIONS[i] for i in order
        ]
        np.testing.assert_allclose([hit['match_score'] for hit in hits], row[order], atol=1e-6)
    paths = [tmp_path / f'{name}.png' for name in 'abcd']
    for path, image in zip(paths, images, strict=True):
        image.save(path)
    (tmp_path / 'ab.png').write_bytes(b'')  # second of the folder
    with pytest.warns(UserWarning, match='ab.png'):
        search = mmbeit.TextToImageRetrievalInferencer(dual, images=tmp_path, tokenizer=tokenizer)
    sheet = tmp_path / 'hits.png'
    for column, hits in zip(cosines.T, search(QUESTIONS, top=3, sheet=sheet), strict=True):
        order = column.argsort(descending=True)[:3].tolist()
        assert [hit['img'] for hit in hits] == [str(paths[i]) for i in order]
        assert [hit['sample_idx'] for hit in hits] == [i + (i > 0) for i in order]
        np.testing.assert_allclose([hit['match_score'] for hit in hits], column[order], atol=1e-6)
    assert Image.open(sheet).size[0] > 500
    by_call = mmbeit.inference_model(dual, 'it', images=images, tokenizer=tokenizer)
    assert by_call[0]['img'] is images[int(cosines[:, 2].argmax())]
    np.testing.assert_allclose([hit['match_score'] for hit in by_call], [hit['match_score'] for hit in search('it')])
    with pytest.warns(UserWarning), pytest.raises(ValueError, match='none of the 1 pictures can be read'):
        mmbeit.TextToImageRetrievalInferencer(dual, images=[tmp_path / 'ab.png'], tokenizer=tokenizer)


def test_contact_sheet_has_a_row_for_each_text():
    hits = [dict(match_score=0.5, sample_idx=i, img=image) for i, image in enumerate(pictures(8))]
    figure = contact_sheet(['one', 'two'], [hits, hits[:2]])
    assert [part.get_suptitle() for part in figure.subfigs] == ['one', 'two']
    shown = [sum(bool(axis.images) for axis in part.axes) for part in figure.subfigs]
    assert shown == [8, 2]


@torch.no_grad()
def test_classes_from_names_are_the_nearest_mean_of_their_sentences(tokenizer):
    dual, images, names = model('retrieval'), pictures(), ['cat', 'dogs']
    templates = ['a big {}', 'the {} on the left', '{}']
    results = mmbeit.inference_model(dual, images, classes=names, templates=templates, tokenizer=tokenizer)
    feats = [
        dual.extract_feat(data_samples=samples(tokenizer, *(t.format(name) for t in templates)))['text_feat'].mean(0)
        for name in names
    ]
    feats = torch.nn.functional.normalize(torch.stack(feats), dim=1)
    images_feat = dual.extract_feat(DATA(images))['image_feat']
    expected = (dual.head.logit_scale.exp() * images_feat @ feats.T).softmax(dim=1)
    for result, scores in zip(results, expected, strict=True):
        torch.testing.assert_close(torch.tensor(result['pred_scores']), scores)
        assert result['pred_class'] == names[int(scores.argmax())]


# ---- what they share ----


def test_tokenizer_is_that_of_the_config_and_its_absence_is_one_line(tokenizer):
    dual = model('retrieval')
    with pytest.raises(
        ValueError, match='DualEncoder does not say which text tokenizer it was made for: give tokenizer='
    ):
        Embedder(dual)
    nested = dict(type='ApplyToList', transforms=[dict(type='mmbeit.TokenizeText', tokenizer=str(tokenizer.path))])
    dual._config = Config(dict(test_dataloader=dict(dataset=dict(pipeline=[dict(type='LoadImageFromFile'), nested]))))
    assert Embedder(dual).tokenizer.path == tokenizer.path
    with pytest.raises(TypeError, match='Embedder is not for a model of type FusionEncoder'):
        Embedder(model('vqa'), tokenizer=tokenizer)


def test_long_texts_are_cut_to_what_the_model_has_positions_for(tokenizer):
    infer = Embedder(model('retrieval'), tokenizer=tokenizer)
    assert infer.max_length == 18
    assert infer.embed_texts(['a big red cat ' * 1000]).shape == (1, 24)


def test_options_say_which_inferencer_compares(tokenizer):
    dual = model('retrieval')
    with pytest.raises(TypeError, match=re.escape('DualEncoder needs one of these options: texts (ImageToText')):
        mmbeit.inference_model(dual, picture(), tokenizer=tokenizer)
    with pytest.raises(TypeError, match='ImageToTextRetrievalInferencer has no option mask'):
        mmbeit.inference_model(dual, picture(), texts=['it'], tokenizer=tokenizer, mask=None)
    with pytest.raises(TypeError, match='ImageClassificationInferencer has no option tokenizer'):
        classifier = tiny_classifier()
        classifier.data_config = DataConfig((0,) * 3, (1,) * 3, 32)
        mmbeit.inference_model(classifier, picture(), tokenizer=tokenizer)


def test_options_of_inferencers_are_found_by_their_names():
    names = {kind.__name__: (call_options(kind), own_options(kind), needs(kind)) for kind in INFERENCERS}
    assert names['ImageClassificationInferencer'] == ({'batch_size'}, {'data', 'classes'}, set())
    assert names['VisualQuestionAnsweringInferencer'] == (
        {'batch_size', 'questions'},
        {'data', 'tokenizer', 'answers'},
        set(),
    )
    assert names['TextToImageRetrievalInferencer'] == (
        {'top', 'sheet'},
        {'data', 'tokenizer', 'images', 'batch_size'},
        {'images'},
    )


# ---- by name, and mmpretrain's own ----

SMALL = dict(arch=dict(_delete_=True, **TINY), img_size=32, patch_size=8, num_text_positions=20, vocab_size=VOCAB)
NAMES = {
    'vqa': 'beit3-base-p16_beit3-pre_3rdparty_vqav2-480px',
    'nlvr2': 'beit3-base-p16_beit3-pre_3rdparty_nlvr2',
    'captioner': 'beit3-base-p16_beit3-pre_3rdparty_coco-caption-480px',
    'retrieval': 'beit3-base-p16_beit3-itc-pre_3rdparty_coco-retrieval-384px',
}


@pytest.fixture
def answers(tmp_path):
    path = tmp_path / 'answer2label.txt'
    write_answers([f'answer {i}' for i in range(7)], path)
    return str(path)


@pytest.mark.parametrize('task', NAMES)
def test_models_of_the_metafile_run_by_their_names(task, tokenizer, answers):
    options = dict(pretrained=False, device='cpu', tokenizer=str(tokenizer.path), backbone=SMALL)
    inputs = picture()
    if task == 'vqa':
        options.update(answers=answers, head=dict(num_classes=7))
    elif task == 'nlvr2':
        inputs = (picture(0), picture(1), 'two dogs')
    elif task == 'captioner':
        options.update(max_length=8)
    else:
        options.update(texts=QUESTIONS)
    texts = ['two dogs'] if task == 'vqa' else []
    result = mmbeit.inference_model(NAMES[task], inputs, *texts, **options)
    if task == 'vqa':
        assert result['pred_answer'] in [f'answer {i}' for i in range(7)]
    assert result


def theirs(kind, task, tokenizer, answers, **options):
    """An inferencer of mmpretrain, with a random small model of a recipe, and that model."""
    import mmpretrain.apis

    overrides = dict(backbone=SMALL)
    if task == 'vqa':
        overrides['head'] = dict(num_classes=7, answers=answers)
    if task == 'captioner':
        overrides.update(tokenizer=str(tokenizer.path), max_length=8)
    built = randomize(mmbeit.get_model(NAMES[task], **overrides)).eval()
    loader = built._config.test_dataloader
    for step in steps_of(loader.dataset.pipeline):
        if step.type.endswith('TokenizeText'):
            step.tokenizer = str(tokenizer.path)
        if step.type == 'Resize':
            step.scale = (32, 32)
    built.data_config = DATA
    return getattr(mmpretrain.apis, kind)(built, **options), built


def test_inferencers_of_mmpretrain_give_the_same(tokenizer, answers, tmp_path):
    path = tmp_path / 'a.png'
    picture().save(path)
    other, built = theirs('VisualQuestionAnsweringInferencer', 'vqa', tokenizer, answers)
    result = mmbeit.inference_model(built, path, 'two dogs', tokenizer=tokenizer)
    assert other(str(path), 'two dogs')[0]['pred_answer'] == result['pred_answer']
    other, built = theirs('NLVRInferencer', 'nlvr2', tokenizer, answers)
    result = mmbeit.inference_model(built, (path, path, 'two dogs'), tokenizer=tokenizer)
    scores = other((str(path), str(path), 'two dogs'))[0]['pred_scores']
    np.testing.assert_allclose(scores, result['pred_scores'], atol=1e-5)
    other, built = theirs('ImageCaptionInferencer', 'captioner', tokenizer, answers)
    assert (
        other(str(path))[0]['pred_caption'] == mmbeit.inference_model(built, path, tokenizer=tokenizer)['pred_caption']
    )
    other, built = theirs('ImageToTextRetrievalInferencer', 'retrieval', tokenizer, answers, prototype=QUESTIONS)
    expected = other(str(path), topk=2)[0]
    found = mmbeit.inference_model(built, path, texts=QUESTIONS, tokenizer=tokenizer, top=2)
    assert [hit['text'] for hit in expected] == [hit['text'] for hit in found]
    np.testing.assert_allclose(
        [float(hit['match_score']) for hit in expected], [hit['match_score'] for hit in found], atol=1e-5
    )
    other, built = theirs('TextToImageRetrievalInferencer', 'retrieval', tokenizer, answers, prototype=[str(path)])
    expected = other('two dogs', topk=1)[0]
    found = mmbeit.inference_model(built, 'two dogs', images=[path], tokenizer=tokenizer)
    assert float(expected[0]['match_score']) == pytest.approx(found[0]['match_score'], abs=1e-5)
