"""Masked data modeling."""

import copy
from functools import partial
from pathlib import Path

import pytest
import torch
from builders import randomize
from builders_beit3 import MASK, NUM_PATCHES, SIZES, TINY, images, masked_samples, task_cfg
from mmengine.model import ExponentialMovingAverage
from mmengine.optim import OptimWrapper
from mmengine.registry import MODELS
from mmpretrain.structures import DataSample
from processes import run_ranks

from mmbeit.layers.attention import pick
from mmbeit.models import MDMDataPreprocessor, TargetGenerator
from mmbeit.text_tokenizer import pad_texts

close = partial(torch.testing.assert_close, rtol=1e-5, atol=1e-5)
NUM_CODES = 11
LOSSES = ('image_loss', 'text_loss', 'pair_image_loss', 'pair_text_loss')


class Brightness(TargetGenerator):
    """A visual token for each patch of 8 pixels, by how bright it is."""

    num_codes = NUM_CODES
    stride = 8

    def targets(self, images):
        return (torch.nn.functional.avg_pool2d(images.mean(dim=1), 8).flatten(1) * NUM_CODES).long()


def build(**kwargs):
    cfg = task_cfg('pretraining', **{**SIZES, 'arch': dict(TINY), **kwargs})
    del cfg['mim_head']['num_tokens']
    cfg['target_generator'] = dict(type=Brightness)
    preprocessor = dict(type='mmbeit.MDMDataPreprocessor', mean=[127.5] * 3, std=[127.5] * 3)
    return randomize(MODELS.build({**cfg, 'data_preprocessor': preprocessor}))


def hidden(batch=2):
    masks = [torch.rand(4, 4) < 0.4 for _ in range(batch)]
    masks[0][0, 0] = True
    return masks


def views(batch=2):
    return images(batch=batch), torch.rand(batch, 3, 32, 32)


@pytest.fixture
def batches():
    """One of each kind, with masks of the forms that pipelines give."""
    masks = hidden()
    return {
        'image': dict(inputs=views(), data_samples=[DataSample(mask=mask.to(torch.uint8)) for mask in masks]),
        'text': dict(data_samples=masked_samples(8, 5, 6)),
        'pair': dict(inputs=views(), data_samples=masked_samples(7, 4, mask=hidden())),
    }


def masks_of(group):
    return torch.stack([sample.mask.flatten().bool() for sample in group['data_samples']])


def cross_entropy(head, tokens, targets):
    """Token by token."""
    logits = [head.fc(token) for token in tokens]
    return torch.stack([row.logsumexp(0) - row[i] for row, i in zip(logits, targets, strict=True)]).mean()


# ---- the losses ----


def test_losses_are_cross_entropies_of_what_is_hidden(batches):
    model = build()
    losses = model(**batches)
    assert {name for name in losses if 'loss' in name} == set(LOSSES)
    assert {name.replace('loss', 'accuracy') for name in LOSSES} == set(losses) - set(LOSSES)
    expected = {}
    for group in ('image', 'pair'):
        view, target_view = batches[group]['inputs']
        mask, targets = masks_of(batches[group]), model.target_generator(target_view)
        texts = {}
        if group == 'pair':
            ids, padding = pad_texts(sample.masked_text_ids for sample in batches[group]['data_samples'])
            texts = dict(text_ids=ids, padding_mask=padding)
        out = model.backbone.encode(view, mask=mask, **texts)
        at = [(b, n) for b in range(2) for n in range(NUM_PATCHES) if mask[b, n]]
        name = 'pair_image_loss' if texts else 'image_loss'
        tokens, codes = [out.vision[b, 1 + n] for b, n in at], [targets[b, n] for b, n in at]
        expected[name] = cross_entropy(model.mim_head, tokens, codes)
        if texts:
            expected['pair_text_loss'] = loss_of_words(model, out.text, batches[group]['data_samples'])
    ids, padding = pad_texts(sample.masked_text_ids for sample in batches['text']['data_samples'])
    out = model.backbone.encode(text_ids=ids, padding_mask=padding)
    expected['text_loss'] = loss_of_words(model, out.text, batches['text']['data_samples'])
    close({name: losses[name] for name in LOSSES}, {name: expected[name] for name in LOSSES})


def loss_of_words(model, tokens, data):
    at = [(b, n) for b, sample in enumerate(data) for n, hidden in enumerate(sample.text_mask) if hidden]
    words = [data[b].text_ids[n] for b, n in at]
    return cross_entropy(model.mlm_head, [tokens[b, n] for b, n in at], words)


def test_a_batch_alone_has_the_losses_that_it_has_among_others(batches):
    model = build()
    together = model(**batches)
    for name, batch in batches.items():
        alone = model(**{name: batch})
        assert alone.keys() == {key for key in together if key.startswith(name)}
        for key, value in alone.items():
            assert torch.equal(value, together[key])


