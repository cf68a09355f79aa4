"""Numbers that the official code of BEiT-3 gives (microsoft/unilm beit3/, torchscale 0.2.0) in float64 on CPU.

It rounds what GELU sees to float32, which shows in the seventh digit.
"""

import re

import pytest
import torch
from mmengine.registry import MODELS
from mmpretrain.structures import DataSample
from test_checkpoint import official_beit3 as official

from mmbeit.checkpoint.formats import to_ours
from mmbeit.layers.position import resize_abs_pos_embed
from mmbeit.models import BEiT3
from mmbeit.text_tokenizer import Texts

SIZES = dict(dim=32, depth=2, hidden=64, side=2, vocab=50, positions=16)
OURS = dict(
    arch=dict(embed_dims=32, num_layers=2, num_heads=4, feedforward_channels=64),
    img_size=32,
    vocab_size=50,
    num_text_positions=16,
    mask_token=True,
)
IDS = torch.tensor([[0, 7, 12, 30, 2, 1], [0, 9, 2, 1, 1, 1]])
PADDING = torch.tensor([[0, 0, 0, 0, 0, 1], [0, 0, 0, 1, 1, 1]]).bool()

# Official names and ours, one part after the other.
NAMES = [
    (r'^beit3\.(text_embed\.weight)', r'backbone.\1'),
    (r'^beit3\.vision_embed\.(mask_token|cls_token)', r'backbone.\1'),
    (r'^beit3\.vision_embed\.proj', 'backbone.patch_embed.proj'),
    (r'^beit3\.encoder\.embed_positions\.A\.weight', 'backbone.pos_embed'),
    (r'^beit3\.encoder\.embed_positions\.B\.weight', 'backbone.text_pos_embed'),
    (r'^beit3\.encoder\.layer_norm\.', 'backbone.norm.'),
    (r'^beit3\.encoder\.layers\.', 'backbone.blocks.'),
    (r'\.self_attn\.([qkv])_proj\.', r'.attn.\1.'),
    (r'\.self_attn\.out_proj\.', '.attn.proj.'),
    (r'\.self_attn\.inner_attn_ln\.', '.attn.norm.'),
    (r'\.self_attn_layer_norm\.', '.norm1.'),
    (r'\.final_layer_norm\.', '.norm2.'),
    (r'\.ffn\.', '.mlp.'),
    (r'\.ffn_layernorm\.', '.norm.'),
    (r'\.A\.', '.vision.'),
    (r'\.B\.', '.text.'),
]


CLASSIFIER = [(r'^fc_norm', 'backbone.fc_norm'), (r'^head\.', 'head.fc.')]
VQA = [(r'^pooler', 'neck'), (r'^head\.0', 'head.fc1'), (r'^head\.1', 'head.norm'), (r'^head\.3', 'head.fc2')]
RETRIEVAL = [(r'^vision_head', 'head.proj.vision'), (r'^language_head', 'head.proj.text'), (r'^logit', 'head.logit')]
CAPTIONING = [(r'^mlm_head', 'mlm_head.fc')]
NLVR2 = [(r'^head\.dense', 'head.fc')]


def synthetic(shapes, names=()):
    """Weights by a formula over the sorted official names, under our names."""
    state = {}
    for name, tensor in formula(shapes).items():
        for pattern, ours in (*NAMES, *names):
            name = re.sub(pattern, ours, name)
        state[name] = tensor
    return state


def formula(shapes):
    state = {}
    for rank, (name, shape) in enumerate(sorted(shapes.items())):
        wave = torch.sin(0.7 * torch.arange(torch.Size(shape).numel(), dtype=torch.float64) + 1.3 * rank).view(shape)
        if len(shape) == 1 and name.endswith('.weight'):
            state[name] = 1 + 0.1 * wave
        else:
            state[name] = wave * (0.1 if len(shape) <= 1 else 0.2)
    return state


def build(shapes, names=(), **cfg):
    """A model of ours with these weights; all of them have to be there."""
    backbone = dict(type='mmbeit.BEiT3', **{**OURS, 'arch': dict(OURS['arch']), **cfg.pop('backbone', {})})
    model = MODELS.build(dict(backbone=backbone, **cfg)).double().eval()
    model.load_state_dict({**synthetic(shapes, names), 'backbone.pos_grid': torch.tensor([2, 2])}, strict=True)
    return model


