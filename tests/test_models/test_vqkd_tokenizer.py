import math
from contextlib import contextmanager

import pytest
import torch
import torch.nn.functional as F
from builders import TINY, randomize
from test_checkpoint import official, peers
from torch.overrides import TorchFunctionMode

from mmbeit.checkpoint.load import CheckpointError
from mmbeit.models import VQKDEncoder, VQKDTokenizer

NUM_CODES, CODE_DIM = 11, 8
DROPPED = ('decode', 'quantize.embedding.cluster_size', 'quantize.embedding.embed_avg')
SIZES = dict(arch=TINY, img_size=32, patch_size=8, num_codes=NUM_CODES, code_dim=CODE_DIM)


def tiny_encoder(**kwargs):
    """A randomised encoder with one code for 8 x 8 pixels."""
    return randomize(VQKDEncoder(**{**SIZES, 'kmeans_init': False, **kwargs}))


def tokenizer_from(state, tmp_path, **kwargs):
    torch.save(state, tmp_path / 'weights.pth')
    init_cfg = dict(type='Pretrained', checkpoint=str(tmp_path / 'weights.pth'))
    return VQKDTokenizer(**{**SIZES, **kwargs}, init_cfg=init_cfg)


@pytest.fixture
def images():
    return torch.rand(2, 3, 32, 32)


# ---- encoder ----


def test_code_is_the_nearest_to_the_projected_patch(images):
    model = tiny_encoder()
    tokens = model.encoder(2 * images - 1)[0][:, 1:]
    tokens = model.encode_task_layer[2](torch.tanh(model.encode_task_layer[0](tokens)))
    similarities = F.normalize(tokens, dim=-1) @ model.quantizer.codebook.t()
    vectors, ids, loss = model(images)
    assert torch.equal(ids, similarities.argmax(dim=-1))
    torch.testing.assert_close(vectors, model.quantizer.codebook[ids])
    assert loss > 0


