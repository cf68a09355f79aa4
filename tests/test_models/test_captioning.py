"""Captions: their loss, and how they are written."""

import math
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from builders import randomize
from builders_beit3 import (
    BOS,
    EOS,
    MASK,
    NUM_PATCHES,
    SIZES,
    TINY,
    images,
    masked_samples,
    samples,
    task_cfg,
    tiny_beit3,
    tiny_task,
)
from mmengine.registry import MODELS
from mmpretrain.structures import DataSample
from test_checkpoint import official_beit3 as official

from mmbeit.checkpoint.weights import load_into
from mmbeit.layers.attn_bias import caption_bias
from mmbeit.layers.beam_search import beam_search
from mmbeit.models import MaskedTokenHead
from mmbeit.models.decoding import BeamDecoder

close = partial(torch.testing.assert_close, rtol=1e-5, atol=1e-5)
exact = partial(torch.testing.assert_close, rtol=0, atol=1e-12)
V = SIZES['vocab_size']


# ---- the head ----


def smoothed(targets, eps):
    q = torch.full((len(targets), V), eps / (V - 1))
    return q.scatter(1, targets[:, None], 1 - eps)


@pytest.mark.parametrize('eps', [0.0, 0.1, 0.4])
@pytest.mark.parametrize('ratio', [0.0, 0.2])
def test_loss_is_the_divergence_from_smoothed_targets(eps, ratio):
    head = randomize(MaskedTokenHead(24, V, label_smoothing=eps, drop_worst_ratio=ratio))
    tokens, targets = torch.randn(11, 24), torch.randint(V, (11,))
    losses = F.kl_div(head(tokens).log_softmax(dim=1), smoothed(targets, eps), reduction='none').sum(dim=1)
    kept = losses.sort().values[: int(11 * (1 - ratio))]
    found = head.loss(tokens, targets)
    close(found['loss'], kept.mean())
    close(found['accuracy'], 100 * (head(tokens).argmax(dim=1) == targets).float().mean())


def test_without_smoothing_it_is_the_cross_entropy():
    head = randomize(MaskedTokenHead(24, V))
    tokens, targets = torch.randn(11, 24), torch.randint(V, (11,))
    close(head.loss(tokens, targets)['loss'], F.cross_entropy(head(tokens), targets))


@pytest.mark.parametrize('ratio', [0.0, 0.2])
def test_nothing_hidden_gives_zero_loss_and_zero_gradients(ratio):
    head = randomize(MaskedTokenHead(24, V, label_smoothing=0.1, drop_worst_ratio=ratio))
    losses = head.loss(torch.randn(0, 24), torch.zeros(0, dtype=torch.long))
    assert losses['loss'] == 0 and losses['accuracy'] == 0
    losses['loss'].backward()
    assert (head.fc.weight.grad == 0).all() and (head.fc.bias.grad == 0).all()
    assert head.loss(torch.randn(1, 24), torch.tensor([3]))['loss'].isfinite()


def test_losses_are_in_full_precision():
    head = randomize(MaskedTokenHead(24, V)).bfloat16()
    assert head.loss(torch.randn(3, 24).bfloat16(), torch.tensor([3, 4, 5]))['loss'].dtype == torch.float32


# ---- the loss ----


def test_loss_is_that_of_the_hidden_words_only():
    model, x, data = tiny_task('captioner'), images(), masked_samples(7, 4)
    bias = caption_bias(1 + NUM_PATCHES, 7, torch.float32)
    tokens, targets = [], []
    for i, sample in enumerate(data):
        n = len(sample.text_ids)
        out = model.backbone.encode(
            x[i : i + 1], torch.tensor([sample.masked_text_ids]), attn_bias=bias[..., : 17 + n, : 17 + n]
        )
        tokens += [out.text[0, j] for j in range(n) if sample.text_mask[j]]
        targets += [i for i, hidden in zip(sample.text_ids, sample.text_mask, strict=True) if hidden]
    seen = []
    for module in (model.backbone.blocks[-1].mlp['text'], model.mlm_head.fc):
        module.register_forward_hook(lambda _, args, __: seen.append(args[0].shape))
    losses = model(x, data, mode='loss')
    most = max(sum(sample.text_mask) for sample in data)
    assert seen == [(2, most, 24), (len(targets), 24)]  # the last block, and the head, saw nothing else
    expected = model.mlm_head.loss(torch.stack(tokens), torch.tensor(targets))
    close(losses, expected)