def test_text_is_read_both_ways(batches):
    """Other than in captions: a hidden word is predicted from those after it, too."""
    model, (sample, *_) = build(), batches['text']['data_samples']
    sample.set_field([False, True] + [False] * 6, 'text_mask')
    sample.set_field([0, MASK, *sample.text_ids[2:]], 'masked_text_ids')
    before = model(text=dict(data_samples=[sample]))['text_loss']
    sample.masked_text_ids[5] += 1
    assert (model(text=dict(data_samples=[sample]))['text_loss'] - before).abs() > 1e-4


def test_images_and_texts_of_a_pair_help_each_other(batches):
    model, pair = build(), batches['pair']
    before = model(pair=pair)
    other = dict(inputs=(torch.randn_like(pair['inputs'][0]), pair['inputs'][1]), data_samples=pair['data_samples'])
    assert (model(pair=other)['pair_text_loss'] - before['pair_text_loss']).abs() > 1e-4
    for sample in pair['data_samples']:
        sample.set_field([0, *[7] * (len(sample.text_ids) - 1)], 'masked_text_ids')
    assert (model(pair=pair)['pair_image_loss'] - before['pair_image_loss']).abs() > 1e-4


def test_visible_patches_are_no_targets(batches):
    model, image = build(), batches['image']
    before = model(image=image)['image_loss']
    view, target_view = image['inputs']
    mask = masks_of(image).view(2, 1, 4, 4).repeat_interleave(8, 2).repeat_interleave(8, 3)
    changed = torch.where(mask, target_view, 1 - target_view)
    assert torch.equal(model(image=dict(image, inputs=(view, changed)))['image_loss'], before)
    changed = torch.where(mask, (target_view / 5), target_view)
    assert not torch.equal(model(image=dict(image, inputs=(view, changed)))['image_loss'], before)


def test_the_heads_see_hidden_tokens_only(batches):
    model, seen = build(), []
    for head in (model.mim_head, model.mlm_head):
        head.fc.register_forward_hook(lambda _, args, __: seen.append(len(args[0])))
    model(**batches)
    patches = [masks_of(batches[group]).sum().item() for group in ('image', 'pair')]
    words = [sum(sum(sample.text_mask) for sample in batches[group]['data_samples']) for group in ('text', 'pair')]
    assert seen == [patches[0], words[0], patches[1], words[1]]


def test_the_last_block_runs_for_what_is_predicted(batches):
    model, patches, words = build(), [], []
    for name, seen in (('vision', patches), ('text', words)):
        mlp = model.backbone.blocks[-1].mlp[name]
        mlp.register_forward_hook(lambda _, args, __, seen=seen: seen.append(args[0].shape[:2]))
    model(**batches)
    assert patches == [(2, masks_of(batches[group]).sum(dim=1).max()) for group in ('image', 'pair')]
    hidden = {group: [sum(sample.text_mask) for sample in batches[group]['data_samples']] for group in ('text', 'pair')}
    assert words == [(len(counts), max(counts)) for counts in hidden.values()]


@pytest.mark.parametrize('with_cp', [False, True])
def test_losses_and_gradients_are_those_of_computing_everything(with_cp, batches, monkeypatch):
    model, found = build(drop_path_rate=0.5, with_cp=with_cp).train(), []
    encode = model.backbone.encode

    def encode_all(*args, keep, **kwargs):
        out = encode(*args, **kwargs)
        return out._replace(**{name: pick(getattr(out, name), places) for name, places in keep.items()})

    for of in (encode, encode_all):
        monkeypatch.setattr(model.backbone, 'encode', of)
        torch.manual_seed(3)
        model.zero_grad()
        losses = model(**batches)
        model.parse_losses(losses)[0].backward()
        found.append((losses, {name: parameter.grad for name, parameter in model.named_parameters()}))
    close(*found)


def test_every_parameter_gets_a_gradient(batches):
    for names in (('image', 'text', 'pair'), ('image', 'text'), ('pair',)):
        model = build().train()
        losses = model(**{name: batches[name] for name in names})
        sum(value for name, value in losses.items() if 'loss' in name).backward()
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None, name


def test_a_few_steps_of_mmengine_learn_a_batch(batches):
    torch.manual_seed(0)
    model = build(drop_path_rate=0.1).train()
    wrapper = OptimWrapper(torch.optim.AdamW(model.parameters(), lr=3e-3))
    pixels = [torch.randint(256, (2, 3, 32, 32)) for _ in range(2)]
    data = {'text': batches['text']}
    for name in ('image', 'pair'):
        data[name] = dict(inputs=pixels, data_samples=batches[name]['data_samples'])
    logs = [model.train_step(data, wrapper) for _ in range(30)]
    assert logs[0].keys() >= {*LOSSES, 'loss'}
    torch.testing.assert_close(logs[0]['loss'], sum(logs[0][name] for name in LOSSES))
    assert all(logs[-1][name] < 0.5 * logs[0][name] for name in LOSSES)


