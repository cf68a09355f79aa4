"""What the quickstarts have in common: a BEiT, pretrained on scans of digits with a tokenizer of its own."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from mmbeit.engine.processes import Run, last_checkpoint, precision_options
from mmbeit.resources import resource_root

CONFIGS = resource_root() / 'configs' / 'beit' / 'quickstart'
DVAE = CONFIGS / 'dvae_digits.py'
PRETRAIN = CONFIGS / 'beit_beit-mini-p4_1xb64-amp-coslr-90e_digits.py'
FINETUNE = CONFIGS / 'beit-mini-p4_1xb50-coslr-200e_digits.py'
TOKENIZER = 'model.target_generator.init_cfg.checkpoint'
SECONDS = {'dvae': 80, 'pretrain': 160, 'finetune': 25}  # of one run, roughly: shares of the progress bar


class Options(NamedTuple):
    """Of `tools/train.py`, for recipes of digits: those of all of them, and what those that validate need besides."""

    train: tuple[str, ...]
    val: tuple[str, ...]


def digit_options(data: Path, epochs: int | None) -> Options:
    """Options for a folder that `dataset_converters/digits.py` has written.

    Args:
        data: The folder.
        epochs: Of every run, if they are not those of the recipes.
    """
    train, val = f'train_dataloader.dataset.data_root={data}', f'val_dataloader.dataset.data_root={data}'
    if epochs is None:
        return Options((*precision_options(), train), (val,))
    short = f'train_cfg.max_epochs={epochs}'
    return Options((*precision_options(), short, train), (f'train_cfg.val_interval={epochs}', val))


def pretraining(dvae: Path, beit: Path, options: Options, beside: Iterable[Run] = ()) -> Iterator[list[Run]]:
    """The stages from nothing to a pretrained BEiT.

    Args:
        dvae: Work folder of its tokenizer.
        beit: Work folder of the BEiT.
        options: What :func:`digit_options` gives.
        beside: Runs that need none of this, for the core that pretraining leaves idle.
    """
    yield [Run('training a tokenizer', DVAE, dvae, (*options.train, *options.val), SECONDS['dvae'])]
    tokens = f'{TOKENIZER}={last_checkpoint(dvae)}'
    pretrain = Run('pretraining BEiT on its tokens', PRETRAIN, beit, (*options.train, tokens), SECONDS['pretrain'])
    yield [pretrain, *beside]


def finetuning(name: str, weights: Path | None, root: Path, options: Options, seeds: Iterable[int]) -> Iterator[Run]:
    """Fine-tuning from some weights, or from scratch, once for every seed."""
    key = 'model.backbone.init_cfg'
    start = f'{key}=None' if weights is None else f'{key}.checkpoint={weights}'
    for seed in seeds:
        draw_of = (f'randomness.seed={seed}', f'train_dataloader.dataset.ann_file=labelled_{seed}.txt')
        every = (*options.train, *options.val, *draw_of, start)
        yield Run('fine-tuning on 50 labelled scans', FINETUNE, root / f'{name}-{seed}', every, SECONDS['finetune'])


def pretrained_in(work_dir: Path) -> Path | None:
    """Weights of a pretraining that has been there, if any has."""
    return last_checkpoint(work_dir) if (work_dir / 'last_checkpoint').is_file() else None
