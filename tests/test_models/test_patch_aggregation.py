import pytest
import torch
from builders import TINY, randomize
from mmengine.registry import MODELS
from torch import nn

from mmbeit.layers.attention import pick
from mmbeit.models import PatchAggregationNeck


def neck(**kwargs):
    return PatchAggregationNeck(**{'arch': TINY, 'early_layers': 2, **kwargs})


def tokens():
    return torch.randn(2, 17, 24), torch.randn(2, 17, 24)


def test_class_token_of_the_last_block_meets_the_patches_of_the_early_one():
    model, bias = randomize(neck(num_layers=3)), torch.randn(3, 17, 17)
    early, last = tokens()
    last = last[:, 0]
    x = torch.cat([last.unsqueeze(1), early[:, 1:]], dim=1)
    assert len(model.blocks) == 3
    for block in model.blocks:
        x = block(x, bias)
    assert torch.equal(model(early, last, bias), x)
    assert not torch.equal(model(early, last), x)


def test_nothing_else_of_the_two_counts():
    model = randomize(neck())
    early, last = tokens()
    expected = model(early, last[:, 0])
    other_early, _ = tokens()
    other_early[:, 1:] = early[:, 1:]
    assert torch.equal(model(other_early, last[:, 0]), expected)
    assert not torch.equal(model(last, last[:, 0]), expected)
    assert not torch.equal(model(early, early[:, 0]), expected)


def test_tokens_to_keep_are_those_of_all():
    model, bias = randomize(neck(num_layers=3)), torch.randn(3, 17, 17)
    early, last = tokens()
    keep = torch.tensor([[3, 0, 16], [16, 16, 1]])
    kept = model(early, last[:, 0], bias, keep)
    torch.testing.assert_close(kept, pick(model(early, last[:, 0], bias), keep))


@pytest.mark.parametrize(
    ('arch', 'early_layers', 'expected'),
    [('base', 9, [0.08182, 0.09091]), ('large', 21, [0.09130, 0.09565]), (TINY, 3, [0.075, 0.1])],
)
def test_drop_path_rates_are_those_of_the_blocks_that_follow_the_early_one(arch, early_layers, expected):
    with torch.device('meta'):
        model = neck(arch=arch, early_layers=early_layers, drop_path_rate=0.1)
    assert [block.drop_path.rate for block in model.blocks] == pytest.approx(expected, abs=5e-6)
    assert [block.drop_path.rate for block in neck().blocks] == [0, 0]


def test_official_initialisation_is_that_of_pytorch_rescaled_with_the_depth():
    """unilm:beit2/modeling_pretrain.py builds these blocks after it has initialised all others."""
    arch = dict(embed_dims=96, num_layers=4, num_heads=3, feedforward_channels=384)
    model = neck(arch=arch, early_layers=3, layer_scale=0.25)
    randomize(model.blocks[0].mlp)
    model.init_weights()
    for depth, block in enumerate(model.blocks, 4):
        rescaled = {block.attn.proj: (2 * depth) ** 0.5, block.mlp.fc2: (2 * depth) ** 0.5}
        for module in block.modules():
            if isinstance(module, nn.Linear):
                bound = module.in_features**-0.5
                weight = module.weight * rescaled.get(module, 1)
                assert weight.abs().max().item() == pytest.approx(bound, rel=1e-2)
                assert weight.std().item() == pytest.approx(bound / 3**0.5, rel=2e-2)
                if module.bias is not None:
                    assert module.bias.abs().max().item() == pytest.approx(bound, rel=5e-2)
            elif isinstance(module, nn.LayerNorm):
                assert (module.weight == 1).all() and (module.bias == 0).all()
        assert (block.attn.q_bias == 0).all() and (block.attn.v_bias == 0).all()
        assert (block.scale1.gamma == 0.25).all() and (block.scale2.gamma == 0.25).all()


def test_weights_are_rescaled_once():
    model = neck()
    model.init_weights()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    model.init_weights()
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


def test_recomputing_activations_changes_no_gradient():
    plain, saving = randomize(neck()), neck(with_cp=True)
    saving.load_state_dict(plain.state_dict())
    early, last = tokens()
    gradients = []
    for model in (plain, saving):
        model(early, last[:, 0]).square().sum().backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


@pytest.mark.parametrize('early_layers', [0, 4, -1])
def test_early_patches_have_to_be_early(early_layers):
    with pytest.raises(ValueError, match=rf'early_layers \({early_layers}\) is not between 1 and 3'):
        neck(early_layers=early_layers)


def test_configs_name_it():
    model = MODELS.build(dict(type='mmbeit.PatchAggregationNeck', arch='tiny', early_layers=9))
    assert [type(block).__name__ for block in model.blocks] == ['Block', 'Block']
    assert model.blocks[0].norm1.normalized_shape == (192,)