def samples(**fields):
    """Samples with texts, and with other fields."""
    out = []
    for i, (ids, padding) in enumerate(zip(IDS, PADDING, strict=True)):
        out.append(DataSample(text_ids=ids[~padding].tolist()))
        for name, values in fields.items():
            out[-1].set_field(values[i], name)
    return out


def image(phase=0.0):
    return torch.sin(0.05 * torch.arange(2 * 3 * 32 * 32, dtype=torch.float64) + phase).view(2, 3, 32, 32)


def check(x, shape, total, absolute, first=()):
    assert tuple(x.shape) == shape
    assert x.sum().item() == pytest.approx(total, abs=1e-5)
    assert x.abs().sum().item() == pytest.approx(absolute, abs=1e-5)
    torch.testing.assert_close(x.flatten()[: len(first)].tolist(), list(first), rtol=0, atol=1e-6)


@pytest.fixture(scope='module')
def encoder():
    """Of the retrieval model, whose heads count in the formula."""
    assert len(official.retrieval(**SIZES)) == 94
    state = synthetic(official.retrieval(**SIZES))
    model = BEiT3(**OURS).double().eval()
    model.load_state_dict(
        {key.removeprefix('backbone.'): value for key, value in state.items() if key.startswith('backbone.')}
    )
    return model


@torch.no_grad()
def test_encoder_of_images(encoder):
    first = (0.173721, 1.080723, 1.438310, 0.458465)
    check(encoder.encode(image()).vision, (2, 5, 32), -6.767964, 285.191493, first)
    check(encoder(image())[-1], (2, 5, 32), -6.767964, 285.191493, first)


@torch.no_grad()
def test_encoder_of_masked_images(encoder):
    mask = torch.tensor([[1, 0, 0, 1], [0, 1, 0, 0]]).bool()
    out = encoder.encode(image(), mask=mask).vision
    check(out, (2, 5, 32), -6.687299, 284.796861, (0.155580, 1.066035, 1.445060, 0.457832))


@torch.no_grad()
def test_encoder_of_texts(encoder):
    out = encoder.encode(text_ids=IDS, padding_mask=PADDING).text
    check(out, (2, 6, 32), 6.025974, 335.310845, (-0.851349, 0.202402, 1.685551, 1.436843))


@torch.no_grad()
def test_encoder_of_pairs(encoder):
    vision, text, _ = encoder.encode(image(), IDS, padding_mask=PADDING)
    out = torch.cat([vision, text], dim=1)
    check(out, (2, 11, 32), -0.911467, 606.776692, (0.580983, 0.753681, 1.651098, 0.317808))
    check(out[0, :10], (10, 32), -1.371763, 273.386826)


def test_resized_positions():
    patches = torch.arange(14, dtype=torch.float64).view(7, 2)[3:]
    embed = torch.cat([torch.zeros(1, 2, dtype=torch.float64), patches])[None]
    channel = resize_abs_pos_embed(embed, (2, 2), (3, 3))[0, 1:, 0].view(3, 3)
    expected = [[5.4792, 6.6528, 7.8264], [7.8264, 9, 10.1736], [10.1736, 11.3472, 12.5208]]
    torch.testing.assert_close(channel, torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-4)


@torch.no_grad()
def test_classification():
    shapes = official.classifier(**SIZES, classes=5)
    model = build(
        shapes,
        CLASSIFIER,
        type='mmpretrain.ImageClassifier',
        backbone=dict(final_norm=False, out_type='avg_featmap'),
        head=dict(type='LinearClsHead', num_classes=5, in_channels=32),
    )
    first = (-1.021769, 1.720983, -2.190468, 2.043630)
    check(model(image(), mode='tensor'), (2, 5), -2.648844, 17.437429, first)


@torch.no_grad()
def test_vqa():
    shapes = official.vqa(**SIZES, classes=7)
    neck, head = dict(type='mmbeit.Pooler'), dict(type='mmbeit.VQAHead', num_classes=7)
    model = build(shapes, VQA, type='mmbeit.FusionEncoder', backbone=dict(final_norm=False), neck=neck, head=head)
    first = (1.108727, 0.806833, -0.011155, -0.817006)
    check(model(image(), samples()), (2, 7), -0.938689, 9.412573, first)