def test_words_after_a_hidden_one_do_not_matter_to_it():
    model, x = tiny_task('captioner'), images(batch=1)
    data = masked_samples(9)
    mask = [False] * 9
    mask[4] = True
    data[0].set_field(mask, 'text_mask')
    before = model(x, data, mode='loss')['loss']
    data[0].set_field([*data[0].masked_text_ids[:5], 7, 7, 7, 7], 'masked_text_ids')
    close(model(x, data, mode='loss')['loss'], before)
    data[0].set_field([0, 7, 8, *data[0].masked_text_ids[3:]], 'masked_text_ids')
    assert (model(x, data, mode='loss')['loss'] - before).abs() > 1e-4


def test_every_parameter_that_is_trained_gets_a_gradient():
    model = tiny_task('captioner').train()
    model(images(), masked_samples(7, 4), mode='loss')['loss'].backward()
    frozen = 0
    for name, parameter in model.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name
        frozen += not parameter.requires_grad
    assert frozen == 16


def test_wrong_modes_and_samples_are_refused():
    model = tiny_task('captioner')
    with pytest.raises(ValueError, match="mode 'train' is not one of"):
        model(images(), masked_samples(7, 4), mode='train')
    with pytest.raises(ValueError, match='a sample has no masked_text_ids'):
        model(images(), samples(7, 4), mode='loss')
    with pytest.raises(ValueError, match='<mask> is 64001, vocab_size 20 is too small'):
        MODELS.build(task_cfg('captioner', **{**SIZES, 'arch': dict(TINY)}))


# ---- writing ----


class FullDecoder:
    """Computes everything anew for every word."""

    def __init__(self, model, x):
        self.model, self.x, self.said = model, x, None

    def __call__(self, words, parents):
        if words is None:
            self.said = [[[BOS]] for _ in self.x]
        else:
            self.said = [
                [said[parent] + [word] for word, parent in zip(*beams, strict=True)]
                for said, *beams in zip(self.said, words.tolist(), parents.tolist(), strict=True)
            ]
        ids = torch.tensor(self.said)  # (B, beams, length)
        B, beams, length = ids.shape
        ids = torch.cat([ids, torch.full((B, beams, 1), MASK)], dim=2).flatten(0, 1)
        x = self.x.repeat_interleave(beams, dim=0)
        num_vision = 1 + x.shape[2] // 8 * (x.shape[3] // 8)
        bias = caption_bias(num_vision, length + 1, x.dtype)
        return self.model.mlm_head(self.model.backbone.encode(x, ids, attn_bias=bias).text[:, -1]).view(B, beams, V)


@pytest.mark.parametrize('size', [(32, 32), (16, 40)])
@torch.no_grad()
def test_logits_by_the_cache_are_those_of_computing_everything_anew(size):
    """Whatever beams fork, end, and are continued."""
    model, x = tiny_task('captioner').double(), images(*size, batch=3).double()
    cached, full = BeamDecoder(model.backbone, model.mlm_head, x, MASK), FullDecoder(model, x)
    exact(cached(None, None), full(None, None))
    words, parents = torch.randint(V, (3, 4)), torch.zeros(3, 4, dtype=torch.long)
    for _ in range(6):
        exact(cached(words, parents), full(words, parents))
        words, parents = torch.randint(V, (3, 4)), torch.randint(4, (3, 4))


@pytest.mark.parametrize('num_beams', [1, 3, 4])
@torch.no_grad()
def test_captions_by_the_cache_are_those_of_computing_everything_anew(num_beams):
    model, x = tiny_task('captioner').double(), images(batch=4).double()
    model.num_beams = num_beams
    for end in (-3, 0, 2):
        model.mlm_head.fc.bias[EOS] += end
        full = beam_search(FullDecoder(model, x), EOS, num_beams, 8)
        found = model.generate(x)
        assert [caption.words for caption in found] == [caption.words for caption in full]
        assert [caption.score for caption in found] == pytest.approx([caption.score for caption in full])


