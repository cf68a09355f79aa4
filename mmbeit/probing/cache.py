"""Features on disk: computed once, and gone on with where a run was stopped."""

import hashlib
import json
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

import torch
from filelock import FileLock, Timeout
from rich.progress import MofNCompleteColumn
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from mmbeit.apis.progress import bar
from mmbeit.probing.extraction import Extractor, Kind, read_batches
from mmbeit.probing.features import FeatureError, StoredFeatures
from mmbeit.probing.images import LabelledImages

SHARD = 1024  # images of a file: what is lost, at most, when a run is stopped
FORMAT = 1  # to be increased when features change without anything else


def cached_features(
    cache: Path,
    extractor: Extractor,
    kind: Kind,
    images: LabelledImages,
    description: str,
    dtype: torch.dtype = torch.float16,
    batch_size: int = 64,
    num_workers: int = 4,
) -> StoredFeatures:
    """Features of images, from the cache as far as they are there.

    What they depend on (weights, kind, size and time of the image files, their size in pixels and normalisation,
    precision) names the folder in the cache, so features of something else are never taken for them. Images that
    cannot be read are reported, a line for each, and have no row.

    Args:
        cache: Folder of all features.
        extractor: What computes them.
        kind: Which ones.
        images: Of what.
        description: For the progress bar.
        dtype: What they are stored in.
        batch_size: Images that the backbone takes at once.
        num_workers: Processes that read images.

    Raises:
        FeatureError: There is not enough room on the disk, or features are too large for the dtype, or no image can be
            read.
    """
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    identity = dict(
        extractor.identity,
        format=FORMAT,
        features=kind.name,
        shape=list(kind.shape),
        images=_identity_of(images, order),
        dtype=str(dtype).removeprefix('torch.'),
        shard=SHARD,
    )
    text = json.dumps(identity, indent=2, sort_keys=True)
    folder = cache / f'{kind.name}-{hashlib.sha256(text.encode()).hexdigest()[:16]}'
    folder.mkdir(parents=True, exist_ok=True)
    order = order.split(SHARD)
    paths = [folder / f'{number:05}.safetensors' for number in range(len(order))]
    with _locked(folder):
        (folder / 'features.json').write_text(text + '\n')  # for people: what is in here
        shards = {path: _open(path) for path in paths}
        missing = [number for number, path in enumerate(paths) if shards[path] is None]
        if missing:
            count = sum(len(order[number]) for number in missing)
            _check_room(folder, count, kind, dtype)
            batches = {number: order[number].split(batch_size) for number in missing}
            reader = read_batches(
                images, extractor.data, [batch.tolist() for number in missing for batch in batches[number]], num_workers
            )
            with bar(MofNCompleteColumn()) as progress:
                task = progress.add_task(description, total=len(images), completed=len(images) - count)
                for number in missing:
                    index, features = [], [torch.empty(0, *kind.shape, dtype=dtype)]
                    for numbers, pixels, problems in islice(reader, len(batches[number])):
                        for problem in problems:
                            progress.console.print(f'{problem}; it is left out', markup=False, soft_wrap=True)
                        if numbers:
                            index += numbers
                            features.append(_stored_as(dtype, extractor(kind, pixels), kind))
                        progress.advance(task, len(numbers) + len(problems))
                    _save(paths[number], torch.tensor(index, dtype=torch.long), torch.cat(features))
                    shards[paths[number]] = _open(paths[number])
    if not any(len(index) for _, index in shards.values()):
        raise FeatureError(f'none of the {len(images)} images of {images.source} can be read')
    return StoredFeatures(list(shards.values()))


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """A second run that wants the same features waits, and finds them."""
    lock = FileLock(folder / 'lock')
    try:
        lock.acquire(blocking=False)
    except Timeout:
        print(f'waiting for another run, which computes the features in {folder}', file=sys.stderr, flush=True)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _identity_of(images: LabelledImages, order: Tensor) -> str:
    digest = hashlib.sha256()
    for number in order.tolist():
        name = images.names[number]
        try:
            status = images.path(number).stat()
            digest.update(f'{name} {status.st_size} {status.st_mtime_ns}\n'.encode())
        except OSError:
            digest.update(f'{name} missing\n'.encode())
    return digest.hexdigest()


def _check_room(folder: Path, count: int, kind: Kind, dtype: torch.dtype) -> None:
    needed = count * kind.num_bytes(dtype)
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise FeatureError(
            f'features of {count:,} images need {needed / 1e9:.1f} GB in {folder}, where {free / 1e9:.1f} GB are free'
        )


def _stored_as(dtype: torch.dtype, features: Tensor, kind: Kind) -> Tensor:
    stored = features.cpu().to(dtype)
    if not stored.isfinite().all():
        if features.isfinite().all():
            raise FeatureError(
                f'{kind.name} features reach {features.abs().max():.3g}, which {dtype} cannot hold: use dtype float32'
            )
        raise FeatureError(f'{kind.name} features are not finite: are these the right weights?')
    return stored


def _save(path: Path, index: Tensor, features: Tensor) -> None:
    partial = path.with_suffix('.partial')
    save_file({'index': index, 'features': features}, partial)
    partial.replace(path)


def _open(path: Path) -> tuple[Tensor, Tensor] | None:
    """Features and numbers of the images of a shard, or None where it is missing or damaged."""
    if not path.is_file():
        return None
    try:
        with safe_open(path, 'pt') as file:  # memory-mapped: nothing is read before it is used
            return file.get_tensor('features'), file.get_tensor('index')
    except SafetensorError:
        return None
