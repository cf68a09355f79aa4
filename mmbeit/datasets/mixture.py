"""Batches of images, of texts, and of both, mixed by ratio."""

from collections.abc import Mapping, Sequence
from functools import partial

from mmengine.dataset import default_collate
from torch.utils.data import get_worker_info

from mmbeit.datasets.order import permuted
from mmbeit.datasets.samplers import Process, SampleIndex, seeded
from mmbeit.datasets.shards import Part, Place, Shards, Stream
from mmbeit.datasets.transforms.seed import seed_generators
from mmbeit.registry import DATASETS, FUNCTIONS

Places = dict[str, dict[int, Place]]  # of each group of shards, of each stream of a process


@DATASETS.register_module()
class Mixture:
    """Several data sets, of each of which every batch has its share.

    With :class:`mmbeit.datasets.samplers.MixtureSampler` and :func:`collate_groups` a step's batch is a dict of one
    batch for each group, which :class:`mmbeit.models.data_preprocessors.MDMDataPreprocessor` takes. A group is an
    ordinary data set, which is gone through in random order, in another one each time, or :class:`Shards`.

    What is in a batch, crops and masks included, depends on the seed, the number of the step, the number of processes
    and the size of the batch, and not on the number of workers. Nothing of it is drawn step by step, but for shards,
    whose streams go on from the places that the last sample of every batch has in its meta information
    (:class:`mmbeit.engine.streams.StreamHook` keeps them).

    Args:
        groups: Config of a data set for each group, or None for one that is left out.
        ratio: How many samples of a group for how many of the others, whole numbers; 1 of those that are not named.

    Raises:
        ValueError: There are no groups, or the ratio is of other ones, or not of positive whole numbers.
    """

    metainfo: dict = {}

    def __init__(self, groups: Mapping[str, dict | None], ratio: Mapping[str, int] | None = None):
        configs = {name: config for name, config in groups.items() if config is not None}
        if not configs:
            raise ValueError('there are no groups: expected the config of a data set for one of them')
        ratio = ratio or {}
        if unknown := set(ratio) - set(groups):
            raise ValueError(f'ratio is of {sorted(unknown)}, which are not among the groups {tuple(groups)}')
        self.ratio = {name: ratio.get(name, 1) for name in configs}
        if wrong := {name: share for name, share in self.ratio.items() if not (isinstance(share, int) and share > 0)}:
            raise ValueError(f'ratio {wrong} is not of positive whole numbers')
        self.groups = {name: DATASETS.build(config) for name, config in configs.items()}
        self.process = Process()
        self.places: Places = {name: {} for name in self.shards}
        self._streams: dict[tuple[str, int], Stream] = {}

    def full_init(self) -> None:
        for dataset in self.groups.values():
            if hasattr(dataset, 'full_init'):
                dataset.full_init()

    @property
    def shards(self) -> dict[str, Shards]:
        """The groups that are read as streams."""
        return {name: dataset for name, dataset in self.groups.items() if isinstance(dataset, Shards)}

    def check(self, batch_size: int, num_workers: int) -> None:
        """Whether a DataLoader fits.

        Raises:
            ValueError: The groups cannot have equal shares in all batches, or the workers none in the streams.
        """
        total = sum(self.ratio.values())
        if batch_size % total:
            raise ValueError(f'batch_size {batch_size} is no multiple of {total}: ratio {self.ratio} cannot be kept')
        for name, dataset in self.shards.items():
            if num_workers and dataset.num_streams % num_workers:
                raise ValueError(
                    f'num_workers {num_workers} does not divide the {dataset.num_streams} streams of {name!r}: take '
                    f'another number, or set num_streams={num_workers}'
                )

    def __getitems__(self, positions: Sequence[int]) -> list[tuple[str, dict]]:
        """A batch, the samples of each group together, each with the name of the group.

        Args:
            positions: Numbers of the samples as the process counts them, one after the other; the first one is a
                multiple of how many there are.
        """
        info = get_worker_info()
        self.check(len(positions), info.num_workers if info else 0)
        step, total = positions[0] // len(positions), sum(self.ratio.values())
        samples = []
        for number, name in enumerate(self.groups):
            count = len(positions) // total * self.ratio[name]
            slots = range(step * count, (step + 1) * count)
            positions_of_all = [slot * self.process.world_size + self.process.rank for slot in slots]
            take = self._take_from_shards if name in self.shards else self._take
            samples += [(name, sample) for sample in take(name, number, step, positions_of_all)]
        return samples

    def _take(self, name: str, number: int, step: int, positions: list[int]) -> list[dict]:
        dataset, samples = self.groups[name], []
        for position in positions:
            epoch, i = divmod(position, len(dataset))
            index = permuted(i, len(dataset), (self.process.seed, number, epoch))
            seed = self._seed(number, position)
            seed_generators(seed)
            samples.append(dataset[SampleIndex(index, seed, epoch)])
        return samples

    def _take_from_shards(self, name: str, number: int, step: int, positions: list[int]) -> list[dict]:
        stream = self._stream(name, step % self.shards[name].num_streams)
        samples = []
        for position in positions:
            seed = self._seed(number, position)
            samples.append(stream.take(SampleIndex(position, seed), partial(seed_generators, seed)))
        place = {'stream': step % self.shards[name].num_streams, 'place': stream.place}
        samples[-1]['data_samples'].set_metainfo(place)
        return samples

    def _seed(self, number: int, position: int) -> int:
        return seeded(position, self.process.seed, number).seed

    # ---- streams ----

    def part(self, name: str, stream: int) -> Part:
        """Which part of the shards of a group a stream of this process reads."""
        seed, rank, world_size = self.process
        group_seed = seeded(list(self.groups).index(name), seed).seed
        return Part(stream * world_size + rank, self.shards[name].num_streams * world_size, group_seed)

    def _stream(self, name: str, stream: int) -> Stream:
        if (name, stream) not in self._streams:
            place = self.places[name].get(stream, Place())
            self._streams[name, stream] = self.shards[name].stream(self.part(name, stream), place)
        return self._streams[name, stream]

    def state(self, places: Sequence[Places]) -> dict[str, dict]:
        """What a checkpoint holds, of plain numbers.

        Args:
            places: Of every process, after its last step.
        """
        return {
            name: {
                'num_shards': len(dataset.urls),
                'num_streams': dataset.num_streams,
                'places': [{stream: tuple(place) for stream, place in process[name].items()} for process in places],
            }
            for name, dataset in self.shards.items()
        }

    def go_on(self, state: Mapping[str, dict], num_samples: int) -> list[str]:
        """Continue where a run was that had this state. Call it before the first batch.

        Where shards, streams or processes are others than before, their streams leave out the pass over the shards
        that any of the old ones was in, for nobody can tell which samples of it are left.

        Args:
            state: Of :meth:`state`; groups that are missing begin anew.
            num_samples: How many samples of all groups this process has taken.

        Returns:
            A line for each group that says where it goes on.
        """
        lines = []
        for name, dataset in self.groups.items():
            if name not in self.shards:
                taken = num_samples // sum(self.ratio.values()) * self.ratio[name] * self.process.world_size
                epoch, position = divmod(taken, len(dataset))
                lines.append(f'{name}: goes on after sample {position} of {len(dataset)} in pass {epoch + 1}')
            elif name not in state:
                lines.append(f'{name}: the checkpoint has no places in shards; they are read from the first one on')
            else:
                lines.append(f'{name}: {self._go_on(name, **state[name])}')
        return lines

    def _go_on(self, name: str, num_shards: int, num_streams: int, places: list[dict[int, tuple]]) -> str:
        dataset, (_, rank, world_size) = self.shards[name], self.process
        if (num_shards, num_streams, len(places)) == (len(dataset.urls), dataset.num_streams, world_size):
            self.places[name] = {stream: Place(*place) for stream, place in places[rank].items()}
            stream, place = min(self.places[name].items(), key=lambda item: item[1])
            epoch, url = dataset.url(self.part(name, stream), place.shard)
            return (
                f'goes on in {dataset.num_streams} streams of {world_size} processes, the first one {place.taken} '
                f'samples after sample {place.sample} of {url}, in pass {epoch + 1} over {num_shards} shards; '
                f'{sum(place.skipped for place in self.places[name].values())} samples of this process were skipped'
            )
        furthest = max(
            place[0] * num_streams * len(places) + stream * len(places) + process
            for process, streams in enumerate(places)
            for stream, place in streams.items()
        )
        epoch = furthest // num_shards + 1
        streams = range(dataset.num_streams)
        self.places[name] = {stream: dataset.start_of(self.part(name, stream), epoch) for stream in streams}
        return (
            f'the checkpoint is of {num_shards} shards, {num_streams} streams and {len(places)} processes, this run '
            f'has {len(dataset.urls)}, {dataset.num_streams} and {world_size}: the shards are gone through anew, from '
            f'pass {epoch + 1} on'
        )

    def __getstate__(self) -> dict:
        return {**self.__dict__, '_streams': {}}


@FUNCTIONS.register_module()
def collate_groups(samples: Sequence[tuple[str, dict]]) -> dict[str, dict]:
    """A batch for each group, of its samples stacked."""
    groups: dict[str, list[dict]] = {}
    for name, sample in samples:
        groups.setdefault(name, []).append(sample)
    return {name: default_collate(group) for name, group in groups.items()}