def test_features_are_those_of_the_backbone():
    model, pictures = build().eval(), images()
    assert torch.equal(model.extract_feat(pictures)[0], model.backbone.encode(pictures).vision)


def test_what_does_not_fit_is_refused(batches):
    model = build()
    with pytest.raises(ValueError, match="mode 'predict' is not 'loss': for features take the backbone"):
        model(**batches, mode='predict')
    with pytest.raises(ValueError, match=r"nothing to model: expected a batch of one of \('image', 'text', 'pair'\)"):
        model()
    view, target_view = batches['image']['inputs']
    with pytest.raises(ValueError, match='the target view gives 4 tokens for a mask of 16 patches'):
        model(image=dict(batches['image'], inputs=(view, target_view[..., :16, :16])))
    with pytest.raises(ValueError, match='a sample has no masked_text_ids'):
        model(text=dict(data_samples=[DataSample(text_ids=[0, 5, 2])]))


# ---- the target generator, the data preprocessor ----


def test_target_generator_is_no_part_of_the_model():
    model = build()
    assert model.mim_head.fc.out_features == NUM_CODES
    for module in (model, ExponentialMovingAverage(model)):
        assert not any(isinstance(part, TargetGenerator) for part in module.modules())
        assert not any('target_generator' in key for key in module.state_dict())
    assert copy.deepcopy(model).target_generator is model.target_generator
    model.init_weights()
    assert model.target_generator.is_init


def test_target_generator_follows_the_model_to_another_device():
    model = build()
    model.target_generator.register_buffer('scale', torch.ones(1))
    assert model.to('meta').target_generator.scale.device.type == 'meta'


def test_preprocessor_treats_each_batch_by_itself(batches):
    preprocessor = MDMDataPreprocessor([127.5] * 3, [127.5] * 3)
    view, target = (torch.randint(256, (2, 3, 32, 32)) for _ in range(2))
    data = {**batches, 'image': dict(inputs=[view, target], data_samples=batches['image']['data_samples'])}
    data['pair'] = dict(inputs=[list(view), list(target)], data_samples=batches['pair']['data_samples'])
    out = preprocessor(data)
    assert out.keys() == data.keys() and 'inputs' not in out['text']
    for name in ('image', 'pair'):
        close(out[name]['inputs'], (view / 127.5 - 1, target / 255))
        assert len(out[name]['data_samples']) == 2


# ---- several processes ----

TRAIN = """
sys.path.insert(0, {tests!r})
import torch
from builders_beit3 import masked_samples
from mmengine.model import MMDistributedDataParallel
from mmengine.optim import OptimWrapper
from mmpretrain.structures import DataSample
from test_mdm import build, hidden

def train(groups, find_unused):
    torch.manual_seed(0)
    model = build(drop_path_rate=0.5).train()
    ddp = MMDistributedDataParallel(model, find_unused_parameters=find_unused)
    wrapper = OptimWrapper(torch.optim.AdamW(model.parameters(), lr=1e-3))
    before = {{name: parameter.detach().clone() for name, parameter in model.named_parameters()}}
    torch.manual_seed(rank)
    for step in range(3):
        pixels = [torch.randint(256, (2, 3, 32, 32)) for _ in range(2)]
        data = dict(
            image=dict(inputs=pixels, data_samples=[DataSample(mask=mask) for mask in hidden()]),
            text=dict(data_samples=masked_samples(8, 5, 6)),
            pair=dict(inputs=pixels, data_samples=masked_samples(7, 4, mask=hidden())),
        )
        ddp.train_step({{name: data[name] for name in groups}}, wrapper)
    changed = sorted(name for name, p in model.named_parameters() if not torch.equal(p, before[name]))
    return [model.state_dict(), changed]

out = [train(groups.split(), find_unused) for groups, find_unused in {cases}]
try:
    train(['image'], False)
except RuntimeError as error:
    out.append(str(error))
torch.save(out, folder / f'{{rank}}.pth')
"""


def test_processes_stay_equal_whatever_the_groups(tmp_path):
    """Only images alone, or texts alone, leave parameters without a gradient, which DDP then has to look for."""
    cases = [('image text pair', False), ('image text', False), ('pair', False), ('image', True), ('text', True)]
    run_ranks(TRAIN.format(tests=str(Path(__file__).parent), cases=cases), 2, tmp_path)
    ranks = [torch.load(tmp_path / f'{rank}.pth') for rank in range(2)]
    names = {name for name, _ in build().named_parameters()}
    for (groups, _), (ours, changed), (theirs, _) in zip(cases, *(rank[:-1] for rank in ranks), strict=True):
        assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
        if groups in ('image', 'text'):
            part, other = ('vision', 'text') if groups == 'image' else ('text', 'vision')
            assert not any(f'.{other}.' in name for name in changed) and any(f'.{part}.' in name for name in changed)
        else:
            assert set(changed) == names
    assert all('find_unused_parameters=True' in rank[-1] for rank in ranks)