@pytest.mark.parametrize('size', [(32, 32), (24, 48), (64, 40)])
def test_images_of_any_size_that_is_a_whole_number_of_patches(size):
    model = tiny_encoder()
    vectors, ids, _ = model(torch.rand(2, 3, *size))
    assert ids.shape == (2, size[0] // 8 * size[1] // 8)
    assert vectors.shape == (*ids.shape, CODE_DIM)


def test_patches_are_counted_row_by_row():
    model = tiny_encoder(img_size=(24, 48))
    images = torch.rand(1, 3, 24, 48).requires_grad_()
    model.encoder.blocks = torch.nn.ModuleList([torch.nn.Identity()])  # patches do not see each other
    model.encoder.blocks[0].forward = lambda x, bias: x
    model.encoder.out_indices = (0,)
    model(images).vectors[0, 6 + 2].sum().backward()  # row 1, column 2
    rows, columns = images.grad[0].abs().sum(dim=0).nonzero().unbind(dim=1)
    assert rows.unique().tolist() == list(range(8, 16))
    assert columns.unique().tolist() == list(range(16, 24))


def test_images_are_scaled_whatever_their_values_are(images):
    """Officially a dark batch would be scaled like any other, but one with a value above 1 would not."""
    model = tiny_encoder()
    for factor in (1 / 255, 1.0, 1.001):
        torch.testing.assert_close(model.normalize(factor * images), 2 * factor * images - 1)


def test_process_types(images):
    assert torch.equal(tiny_encoder(process_type='dall-e').normalize(images), images)
    normalized = tiny_encoder(process_type='imagenet_norm').normalize(images)
    for channel, (mean, std) in enumerate([(0.485, 0.229), (0.456, 0.224), (0.406, 0.225)]):
        torch.testing.assert_close(normalized[:, channel], (images[:, channel] - mean) / std)
    with pytest.raises(ValueError, match="process_type 'clip' is not one of"):
        tiny_encoder(process_type='clip')


def test_projection_and_codes_are_float32_under_autocast(images):
    model, dtypes = tiny_encoder(), []
    model.encode_task_layer.register_forward_hook(lambda *args: dtypes.append(args[-1].dtype))
    model.encoder.blocks[0].mlp.register_forward_hook(lambda *args: dtypes.append(args[-1].dtype))
    with torch.autocast('cpu', torch.bfloat16):
        assert model(images).vectors.dtype == torch.float32
    assert dtypes == [torch.bfloat16, torch.float32]


def test_initialisation_is_the_official_one():
    model = VQKDEncoder(**{**SIZES, 'arch': {**TINY, 'embed_dims': 96}})
    model.init_weights()
    for layer in (model.encode_task_layer[0], model.encoder.blocks[0].attn.qkv):
        assert layer.weight.std().item() == pytest.approx(0.02, rel=0.1)
        assert layer.weight.abs().max() > 0.05, 'not cut at one sigma'
    assert not model.encode_task_layer[0].bias.any()
    for layer, block in enumerate(model.encoder.blocks, 1):
        assert block.mlp.fc2.weight.std().item() == pytest.approx(0.02 / (2 * layer) ** 0.5, rel=0.1)
    assert model.encoder.pos_embed.std().item() == pytest.approx(0.02, rel=0.1)
    torch.testing.assert_close(model.quantizer.codebook.norm(dim=1), torch.ones(NUM_CODES))


# ---- tokenizer ----


class RoundedFactors(TorchFunctionMode):
    """Products of matrices as a GPU computes them in TF32: from factors of 10 bits of mantissa, summed in float32."""

    PRODUCTS = (F.linear, F.conv2d, torch.conv2d, F.scaled_dot_product_attention)

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function in self.PRODUCTS:
            factors = 3 if function is F.scaled_dot_product_attention else 2
            args = (*map(self.rounded, args[:factors]), *args[factors:])
        return function(*args, **(kwargs or {}))

    def rounded(self, x):
        bits = x.contiguous().view(torch.int32)
        return ((bits + 0xFFF + (bits >> 13 & 1)) & ~0x1FFF).view(torch.float32)


def test_factors_are_rounded_to_the_nearest():
    rounded = RoundedFactors().rounded(torch.tensor([1 + 2**-10, 1 + 2**-11, 1 + 3 * 2**-11, 1 + 2**-12, -3.0]))
    assert rounded.tolist() == [1 + 2**-10, 1, 1 + 2 * 2**-10, 1, -3.0]


def test_ids_of_a_transformer_in_tf32_are_nearly_always_those_in_float32_and_more_often_than_in_bfloat16():
    model = randomize(VQKDTokenizer(**SIZES))
    images = torch.rand(256, 3, 32, 32)
    with torch.no_grad():
        exact = model(images)
        with RoundedFactors():
            tokens = model.network.encode(images)
        tf32 = model.network.quantize(tokens).ids
        with torch.autocast('cpu', torch.bfloat16):
            bfloat16 = model.network(images).ids
    same, same_bfloat16 = (float((ids == exact).float().mean()) for ids in (tf32, bfloat16))
    assert 1 > same > 0.995 and same > same_bfloat16


def test_only_the_transformer_runs_in_tf32(monkeypatch, images):
    inside, seen = [], []

    @contextmanager
    def recorded(x):
        inside.append(x.device)
        yield
        inside.pop()

    monkeypatch.setattr('mmbeit.models.target_generators.vqkd.tf32_products', recorded)
    model = randomize(VQKDTokenizer(**SIZES))
    for part in (model.network.encoder, model.network.encode_task_layer, model.network.quantizer):
        part.register_forward_hook(lambda *_: seen.append(bool(inside)))
    model(images)
    assert seen == [True, False, False]


def test_tokenizer_is_frozen_and_gives_the_ids_of_its_encoder(images):
    model = randomize(VQKDTokenizer(**SIZES))
    assert model.num_codes == NUM_CODES and model.stride == 8
    before = {name: value.clone() for name, value in model.state_dict().items()}
    ids = model.train()(images)
    assert ids.shape == (2, 16) and len(ids.unique()) > 1
    assert torch.equal(ids, model.network(images).ids)
    assert not any(module.training for module in model.modules())
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_tokenizer_has_the_official_sizes_by_default():
    with torch.device('meta'):
        model = VQKDTokenizer()
    assert (model.num_codes, model.stride) == (8192, 16)
    shapes = official.vqkd()
    theirs = sum(math.prod(shape) for name, shape in shapes.items() if not name.startswith(DROPPED))
    assert sum(tensor.numel() for tensor in model.state_dict().values()) == theirs


@pytest.mark.parametrize('container', ['model', 'state_dict'])
def test_tokenizer_from_an_official_file(container, images, tmp_path):
    """With its decoder, and what training leaves in it besides."""
    state = official.random(official.vqkd(dim=24, depth=4))
    state['encoder.pos_embed'] = torch.randn(1, 17, 24)
    state['encoder.patch_embed.proj.weight'] = torch.randn(24, 3, 8, 8)
    state['quantize.embedding.initted'] = torch.ones(1)
    state |= {'teacher_model.visual.proj': torch.randn(4, 4), 'scaling_layer.shift': torch.randn(1, 3, 1, 1)}
    model = tokenizer_from({container: state}, tmp_path, num_codes=8192, code_dim=32)
    assert len(model(images).unique()) > 1  # loads
    network = model.network
    assert torch.equal(network.quantizer.codebook, state['quantize.embedding.weight'])
    assert torch.equal(network.quantizer.cluster_size, state['quantize.cluster_size'])
    assert torch.equal(network.encoder.norm.weight, state['encoder.fc_norm.weight'])
    assert torch.equal(network.encoder.blocks[3].attn.q_bias, state['encoder.blocks.3.attn.q_bias'])
    assert torch.equal(network.encode_task_layer[2].bias, state['encode_task_layer.2.bias'])


def test_tokenizer_from_a_file_of_mmpretrain(images, tmp_path):
    theirs = peers.tiny_mm_vqkd()
    theirs.quantize.embedding.initted.fill_(1)
    ours = tokenizer_from({'state_dict': theirs.state_dict()}, tmp_path)
    assert torch.equal(ours(images), theirs(2 * images - 1))


def test_tokenizer_from_an_encoder_of_ours(images, tmp_path):
    encoder = tiny_encoder()
    ours = tokenizer_from(encoder.state_dict(), tmp_path)
    assert torch.equal(ours(images), encoder(images).ids)
    assert {name.removeprefix('network.') for name in ours.state_dict()} == set(encoder.state_dict())


def test_tokenizer_for_images_of_another_size(tmp_path):
    encoder, images = tiny_encoder(), torch.rand(1, 3, 48, 48)
    ours = tokenizer_from(encoder.state_dict(), tmp_path, img_size=48)
    assert torch.equal(ours(images), encoder(images).ids)


def test_codebook_that_was_never_started_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match='never started'):
        tokenizer_from(tiny_encoder(kmeans_init=True).state_dict(), tmp_path).init_weights()


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (lambda state: state.pop('quantizer.codebook'), 'quantizer.codebook'),
        (lambda state: state.update(extra=torch.zeros(2)), 'extra'),
        (lambda state: state.update({'encode_task_layer.2.bias': torch.zeros(9)}), r'encode_task_layer\.2'),
    ],
)
def test_incomplete_file_is_refused(change, message, tmp_path):
    state = tiny_encoder().state_dict()
    change(state)
    with pytest.raises(CheckpointError, match=message):
        tokenizer_from(state, tmp_path).init_weights()


def test_file_of_another_kind_is_refused(tmp_path):
    state = official.random(official.classifier(dim=24, depth=4, heads=3, classes=7))
    with pytest.raises(CheckpointError, match="kind 'classifier'"):
        tokenizer_from(state, tmp_path).init_weights()


def test_file_of_another_size_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match='does not fit VQKDTokenizer'):
        tokenizer_from(tiny_encoder().state_dict(), tmp_path, num_codes=12).init_weights()
