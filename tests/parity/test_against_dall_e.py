"""OpenAI's discrete VAE, as published: https://github.com/openai/DALL-E, at the smallest sizes that it accepts."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from builders import randomize

from mmbeit.layers.dvae import DVAEDecoder, DVAEEncoder, map_pixels, unmap_pixels
from mmbeit.models import DiscreteVAE, DVAETokenizer

dall_e = pytest.importorskip('dall_e')
close = partial(torch.testing.assert_close, rtol=1e-5, atol=1e-5)

WIDTH, NUM_CODES = 64, 512
SIZES = dict(num_codes=NUM_CODES, width=WIDTH)


def with_random_biases(module):
    """The package draws weights for signals of unit variance, and zero biases."""
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if name.endswith('.b'):
                parameter.normal_(std=0.1)
            elif 'res_path' in name:
                parameter.mul_(3)  # four of them make up for the gain of 1 / 64
    return module.eval()


@pytest.fixture(scope='module')
def encoder():
    torch.manual_seed(1)
    return with_random_biases(dall_e.Encoder(n_hid=WIDTH, vocab_size=NUM_CODES))


@pytest.fixture(scope='module')
def decoder():
    torch.manual_seed(2)
    return with_random_biases(dall_e.Decoder(n_hid=WIDTH, vocab_size=NUM_CODES))


@pytest.fixture
def images():
    return F.interpolate(torch.rand(4, 3, 8, 6), scale_factor=4)


def tokenizer_from(*paths, **kwargs):
    configs = [dict(type='Pretrained', checkpoint=str(path)) for path in paths]
    tokenizer = DVAETokenizer(**SIZES, init_cfg=configs if len(configs) > 1 else configs[0], **kwargs)
    tokenizer.init_weights()
    return tokenizer


def test_encoder_against_dall_e(encoder, images):
    ours = DVAEEncoder(**SIZES)
    ours.load_state_dict(encoder.state_dict(), strict=True)
    logits = encoder(dall_e.map_pixels(images))
    assert logits.std() > 0.1  # random, not all the same
    close(ours(map_pixels(images)), logits)


def test_decoder_against_dall_e(decoder):
    ours = DVAEDecoder(**SIZES)
    ours.load_state_dict(decoder.state_dict(), strict=True)
    codes = torch.randn(2, NUM_CODES, 2, 3).softmax(dim=1)
    stats = decoder(codes)
    assert stats.std() > 0.1
    close(ours(codes), stats)


def test_decoding_ids_is_decoding_their_one_hot_form(decoder):
    ours = DVAEDecoder(**SIZES)
    ours.load_state_dict(decoder.state_dict())
    ids = torch.randint(NUM_CODES, (2, 2, 3))
    close(ours.embed_and_decode(ids), ours(F.one_hot(ids, NUM_CODES).permute(0, 3, 1, 2).float()))


def test_pixels_against_dall_e(images):
    close(map_pixels(images), dall_e.map_pixels(images))
    wide = torch.linspace(-1, 2, 48).view(1, 3, 4, 4)
    close(unmap_pixels(wide), dall_e.unmap_pixels(wide))


def test_tokens_and_pictures_of_a_tokenizer_from_both_pickled_modules(encoder, decoder, images, tmp_path):
    torch.save(encoder, tmp_path / 'encoder.pkl')
    torch.save(decoder, tmp_path / 'decoder.pkl')
    tokenizer = tokenizer_from(tmp_path / 'encoder.pkl', tmp_path / 'decoder.pkl', decoder=True)
    ids = encoder(dall_e.map_pixels(images)).argmax(dim=1)
    assert len(ids.unique()) > 5
    assert torch.equal(tokenizer(images), ids.flatten(1))
    # OpenAI's notebook: the mean of the logit-Laplace distribution, through a sigmoid.
    stats = decoder(F.one_hot(ids, NUM_CODES).permute(0, 3, 1, 2).float())
    close(tokenizer.decode(ids), dall_e.unmap_pixels(torch.sigmoid(stats[:, :3])))


@pytest.mark.parametrize('zip_format', [True, False], ids=['zip', 'legacy'])
@pytest.mark.filterwarnings('ignore:.*source code of class')
def test_tokenizer_loads_a_pickled_encoder(encoder, images, tmp_path, zip_format):
    path = tmp_path / 'encoder.pkl'
    torch.save(encoder, path, _use_new_zipfile_serialization=zip_format)
    ids = encoder(dall_e.map_pixels(images)).argmax(dim=1).flatten(1)
    assert torch.equal(tokenizer_from(path)(images), ids)


@pytest.mark.parametrize('wrap', [lambda state: state, lambda state: {'state_dict': state}], ids=['bare', 'wrapped'])
def test_tokenizer_loads_a_plain_state_dict_of_the_encoder(encoder, images, tmp_path, wrap):
    """As OpenMMLab hosts it, dalle_encoder.pth."""
    torch.save(wrap(encoder.state_dict()), tmp_path / 'dalle_encoder.pth')
    ids = encoder(dall_e.map_pixels(images)).argmax(dim=1).flatten(1)
    assert torch.equal(tokenizer_from(tmp_path / 'dalle_encoder.pth')(images), ids)


@pytest.mark.parametrize('with_decoder', [True, False])
def test_tokenizer_loads_a_checkpoint_of_our_own_training(images, tmp_path, with_decoder):
    sizes = dict(num_codes=16, width=8, num_groups=3, num_blocks=1)
    model = randomize(DiscreteVAE(**sizes), std=0.2)
    torch.save({'state_dict': model.state_dict(), 'meta': {}}, tmp_path / 'epoch_1.pth')
    init_cfg = dict(type='Pretrained', checkpoint=str(tmp_path / 'epoch_1.pth'))
    tokenizer = DVAETokenizer(**sizes, decoder=with_decoder, init_cfg=init_cfg)
    ids = model(images).argmax(dim=1)
    assert torch.equal(tokenizer(images), ids.flatten(1))
    if with_decoder:
        close(tokenizer.decode(ids), model.decode(ids))


@pytest.mark.parametrize(
    ('change', 'named'),
    [
        (lambda state: state.pop('blocks.group_2.block_1.id_path.b'), 'encoder.blocks.group_2.block_1.id_path.b'),
        (lambda state: state.update({'blocks.more.w': torch.zeros(1)}), 'encoder.blocks.more.w'),
    ],
    ids=['missing', 'unexpected'],
)
def test_a_file_that_does_not_fit_is_refused_by_name_and_key(encoder, tmp_path, change, named):
    state = dict(encoder.state_dict())
    change(state)
    torch.save(state, tmp_path / 'wrong.pth')
    with pytest.raises(ValueError, match='wrong.pth does not fit DVAETokenizer') as error:
        tokenizer_from(tmp_path / 'wrong.pth')
    assert named in str(error.value)
    with pytest.raises(ValueError, match='missing'):  # a decoder was asked for, the file has none
        torch.save(encoder.state_dict(), tmp_path / 'encoder.pth')
        tokenizer_from(tmp_path / 'encoder.pth', decoder=True)
