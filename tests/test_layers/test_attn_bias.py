import torch

from mmbeit.layers.attn_bias import caption_bias, padding_bias

INF = float('inf')


def test_caption_bias_of_a_small_example():
    """Two image tokens, then three of text: what each row may see."""
    seen = caption_bias(2, 3, torch.float32)[0, 0] == 0
    assert seen.int().tolist() == [
        [1, 1, 0, 0, 0],
        [1, 1, 0, 0, 0],
        [1, 1, 1, 0, 0],
        [1, 1, 1, 1, 0],
        [1, 1, 1, 1, 1],
    ]


def test_caption_bias_without_an_image_is_causal():
    seen = caption_bias(0, 3, torch.float32)[0, 0] == 0
    assert torch.equal(seen, torch.ones(3, 3).tril().bool())


def test_padding_comes_after_all_other_keys():
    mask = torch.tensor([[False, False, True], [False, True, True]])
    bias = padding_bias(mask, 5, torch.float64)
    assert bias.shape == (2, 1, 1, 5) and bias.dtype == torch.float64
    assert bias[:, 0, 0].tolist() == [[0, 0, 0, 0, -INF], [0, 0, 0, -INF, -INF]]


def test_biases_add_up_without_nan():
    mask = torch.tensor([[False, False, True]])
    both = caption_bias(2, 3, torch.float16) + padding_bias(mask, 5, torch.float16)
    assert not both.isnan().any() and (both[..., 0] == 0).all()
