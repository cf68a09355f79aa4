"""Places of streams in checkpoints. Whole runs: test_tools/test_mdm.py."""

from types import SimpleNamespace

import pytest
from mmengine.hooks import CheckpointHook
from mmpretrain.structures import DataSample

from mmbeit.datasets.mixture import Mixture
from mmbeit.datasets.shards import Place
from mmbeit.engine.hooks import SafeCheckpointHook
from mmbeit.engine.streams import StreamHook

pytest.importorskip('webdataset')


@pytest.fixture
def runner():
    pair = dict(type='mmbeit.Shards', shards='pipe:none', num_streams=4)
    loader = SimpleNamespace(dataset=Mixture(dict(pair=pair)), batch_size=2, num_workers=2)
    scalars = {}
    hub = SimpleNamespace(update_scalar=scalars.__setitem__)
    return SimpleNamespace(train_dataloader=loader, hooks=[CheckpointHook()], message_hub=hub, scalars=scalars)


def batch(stream, *place):
    samples = [DataSample(), DataSample(metainfo=dict(stream=stream, place=Place(*place)))]
    return {'pair': {'data_samples': samples}}


def test_a_checkpoint_has_the_last_place_of_every_stream(runner):
    hook, checkpoint = StreamHook(), {}
    hook.before_train(runner)
    for stream, *place in ((0, 0, 0, 2, 0), (1, 0, 0, 2, 1), (2, 0, 0, 3, 0), (0, 1, 5, 4, 2)):
        hook.after_train_iter(runner, 0, batch(stream, *place))
    hook.before_checkpoint(runner)
    hook.before_save_checkpoint(runner, checkpoint)
    places = {0: (1, 5, 4, 2), 1: (0, 0, 2, 1), 2: (0, 0, 3, 0)}
    assert checkpoint == {'streams': {'pair': dict(num_shards=1, num_streams=4, places=[places])}}
    assert runner.scalars == {'train/skipped_samples': 3}


def test_a_resumed_run_keeps_the_places_of_streams_that_it_has_not_read(runner):
    hook, checkpoint = StreamHook(), {}
    runner.train_dataloader.dataset.places = {'pair': {0: Place(1, 2, 3), 1: Place(4, 5, 6)}}
    hook.before_train(runner)
    hook.after_train_iter(runner, 0, batch(0, 1, 2, 9, 0))
    hook.before_save_checkpoint(runner, checkpoint)
    assert checkpoint['streams']['pair']['places'] == [{0: (1, 2, 9, 0), 1: (4, 5, 6, 0)}]
    assert runner.train_dataloader.dataset.places['pair'][0] == Place(1, 2, 3)


def test_what_does_not_fit_is_refused_before_training(runner, monkeypatch):
    runner.train_dataloader.num_workers = 3
    with pytest.raises(ValueError, match=r"num_workers 3 does not divide the 4 streams of 'pair'"):
        StreamHook().before_train(runner)
    runner.train_dataloader.num_workers = 2
    monkeypatch.setattr('mmbeit.engine.streams.get_world_size', lambda: 2)
    with pytest.raises(ValueError, match=r"needs default_hooks.checkpoint.type='mmbeit.SafeCheckpointHook'"):
        StreamHook().before_train(runner)
    runner.hooks.append(SafeCheckpointHook())
    StreamHook().before_train(runner)
    runner.train_dataloader.dataset = range(3)
    with pytest.raises(ValueError, match='StreamHook is for the data set mmbeit.Mixture, not for range'):
        StreamHook().before_train(runner)
