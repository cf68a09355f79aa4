import pytest
import torch
import torch.nn.functional as F

from mmbeit.layers.embeddings import PatchEmbed, pad_to_patches, remove_padding

PATCH = 8
SIZES = [(32, 32), (33, 47), (25, 40), (40, 31), (7, 9), (1, 1), (1, 50)]


@pytest.mark.parametrize('layout', [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize('size', [(32, 48), (8, 8)])
def test_patches_are_embedded_as_by_a_convolution(size, layout):
    embed = PatchEmbed(3, 5, PATCH).double()
    x = torch.randn(2, 3, *size, dtype=torch.float64).to(memory_format=layout)
    results = []
    for tokens in (embed(x), embed.proj(x).flatten(2).transpose(1, 2)):
        embed.zero_grad()
        (tokens * torch.linspace(-1, 1, tokens.numel(), dtype=torch.float64).view_as(tokens)).sum().backward()
        results.append((tokens, embed.proj.weight.grad, embed.proj.bias.grad))
    torch.testing.assert_close(*results)


def test_images_of_other_channels_are_refused():
    with pytest.raises(ValueError, match='images of 1 channels, where 3 are expected'):
        PatchEmbed(3, 5, PATCH)(torch.zeros(2, 1, 32, 32))


def test_images_are_padded_with_zeros_on_the_right_and_below():
    x = torch.rand(2, 3, 33, 47) + 1
    padded = pad_to_patches(x, PATCH)
    assert padded.shape == (2, 3, 40, 48)
    assert torch.equal(padded[:, :, :33, :47], x)
    assert padded.count_nonzero() == x.numel()


def test_whole_patches_are_left_alone():
    x = torch.rand(2, 3, 32, 48)
    assert torch.equal(pad_to_patches(x, PATCH), x)
    maps = torch.rand(2, 5, 4, 6)
    assert remove_padding(maps, (32, 48), PATCH) is maps


def where(size):
    """A map of the padded image that tells for each cell where its centre is, in pixels: (1, 2, h, w)."""
    h, w = (-(-side // PATCH) for side in size)
    y, x = torch.meshgrid(torch.arange(h) + 0.5, torch.arange(w) + 0.5, indexing='ij')
    return PATCH * torch.stack([y, x])[None]


def misplaced(maps, size):
    """How far, in pixels, the content of a map is from where a decoder finds it that resizes the map to the image."""
    found = F.interpolate(maps, size=size, mode='bilinear')[0]
    y, x = torch.meshgrid(torch.arange(size[0]) + 0.5, torch.arange(size[1]) + 0.5, indexing='ij')
    border = 1.5 * PATCH  # where there is nothing to sample between
    inside = (y > border) & (y < size[0] - border) & (x > border) & (x < size[1] - border)
    return (found - torch.stack([y, x])).abs()[:, inside].max()


@pytest.mark.parametrize('size', [(33, 47), (57, 33), (120, 41)])
def test_content_stays_where_it_is_in_the_image(size):
    padded = where(size)
    assert misplaced(padded, size) > 2, 'as it is if the padding stays'
    assert misplaced(remove_padding(padded, size, PATCH), size) < 1e-3


@pytest.mark.parametrize('size', SIZES)
def test_number_of_cells_is_kept_and_all_lie_in_the_image(size):
    padded = where(size)
    maps = remove_padding(padded, size, PATCH)
    assert maps.shape == padded.shape
    assert maps.min() >= padded.min() - 1e-4
    assert (maps.amax(dim=(0, 2, 3)) <= torch.tensor(size).clamp(min=PATCH / 2) + 1e-4).all()


def test_an_axis_without_padding_is_not_touched():
    maps = torch.rand(1, 2, 3, 5)
    along_x = maps.mean(dim=2, keepdim=True).expand_as(maps)
    assert torch.equal(remove_padding(along_x, (17, 40), PATCH), along_x)