@torch.no_grad()
def test_nlvr2():
    model = build(official.nlvr2(**SIZES), NLVR2, type='mmbeit.FusionEncoder', head=dict(type='mmbeit.NLVRHead'))
    pairs = torch.stack([image(), image(1.0)], dim=1)
    first = (-0.148974, -0.609729, -0.146142, -0.607403)
    check(model(pairs, samples()), (2, 2), -1.512248, 1.512248, first)


@torch.no_grad()
def test_retrieval():
    shapes = official.retrieval(**SIZES)
    model = build(shapes, RETRIEVAL, type='mmbeit.DualEncoder', head=dict(type='mmbeit.ContrastiveHead'))
    feats = model(image(), samples())
    check(feats['image_feat'], (2, 32), -0.029719, 10.235806, (0.235717, -0.243951))
    check(feats['text_feat'], (2, 32), -0.110980, 10.224399, (-0.146240, 0.052550))
    assert model.head.logit_scale.item() == pytest.approx(0.021772, abs=1e-6)
    assert model(image(), samples(), mode='loss')['loss'].item() == pytest.approx(0.6931493, abs=1e-6)


@pytest.fixture(scope='module')
def captioner():
    head = dict(type='mmbeit.MaskedTokenHead', label_smoothing=0.1)
    return build(
        official.captioner(**SIZES), CAPTIONING, type='mmbeit.Captioner', mlm_head=head, mask_id=49, max_length=8
    )


HIDDEN = torch.tensor([[0, 1, 0, 1, 1, 0], [0, 1, 1, 0, 0, 0]]).bool()


@torch.no_grad()
def test_logits_of_captions(captioner):
    first = (1.171344, -1.823698, 2.050454, -1.833526)
    # Officially what follows on a text is computed, too.
    check(
        captioner.mlm_head(captioner.text_tokens(image(), Texts(IDS, PADDING))),
        (2, 6, 50),
        -5.927651,
        739.705123,
        first,
    )
    tokens = captioner.text_tokens(image(), Texts(IDS, PADDING))[HIDDEN]
    first = (0.444390, -1.084879, 1.421560, -1.418226)
    check(captioner.mlm_head(tokens), (5, 50), -2.453222, 277.803241, first)


@pytest.mark.parametrize(('drop_worst', 'expected'), [(0, 2.8667630), (0.2, 2.6729203)])
@torch.no_grad()
def test_loss_of_captions(captioner, monkeypatch, drop_worst, expected):
    masks = [mask[~padding].tolist() for mask, padding in zip(HIDDEN, PADDING, strict=True)]
    data = samples(text_mask=masks)
    for sample in data:
        sample.set_field(sample.text_ids, 'masked_text_ids')
    monkeypatch.setattr(captioner.mlm_head, 'drop_worst_ratio', drop_worst)
    assert captioner(image(), data, mode='loss')['loss'].item() == pytest.approx(expected, abs=1e-6)


@torch.no_grad()
def test_beam_search(captioner):
    """Captions end at once; with a less likely end they are stopped."""
    at_once = captioner.generate(image())
    assert [caption.words for caption in at_once] == [[], []]
    assert [caption.score for caption in at_once] == pytest.approx([-1.8302756, -1.8304244], abs=1e-6)
    captioner.mlm_head.fc.bias[2] -= 1
    stopped = captioner.generate(image())
    captioner.mlm_head.fc.bias[2] += 1
    assert [caption.words for caption in stopped] == [[41, 4, 48, 11, 4]] * 2
    assert [caption.score for caption in stopped] == pytest.approx([-4.9489012, -4.9502985], abs=1e-6)


@pytest.mark.parametrize(
    ('shapes', 'names'),
    [
        (official.classifier(**SIZES, classes=5), CLASSIFIER),
        (official.vqa(**SIZES, classes=7), VQA),
        (official.nlvr2(**SIZES), NLVR2),
        (official.retrieval(**SIZES), RETRIEVAL),
        (official.captioner(**SIZES), CAPTIONING),
        (official.pretraining(**SIZES, codes=11), [*CAPTIONING, (r'^mim_head', 'mim_head.fc')]),
    ],
    ids=['classifier', 'vqa', 'nlvr2', 'retrieval', 'captioner', 'pretraining'],
)
def test_converted_weights_are_those_of_the_golden_vectors(shapes, names):
    ours, _ = to_ours(formula(shapes))
    expected = synthetic(shapes, names)
    assert ours.keys() == expected.keys()
    assert all(torch.equal(tensor, expected[key]) for key, tensor in ours.items())
