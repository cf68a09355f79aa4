"""One call, from images to the best block."""

import warnings

import pytest
import torch
from builders import TINY, tiny_beit, tiny_classifier, tiny_mim
from safetensors.torch import load_file
from test_probing.planted import BLOCK, Oracle, write_parity_images
from torch import nn

import mmbeit
from mmbeit.apis.data import DataConfig
from mmbeit.apis.features import FeatureExtractor
from mmbeit.models.algorithms.vqkd import VQKD
from mmbeit.models.target_generators.vqkd import VQKDEncoder, VQKDTokenizer
from mmbeit.probing import AttentiveProbe, KNNProbe, LinearProbe, Training
from mmbeit.probing import run as module
from mmbeit.probing.features import StreamedFeatures

DATA = DataConfig((127.5,) * 3, (127.5,) * 3, 32, crop=1.0)
SHORT = Training(epochs=10, rates=(1e-3, 1e-2), batch_size=32)


@pytest.fixture
def parity(tmp_path):
    write_parity_images(tmp_path / 'train', 160, seed=1)
    write_parity_images(tmp_path / 'val', 80, seed=2)
    return tmp_path / 'train', tmp_path / 'val'


def run(model, train, val, *probes, **kwargs):
    options = dict(cache=train.parent / 'cache', num_workers=0, data=DATA, **kwargs)
    return mmbeit.probe(model, train, val, probes or (LinearProbe(SHORT), KNNProbe()), **options)


@pytest.mark.parametrize('wrap', ['backbone', 'classifier', 'mim'])
def test_every_probe_finds_the_one_block_that_knows_the_class(parity, wrap):
    backbone = tiny_beit()
    for i in range(4):
        backbone.blocks[i] = Oracle(backbone, tells=i == BLOCK)
    model = backbone
    if wrap != 'backbone':
        model = tiny_classifier() if wrap == 'classifier' else tiny_mim()
        model.backbone = backbone
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr('mmbeit.probing.extraction.fingerprint', lambda _: 'of an oracle')
        probed = run(model, *parity, LinearProbe(SHORT), KNNProbe(), AttentiveProbe(training=SHORT, num_heads=3))
    linear, knn, attentive = probed.measured
    assert linear.best == knn.best == attentive.best == BLOCK
    assert attentive.blocks == [BLOCK]
    for one in probed.measured:
        assert one.of_block(BLOCK).val > 95
        assert all(one.of_block(block).val < 75 for block in one.blocks if block != BLOCK)
    assert probed['knn'] is knn


def test_what_is_remembered(write_images, tmp_path, capfd):
    train = write_images(tmp_path / 'train', 30, broken=[5])
    val = write_images(tmp_path / 'val', 12, broken=[0, 11], seed=1)
    probed = run(tiny_classifier(), train, val, seed=3)
    assert (probed.num_train, probed.num_val, probed.num_classes, probed.num_blocks) == (29, 10, 3, 4)
    assert 3 <= probed.num_held_out <= 7 and probed.seed == 3 and probed.data == DATA
    assert probed.skipped == [str(train / 'c' / '005.png'), str(val / 'a' / '000.png'), str(val / 'c' / '011.png')]
    assert [one.probe for one in probed.measured] == ['linear', 'knn']
    assert len(capfd.readouterr().err.splitlines()) == 3
    assert run(tiny_classifier(), train, val, seed=3) != probed, 'other weights'


def test_a_seed_gives_the_same_again(write_images, tmp_path):
    train, val = write_images(tmp_path / 'train', 30), write_images(tmp_path / 'val', 12, seed=1)
    probes = LinearProbe(SHORT), KNNProbe(), AttentiveProbe(training=SHORT)
    model = tiny_classifier()
    assert run(model, train, val, *probes) == run(model, train, val, *probes, batch_size=7)


def test_attention_looks_at_the_block_it_is_told_or_the_best(write_images, tmp_path):
    train, val = write_images(tmp_path / 'train', 30), write_images(tmp_path / 'val', 12, seed=1)
    model, attentive = tiny_classifier(), AttentiveProbe(training=SHORT)
    assert run(model, train, val, AttentiveProbe(-1, SHORT)).measured[0].blocks == [3]
    knn, found = run(model, train, val, KNNProbe(), attentive).measured
    assert found.blocks == [knn.best]
    knn, linear, found = run(model, train, val, KNNProbe(), LinearProbe(SHORT), attentive).measured
    assert found.blocks == [linear.best]
    with pytest.raises(ValueError, match='the attentive probe needs a block: say which, or put a linear probe before'):
        run(model, train, val, attentive)
    with pytest.raises(ValueError, match='block 4 is not one of the 4 blocks'):
        run(model, train, val, AttentiveProbe(4, SHORT))


def test_patches_that_would_fill_the_disk_are_computed_in_every_epoch(write_images, tmp_path, monkeypatch):
    train, val = write_images(tmp_path / 'train', 24, broken=[3]), write_images(tmp_path / 'val', 9, seed=1)
    model, probe = tiny_classifier(), AttentiveProbe(1, Training(epochs=2, rates=(1e-2,), batch_size=8))
    streamed = []
    monkeypatch.setattr(module, 'StreamedFeatures', lambda *args: streamed.append(args) or StreamedFeatures(*args))
    kept = run(model, train, val, probe, dtype=torch.float32).measured[0]
    size = (24 + 9) * 16 * 24 * 4 / 1e9
    assert run(model, train, val, probe, dtype=torch.float32, max_gigabytes=size).measured[0] == kept
    assert not streamed
    again = run(model, train, val, probe, dtype=torch.float32, max_gigabytes=0.99 * size).measured[0]
    assert len(streamed) == 2
    assert again.chosen == kept.chosen and again.val == pytest.approx(kept.val)


