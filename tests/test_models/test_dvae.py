import math

import pytest
import torch
import torch.nn.functional as F
from builders import randomize

from mmbeit.evaluation import CodebookUsage
from mmbeit.layers.dvae import logit_laplace_nll, map_pixels, unmap_pixels
from mmbeit.models import DiscreteVAE

NUM_CODES = 16


def tiny_dvae(**kwargs):
    """One token for 4 x 4 pixels."""
    return DiscreteVAE(NUM_CODES, width=8, num_groups=3, num_blocks=1, **kwargs)


@pytest.fixture
def images():
    return torch.rand(2, 3, 8, 12)


@pytest.mark.parametrize('mean', [-1.0, 0.0, 2.5])
@pytest.mark.parametrize('log_scale', [-1.5, 0.0, 0.7])
def test_logit_laplace_density_integrates_to_one_over_the_pixels(mean, log_scale):
    pixels = torch.linspace(-35, 35, 100_001, dtype=torch.float64).sigmoid()[1:-1]
    mean, log_scale = torch.full_like(pixels, mean), torch.full_like(pixels, log_scale)
    density = torch.exp(-logit_laplace_nll(pixels, mean, log_scale))
    assert torch.trapezoid(density, pixels).item() == pytest.approx(1, abs=1e-4)
    below = pixels < mean.sigmoid()  # half of it on either side of the mean
    assert torch.trapezoid(density[below], pixels[below]).item() == pytest.approx(0.5, abs=1e-2)


def test_mapped_pixels_keep_away_from_the_borders_and_map_back(images):
    pixels = map_pixels(images)
    assert map_pixels(torch.tensor([0.0, 1.0])).tolist() == pytest.approx([0.1, 0.9])
    torch.testing.assert_close(unmap_pixels(pixels), images)
    assert unmap_pixels(torch.tensor([0.0, 1.0])).tolist() == [0, 1]


def test_divergence_is_zero_for_uniform_codes_and_the_log_of_their_number_for_certain_ones(images):
    model = tiny_dvae(kl_weight=2.5)
    uniform = torch.full((2, NUM_CODES, 2, 3), 7.0)
    assert model.loss(map_pixels(images), uniform)['loss_kl'].item() == pytest.approx(0, abs=1e-6)
    certain = torch.zeros_like(uniform)
    certain[:, 3] = 1000
    # 12 positions, spread over all pixels and channels of the batch.
    expected = 2.5 * 12 * math.log(NUM_CODES) / images.numel()
    assert model.loss(map_pixels(images), certain)['loss_kl'].item() == pytest.approx(expected)


def test_reconstruction_loss_is_the_likelihood_of_the_mapped_pixels(images):
    model = randomize(tiny_dvae(temperature=1e-3), std=0.2)
    logits = torch.randn(2, NUM_CODES, 2, 3)
    codes = []
    model.decoder.register_forward_pre_hook(lambda _, args: codes.append(args[0]))
    loss = model.loss(map_pixels(images), logits)['loss_reconstruction']
    mean, log_scale = model.decoder(codes[0]).chunk(2, dim=1)
    torch.testing.assert_close(loss, logit_laplace_nll(map_pixels(images), mean, log_scale).mean())


def test_temperature_relaxes_the_codes(images):
    model, codes = tiny_dvae(), []
    model.decoder.register_forward_pre_hook(lambda _, args: codes.append(args[0].amax(dim=1).mean().item()))
    for model.temperature in (1e-3, 1.0, 1e3):
        model.loss(map_pixels(images), torch.randn(2, NUM_CODES, 2, 3))
    assert codes[0] > 0.999 and 0.2 < codes[1] < 0.9 and codes[2] < 1.1 / NUM_CODES


def test_forward_gives_the_losses_and_the_logits_of_mapped_pixels(images):
    model = randomize(tiny_dvae(), std=0.2)
    logits = model(images)
    assert torch.equal(logits, model.encoder(map_pixels(images)))
    torch.manual_seed(1)
    expected = model.loss(map_pixels(images), logits)
    torch.manual_seed(1)
    torch.testing.assert_close(model(images, mode='loss'), expected)
    with pytest.raises(ValueError, match="mode 'losses' is not one of"):
        model(images, mode='losses')


def test_predictions_are_the_hard_codes_and_the_error_of_their_decoding(images):
    model = randomize(tiny_dvae(), std=0.2)
    ids = model(images).argmax(dim=1)
    decoded = model.decode(ids)
    mean = model.decoder(F.one_hot(ids, NUM_CODES).permute(0, 3, 1, 2).float())[:, :3]
    torch.testing.assert_close(decoded, unmap_pixels(torch.sigmoid(mean)))
    assert decoded.shape == images.shape and decoded.min() >= 0 and decoded.max() <= 1
    for i, prediction in enumerate(model(images, mode='predict')):
        assert torch.equal(prediction['ids'], ids[i])
        assert prediction['num_codes'] == NUM_CODES
        torch.testing.assert_close(prediction['error'], (decoded[i] - images[i]).abs().mean())


def test_training_reduces_the_loss_and_the_error():
    """Flat patches of a few grey levels, which sixteen codes can tell apart."""
    levels = torch.randint(4, (16, 1, 2, 2)) / 3
    images = levels.repeat_interleave(4, 2).repeat_interleave(4, 3).expand(-1, 3, -1, -1)
    model = tiny_dvae(kl_weight=0.1, temperature=0.5)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)

    def error():
        return torch.stack([prediction['error'] for prediction in model(images, mode='predict')]).mean().item()

    history, before = [], error()
    for _ in range(60):
        losses = model(images, mode='loss')
        loss = losses['loss_reconstruction'] + losses['loss_kl']
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        history.append(loss.item())
    assert sum(history[-5:]) / 5 < history[0] - 0.5
    assert error() < before / 2


def test_perplexity_in_the_loss_is_that_of_the_most_likely_codes(images):
    logits = torch.randn(2, NUM_CODES, 2, 3) * 0.01
    logits[0, 5] = logits[1, 9] = 1.0
    assert tiny_dvae().loss(map_pixels(images), logits)['perplexity'].item() == pytest.approx(2)


def test_codebook_usage_of_known_ids():
    metric = CodebookUsage()
    samples = [
        dict(ids=torch.tensor([[0, 0], [1, 1]]), num_codes=10, error=torch.tensor(0.1)),
        dict(ids=torch.tensor([0, 0, 1, 1]), num_codes=10, error=torch.tensor(0.3)),
    ]
    for sample in samples:
        metric.process({}, [sample])
    assert metric.evaluate(2) == pytest.approx(
        {'codebook/usage': 20, 'codebook/dead_codes': 8, 'codebook/perplexity': 2, 'codebook/error': 0.2}
    )
    metric.process({}, [dict(ids=torch.arange(8), num_codes=8)])
    assert metric.evaluate(1) == pytest.approx(
        {'codebook/usage': 100, 'codebook/dead_codes': 0, 'codebook/perplexity': 8}
    )
