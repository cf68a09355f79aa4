"""From a folder of images to a folder of visual tokens."""

import json
import os
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import matplotlib.figure
import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.registry import DATASETS, TRANSFORMS, DefaultScope
from rich.progress import MofNCompleteColumn
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from mmbeit.apis.progress import bar
from mmbeit.apis.token_recipe import (
    CROPPING_LOADER,
    Steps,
    build_tokenizer,
    center_view,
    identify,
    image_paths,
    split_pipeline,
    versions,
)
from mmbeit.datasets.samplers import seeded
from mmbeit.datasets.tokens import TokenContents, TokenFolder, checksum, write_whole
from mmbeit.datasets.transforms.seed import generators_kept, seed_generators
from mmbeit.evaluation.codebook import codebook_health


class Views(NamedTuple):
    """Of a batch of images, or of one. `errors` says of each image why it has no views, or is empty."""

    targets: Tensor  # (V, 3, height, width) uint8: K target views of each readable image
    checks: np.ndarray  # (V,), of what the backbone sees
    errors: list[str]


class ViewsOfImages(Dataset):
    """K views of each image of a data set, those that a run of the seed shows in its first K epochs.

    Args:
        dataset: Says where the images are; its own pipeline is not used.
        steps: From the file to the views. The loader comes first.
        views: K.
        seed: See :class:`mmbeit.datasets.tokens.TokenContents`.
    """

    def __init__(self, dataset: BaseDataset, steps: Steps, views: int, seed: int):
        self.dataset = dataset
        loader, *rest = steps
        if loader['type'] in ('mmbeit.LoadImage', CROPPING_LOADER):
            loader = {**loader, 'on_error': 'raise'}
        self.load = TRANSFORMS.build(loader)
        self.load_once = loader['type'] != CROPPING_LOADER  # others draw no random numbers
        self.steps = [TRANSFORMS.build(step) for step in rest]
        self.views = views
        self.seed = seed

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, image: int) -> Views:
        targets, checks, info = [], [], self.dataset.get_data_info(image)
        for view in range(self.views):
            seed_generators(seeded(image, self.seed, view).seed)
            try:
                if view == 0 or not self.load_once:
                    loaded = self.load(dict(info))
            except (OSError, ValueError) as error:
                return Views(torch.empty(0), np.empty(0), [str(error)])
            results = {**loaded, 'img': loaded['img'].copy()}
            for step in self.steps:
                results = step(results)
            views = results['img'] if isinstance(results['img'], list) else [results['img']]
            targets.append(np.asarray(views[-1]))
            checks.append(checksum(views[0]))
        return Views(torch.from_numpy(np.stack(targets)).permute(0, 3, 1, 2), np.array(checks), [''])


def collate(images: Sequence[Views]) -> Views:
    """The views of a batch of images, one after the other."""
    readable = [image for image in images if not image.errors[0]]
    return Views(
        torch.cat([image.targets for image in readable]) if readable else torch.empty(0),
        np.concatenate([image.checks for image in readable]) if readable else np.empty(0),
        [image.errors[0] for image in images],
    )