@torch.no_grad()
def test_captions_of_a_batch_are_those_of_each_image():
    model, x = tiny_task('captioner').double(), images(batch=4).double()
    together = model.generate(x)
    alone = [model.generate(x[i : i + 1])[0] for i in range(4)]
    assert [caption.words for caption in together] == [caption.words for caption in alone]


@torch.no_grad()
def test_the_image_is_encoded_once():
    model, lengths = tiny_task('captioner'), []
    model.backbone.blocks[0].mlp['vision'].register_forward_hook(lambda _, args, __: lengths.append(args[0].shape))
    model.generate(images())
    assert lengths == [(2, 17, 24)]


def test_predictions_are_ids_and_with_a_tokenizer_texts():
    model, x = tiny_task('captioner'), images()
    expected = [caption.words for caption in model.generate(x)]
    found = model(x, mode='predict')
    assert [sample.pred_ids for sample in found] == expected and not hasattr(found[0], 'pred_caption')

    class Words:
        mask_id = MASK

        def decode(self, ids):
            return ' '.join(map(str, ids))

    cfg = task_cfg('captioner', **{**SIZES, 'arch': dict(TINY)})
    spoken = MODELS.build({**cfg, 'tokenizer': Words(), 'max_length': 8})
    spoken.load_state_dict(model.state_dict())
    data = [DataSample(image_id=i) for i in (5, 6)]
    found = spoken.eval()(x, data, mode='predict')
    assert found is data
    assert [sample.pred_caption for sample in found] == [' '.join(map(str, words)) for words in expected]


# ---- weights ----


def test_captioning_starts_from_the_head_of_pretraining(tmp_path):
    sizes = dict(dim=24, depth=3, hidden=48, side=4, patch=8, vocab=V, positions=12)
    state = {key: torch.randn(shape) for key, shape in official.pretraining(**sizes, codes=11).items()}
    torch.save({'model': state}, tmp_path / 'weights.pth')
    model, lines = tiny_task('captioner'), []
    report = load_into(model, tmp_path / 'weights.pth', log=lines.append)
    assert torch.equal(model.mlm_head.fc.weight, state['mlm_head.weight'])
    assert report.dropped == ['mim_head'] and len(lines) == 1


def test_the_head_is_initialised_as_officially():
    model = MODELS.build(task_cfg('captioner', **{**SIZES, 'arch': dict(TINY), 'vocab_size': 64010}))
    model.init_weights()
    weight = model.mlm_head.fc.weight
    assert weight.shape == (64010, 24) and weight.std().item() == pytest.approx(0.0108, rel=0.02)
    assert (model.mlm_head.fc.bias == 0).all()
    eps = 0.1
    entropy = -(1 - eps) * math.log(1 - eps) - eps * math.log(eps / 64009)
    assert entropy == pytest.approx(1.4318, abs=1e-4)  # what the loss is below the smoothed cross entropy


# ---- what the encoder does for it ----


@torch.no_grad()
def test_kept_tokens_have_their_own_rows_of_the_bias():
    model, x = tiny_beit3().double(), images().double()
    ids = torch.randint(V, (2, 6))
    bias = caption_bias(1 + NUM_PATCHES, 6, torch.float64)
    full = model.encode(x, ids, attn_bias=bias)
    for keep in (dict(vision=0), dict(vision=2, text=3), dict(text=1)):
        kept = model.encode(x, ids, attn_bias=bias, keep=keep)
        exact(kept.text, full.text[:, : keep.get('text')])
        if keep.get('vision', 1):
            exact(kept.vision, full.vision[:, : keep.get('vision')])
    places = torch.tensor([[4, 0, 2], [5, 5, 3]])
    kept = model.encode(x, ids, attn_bias=bias, keep=dict(vision=1, text=places))
    exact(kept.text, torch.stack([tokens[row] for tokens, row in zip(full.text, places, strict=True)]))
    exact(kept.vision, full.vision[:, :1])
