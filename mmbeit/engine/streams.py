"""Where the streams of a run are, in its checkpoints."""

from mmengine.dist import all_gather_object, get_world_size
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmbeit.datasets.mixture import Mixture, Places
from mmbeit.engine.hooks import SafeCheckpointHook
from mmbeit.registry import HOOKS

KEY = 'streams'  # in a checkpoint


@HOOKS.register_module()
class StreamHook(Hook):
    """Lets a resumed run see the samples that it would have seen, also those of shards, and says where it goes on.

    For a data set :class:`mmbeit.datasets.mixture.Mixture`. Batches carry the places of their streams; those after the
    last step, not after the last one that a worker has prepared, go into the checkpoint, of all processes.
    """

    def __init__(self):
        self.places: Places = {}
        self.gathered: list[Places] | None = None

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        if not runner._resume:
            return
        dataset, loader = mixture_of(runner), runner.train_dataloader
        for line in dataset.go_on(checkpoint.get(KEY, {}), checkpoint['meta']['iter'] * loader.batch_size):
            runner.logger.info(line)

    def before_train(self, runner: Runner) -> None:
        """Look whether everything fits.

        Raises:
            ValueError: The data set is another one, does not fit the DataLoader, or the checkpoints would not have the
                places of all processes.
        """
        dataset, loader = mixture_of(runner), runner.train_dataloader
        dataset.check(loader.batch_size, loader.num_workers)
        if get_world_size() > 1 and not any(isinstance(hook, SafeCheckpointHook) for hook in runner.hooks):
            raise ValueError("StreamHook needs default_hooks.checkpoint.type='mmbeit.SafeCheckpointHook'")
        self.places = {name: dict(places) for name, places in dataset.places.items()}

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: dict | None = None, outputs: dict | None = None
    ) -> None:
        for name, places in self.places.items():
            last = data_batch[name]['data_samples'][-1]
            places[last.stream] = last.place
        if skipped := sum(place.skipped for places in self.places.values() for place in places.values()):
            runner.message_hub.update_scalar('train/skipped_samples', skipped)

    def before_checkpoint(self, runner: Runner) -> None:
        """In every process, before the first one saves."""
        self.gathered = all_gather_object(self.places)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        checkpoint[KEY] = mixture_of(runner).state(self.gathered or [self.places])


def mixture_of(runner: Runner) -> Mixture:
    """The data set of the training.

    Raises:
        ValueError: It is another one.
    """
    dataset = runner.train_dataloader.dataset
    if not isinstance(dataset, Mixture):
        raise ValueError(f'StreamHook is for the data set mmbeit.Mixture, not for {type(dataset).__name__}')
    return dataset
