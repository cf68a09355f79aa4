"""Compiled blocks: the same losses and gradients, in one compilation."""

import copy

import pytest
import torch
from builders import NUM_CODES, tiny_beit, tiny_classifier, tiny_mim
from builders_beit3 import images, texts, tiny_beit3
from torch import nn

from mmbeit.engine.compiling import compile_blocks
from mmbeit.layers.masked import find_masked

BACKEND = 'aot_eager'  # captures and differentiates as inductor does, without its compiler


@pytest.fixture(autouse=True)
def fresh():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def pretraining_loss(model, view, mask, ids):
    masked = find_masked(mask, view.device)
    losses = model.head.loss(model.streams(view, mask, masked), ids.flatten()[masked.places])
    return sum(value for name, value in losses.items() if name.startswith('loss'))


def pretraining_batch(batch=2):
    mask = torch.rand(batch, 16).argsort(dim=1) < 6
    return torch.randn(batch, 3, 32, 32), mask, torch.randint(NUM_CODES, (batch, 16))


def gradients(model, loss, seed):
    torch.manual_seed(seed)  # of drop path
    value = loss(model)
    model.zero_grad()
    value.backward()
    return {'loss': value.detach(), **{n: p.grad for n, p in model.named_parameters() if p.grad is not None}}


@pytest.mark.parametrize('kwargs', [{}, dict(with_cp=True), dict(drop_path_rate=0.5)])
@pytest.mark.parametrize('v2', [False, True])
def test_a_step_of_pretraining_is_the_same_and_later_ones_compile_nothing(v2, kwargs):
    model = tiny_mim(v2, **kwargs).train()
    compiled = copy.deepcopy(model)
    assert compile_blocks(compiled, backend=BACKEND) == 4 + 2 * v2
    assert list(compiled.state_dict()) == list(model.state_dict())
    for step in range(3):
        batch = pretraining_batch()
        expected = gradients(model, lambda model, batch=batch: pretraining_loss(model, *batch), step)
        assert len(expected) > 40
        with torch._dynamo.config.patch(error_on_recompile=step > 0):
            found = gradients(compiled, lambda model, batch=batch: pretraining_loss(model, *batch), step)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_blocks_share_the_compiled_code_whatever_their_rates():
    """One version without drop path, and one in which the rate is a number that is not known before."""
    arch = dict(embed_dims=24, num_layers=12, num_heads=3, feedforward_channels=48)
    model = tiny_beit(arch=arch, drop_path_rate=0.5).train()
    graphs = []

    def count(graph: torch.fx.GraphModule, inputs: list) -> torch.fx.GraphModule:
        graphs.append(graph)
        return graph

    compile_blocks(model, backend=count)
    model(torch.randn(2, 3, 32, 32))
    assert len(graphs) == 2


def test_other_models_and_evaluation():
    x = torch.randn(2, 3, 32, 48)  # another size than that of the table
    model = tiny_classifier(rel_pos_bias='per_block', out_type='avg_featmap')
    with torch.no_grad():
        expected = model.head(model.extract_feat(x))
        compile_blocks(model, backend=BACKEND)
        torch.testing.assert_close(model.head(model.extract_feat(x)), expected, rtol=1e-4, atol=1e-5)
    encoder, (ids, padding) = tiny_beit3(), texts(5, 9)
    pictures = images()
    expected = encoder.encode(pictures, ids, padding_mask=padding).tokens
    compile_blocks(encoder, backend=BACKEND)
    found = encoder.encode(pictures, ids, padding_mask=padding).tokens
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_the_frozen_tokenizer_is_compiled_too():
    model = nn.Module()
    model.backbone = tiny_beit()
    model.__dict__['tool'] = tiny_beit()
    assert compile_blocks(model, backend=BACKEND) == 8


def test_a_model_without_blocks_is_refused():
    with pytest.raises(ValueError, match='Linear has no blocks of mmbeit to compile'):
        compile_blocks(nn.Linear(2, 2))