class TokenExtractor:
    """Computes the visual tokens of a data set, with the tokenizer, the images and the augmentation of a recipe.

    What is there already is left as it is: an extraction that was stopped goes on, and several processes may share one.
    Every file is computed from the same batches, whoever computes it.

    Args:
        cfg: A recipe of masked image modeling, such as those of BEiT: names the tokenizer, the data set with its
            augmentation, the workers, and by `randomness.seed` the seed.
        folder: Where the tokens go.
        views: How many random views of each image are extracted, those of the first epochs of the recipe. None: one,
            the centre of the image, see :func:`mmbeit.apis.token_recipe.center_view`.
        size: Side of the centre in pixels; by default that of the recipe's target view.
        batch_size: How many views the tokenizer takes at once.
        device: Of the tokenizer; the GPU if there is one.

    Attributes:
        tokens: The folder, see :class:`mmbeit.datasets.tokens.TokenFolder`.

    Raises:
        ValueError: The recipe has no tokenizer that gives ids, or no pipeline that is understood; or the folder holds
            other tokens.
    """

    def __init__(
        self,
        cfg: Config,
        folder: str | os.PathLike,
        views: int | None = None,
        size: int | None = None,
        batch_size: int = 64,
        device: str | torch.device | None = None,
    ):
        if views is not None and views < 1:
            raise ValueError(f'views ({views}) is not at least 1')
        steps, _ = split_pipeline(cfg)
        steps = center_view(steps, size) if views is None else steps
        seed = cfg.get('randomness', {}).get('seed') or 0
        self.device = torch.device(device or ('cuda' if torch.cuda.is_available() else 'cpu'))
        self.batch_size = batch_size
        self.num_workers = cfg.train_dataloader.get('num_workers', 0)
        self.tokenizer = build_tokenizer(cfg).to(self.device)
        with DefaultScope.overwrite_default_scope(cfg.get('default_scope', 'mmengine')):
            dataset = DATASETS.build({**cfg.train_dataloader.dataset, 'pipeline': []})
            self.images = ViewsOfImages(dataset, steps, views or 1, seed)
        contents = TokenContents(
            tokenizer=identify(self.tokenizer, cfg.model.target_generator),
            pipeline=json.loads(json.dumps(steps)),
            views=views or 1,
            seed=seed,
            grid=list(self._grid()),
            num_codes=self.tokenizer.num_codes,
            num_images=len(dataset),
            versions=versions(),
        )
        self.tokens = TokenFolder.create(folder, contents, image_paths(dataset))

    def _grid(self) -> tuple[int, int]:
        """Tokens of a view, by the first image that can be read."""
        stride = self.tokenizer.stride
        for image in self.images:
            if not image.errors[0]:
                height, width = image.targets.shape[2:]
                if height % stride or width % stride:
                    raise ValueError(f'target views of {height} x {width} pixels are no whole number of {stride}')
                return height // stride, width // stride
        raise ValueError(f'no image of the {len(self.images)} in {self.images.dataset.img_prefix} can be read')

    def run(self, part: int = 0, num_parts: int = 1) -> None:
        """Compute what is missing, with a bar on the terminal. Images that cannot be read are named there.

        Args:
            part: Of several processes that share the work, which one this is.
            num_parts: How many there are.
        """
        shards = [shard for shard in self.tokens.missing() if shard % num_parts == part]
        step = max(1, self.batch_size // self.images.views)
        jobs = [(shard, batch) for shard in shards for batch in batches(self.tokens.images_of(shard), step)]
        loader = DataLoader(
            self.images,
            batch_sampler=[batch for _, batch in jobs],
            num_workers=self.num_workers,
            collate_fn=collate,
            pin_memory=self.device.type == 'cuda',
        )
        with generators_kept(), bar(MofNCompleteColumn(), enabled=part == 0) as progress:
            task = progress.add_task('images', total=sum(len(batch) for _, batch in jobs))
            for (shard, batch), views in zip(jobs, loader, strict=True):
                first, last = self.tokens.images_of(shard)[0], self.tokens.images_of(shard)[-1]
                if batch[0] == first:
                    records = self.tokens.empty(shard)
                for error in filter(None, views.errors):
                    progress.console.print(f'{error}; it has no tokens', markup=False, highlight=False, soft_wrap=True)
                readable = [i - first for i, error in zip(batch, views.errors, strict=True) if not error]
                if readable:
                    shape = len(readable), self.images.views
                    records['ids'][readable] = self._ids(views.targets).reshape(*shape, *self.tokens.contents.grid)
                    records['check'][readable] = views.checks.reshape(shape)
                if batch[-1] == last:
                    self.tokens.write(shard, records)
                progress.advance(task, len(batch))

    def _ids(self, targets: Tensor) -> np.ndarray:
        """Tokens (V, N) of target views (V, 3, height, width) uint8."""
        ids = [self.tokenizer(x.to(self.device).float() / 255).cpu() for x in targets.split(self.batch_size)]
        return torch.cat(ids).numpy()


def batches(images: range, size: int) -> Iterator[range]:
    """Consecutive parts of a range."""
    for start in range(0, len(images), size):
        yield images[start : start + size]


def summarize(tokens: TokenFolder) -> dict:
    """Statistics of a complete folder: also written to it, as `codebook.json` and `codebook.png`, `unreadable.txt`.

    Returns:
        `usage`, `dead_codes` and `perplexity`, see :class:`mmbeit.evaluation.CodebookUsage`, over all tokens; the
        number of `images`, of `unreadable` ones among them, and `bytes`, the size of the tokens on the disk; `counts`,
        how often each code occurs.
    """
    tokens.clear()
    counts = tokens.counts()
    unreadable = list(tokens.unreadable())
    statistics = {
        **codebook_health(counts),
        'images': len(tokens),
        'unreadable': len(unreadable),
        'bytes': sum(tokens.path_of(shard).stat().st_size for shard in range(tokens.num_shards)),
        'counts': counts.tolist(),
    }
    lines = ''.join(f'{path}\n' for path in unreadable).encode(errors='surrogateescape')
    write_whole(tokens.folder / 'unreadable.txt', lambda file: file.write(lines))
    text = json.dumps(statistics) + '\n'
    write_whole(tokens.folder / 'codebook.json', lambda file: file.write(text.encode()))
    figure = draw_usage(counts)
    write_whole(tokens.folder / 'codebook.png', lambda file: figure.savefig(file, dpi=120))
    return statistics


def draw_usage(counts: np.ndarray) -> matplotlib.figure.Figure:
    """How often codes occur, from the most frequent one to the rarest, and where all would be if all were alike."""
    health = codebook_health(counts)
    share = 100 * np.sort(counts)[::-1] / counts.sum()
    figure = matplotlib.figure.Figure(figsize=(6, 3.6), layout='constrained')
    axes = figure.subplots()
    axes.stairs(share, np.arange(len(share) + 1), fill=True)
    axes.axhline(100 / len(share), color='black', linewidth=0.8, linestyle='--', label='if all occurred alike')
    axes.set(xlim=(0, len(share)), yscale='log', xlabel='codes by frequency', ylabel='share of the tokens (%)')
    axes.set_title(
        f'{health["usage"]:.1f} % of {len(counts)} codes in use, perplexity {health["perplexity"]:.0f}', fontsize=10
    )
    axes.legend(frameon=False)
    return figure