def test_mistakes_are_found_before_anything_slow_happens(write_images, tmp_path, monkeypatch):
    train, val = write_images(tmp_path / 'train', 12), write_images(tmp_path / 'val', 6, seed=1)
    monkeypatch.setattr(module, 'cached_features', lambda *_: pytest.fail('features are computed'))
    with pytest.raises(ValueError, match=r'held_out \(1\) is not above 0 and below 1'):
        run(tiny_classifier(), train, val, held_out=1)
    with pytest.raises(ValueError, match='block 4 is not one of the 4 blocks'):
        run(tiny_classifier(), train, val, KNNProbe(), AttentiveProbe(4))
    for wrong, message in (
        (dict(epochs=0), r'epochs \(0\) is not 1 or more'),
        (dict(batch_size=-1), r'batch_size \(-1\) is not 1 or more'),
        (dict(rates=()), r'rates \(\) are not one or more learning rates above 0'),
        (dict(rates=(1e-3, 0)), r'rates \(0.001, 0\) are not one or more learning rates above 0'),
    ):
        with pytest.raises(ValueError, match=message):
            Training(**wrong)
    for ks in ((), (5, 0)):
        with pytest.raises(ValueError, match=r'ks \(.*\) are not one or more numbers of neighbours'):
            KNNProbe(ks)


def test_settings_given_twice_count_once():
    assert Training(rates=[1e-3, 1e-2, 1e-3]).rates == (1e-3, 1e-2)
    assert KNNProbe([5, 5, 1]).ks == (5, 1)


@pytest.mark.parametrize('process_type', module.VQKD_STATISTICS)
@pytest.mark.parametrize('wrap', ['encoder', 'tokenizer', 'vqkd'])
def test_the_encoder_of_a_tokenizer(wrap, process_type):
    arch = dict(TINY, num_layers=2)
    options = dict(arch=arch, img_size=32, patch_size=8, num_codes=5, code_dim=4, process_type=process_type)
    model = {
        'encoder': lambda: VQKDEncoder(**options),
        'tokenizer': lambda: VQKDTokenizer(**options),
        'vqkd': lambda: VQKD(options, num_decoder_layers=1, target_dims=3),
    }[wrap]()
    encoder = {'encoder': lambda: model, 'tokenizer': lambda: model.network, 'vqkd': lambda: model.tokenizer}[wrap]()
    unit = DataConfig((0,) * 3, (255,) * 3, 32)
    backbone, data = module.backbone_and_data(model, unit)
    assert backbone is encoder.encoder and backbone is not getattr(model, 'decoder', None)
    images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    torch.testing.assert_close(data.normalize(images), encoder.normalize(unit.normalize(images)), rtol=1e-5, atol=1e-5)
    assert data.size == unit.size and data.crop == unit.crop


def test_a_pretraining_model_is_not_taken_for_its_tokenizer():
    model = tiny_mim()
    model.__dict__['target_generator'] = VQKDTokenizer(dict(TINY), img_size=32, patch_size=8)
    assert module.backbone_and_data(model, DATA) == (model.backbone, DATA)


def test_size_of_the_images(write_images, tmp_path):
    train, val = write_images(tmp_path / 'train', 12), write_images(tmp_path / 'val', 6, seed=1)
    model = tiny_classifier()
    assert run(model, train, val, KNNProbe(), size=(24, 40)).data.size == (24, 40)
    with pytest.raises(ValueError, match=r'size \(20, 20\) is not a whole number of patches of 8 pixels'):
        run(model, train, val, KNNProbe(), size=20)


def test_a_model_of_somebody_else(write_images, tmp_path):
    train, val = write_images(tmp_path / 'train', 12), write_images(tmp_path / 'val', 6, seed=1)
    with pytest.raises(TypeError, match='Linear has no backbone of type mmbeit.BEiT'):
        run(nn.Linear(2, 2), train, val)


def test_data_sets_as_lists(write_images, tmp_path):
    train, val = write_images(tmp_path / 'train', 30), write_images(tmp_path / 'val', 12, seed=1)
    model = tiny_classifier()
    expected = run(model, train, val)
    for folder in (train, val):
        names = sorted(str(path.relative_to(folder)) for path in folder.rglob('*.png'))
        lines = ''.join(f'{name} {"abc".index(name[0])}\n' for name in names)
        (tmp_path / f'{folder.name}.txt').write_text(lines)
    lists = (train, tmp_path / 'train.txt'), (val, tmp_path / 'val.txt')
    options = dict(cache=tmp_path / 'cache', num_workers=0, data=DATA)
    assert mmbeit.probe(model, *lists, (LinearProbe(SHORT), KNNProbe()), **options) == expected


def test_features_are_those_of_the_extractor(write_images, tmp_path):
    train, val = write_images(tmp_path / 'train', 12), write_images(tmp_path / 'val', 6, seed=1)
    model = tiny_classifier()
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        run(model, train, val, KNNProbe(), dtype=torch.float32)
    features = FeatureExtractor(model, data=DATA)(str(train / 'a' / '000.png'), layers=range(4))
    expected = torch.cat([features['cls_tokens'], features['maps'].flatten(2).mean(2)], dim=1)
    shards = [load_file(path) for path in (tmp_path / 'cache').rglob('*.safetensors')]
    rows = torch.cat([shard['features'] for shard in shards])
    assert min(float((row - expected).abs().max()) for row in rows) < 1e-4
