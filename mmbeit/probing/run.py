"""Probes of a frozen backbone, in one call."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from mmengine.config import Config
from torch import nn

from mmbeit.apis.data import DataConfig
from mmbeit.apis.inferencer import backbone_of, prepare_model, sized
from mmbeit.apis.model import data_config_of
from mmbeit.models.backbones.base import Backbone
from mmbeit.models.target_generators.vqkd import VQKDEncoder
from mmbeit.probing.attentive import AttentiveProbe
from mmbeit.probing.cache import cached_features
from mmbeit.probing.extraction import Extractor, Kind
from mmbeit.probing.features import Features, StreamedFeatures
from mmbeit.probing.images import hold_out, match_classes, read_images
from mmbeit.probing.knn import KNNProbe
from mmbeit.probing.linear import LinearProbe
from mmbeit.probing.task import Labelled, Measured, Task

# Mean and std that say the same as `VQKDEncoder.normalize` by process type.
VQKD_STATISTICS = {
    'default': ((127.5,) * 3, (127.5,) * 3),
    'imagenet_norm': ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375)),
    'dall-e': ((0.0,) * 3, (255.0,) * 3),
}

Probe = LinearProbe | KNNProbe | AttentiveProbe
Source = str | os.PathLike | tuple[str | os.PathLike, str | os.PathLike | None]


@dataclass(frozen=True)
class Probed:
    """What the probes of a backbone have measured.

    Args:
        measured: One result for each probe, in the order of the probes.
        num_blocks: Of the backbone.
        num_classes: How many classes the images are of.
        num_train: Training images that could be read, the held-out ones included.
        num_held_out: Of these, the ones that settings and blocks are chosen with.
        num_val: Images that accuracies are of.
        skipped: Paths of the images that could not be read.
        data: What the backbone was given.
        seed: Of all that was drawn.
    """

    measured: list[Measured]
    num_blocks: int
    num_classes: int
    num_train: int
    num_held_out: int
    num_val: int
    skipped: list[str]
    data: DataConfig
    seed: int

    def __getitem__(self, probe: str) -> Measured:
        """The result of a probe by its name."""
        return next(one for one in self.measured if one.probe == probe)


def probe(
    model: nn.Module | str | os.PathLike | Config,
    train: Source,
    val: Source,
    probes: Sequence[Probe] = (LinearProbe(), KNNProbe()),
    *,
    pretrained: bool | str | os.PathLike = True,
    data: DataConfig | None = None,
    size: int | Sequence[int] | None = None,
    held_out: float = 0.2,
    seed: int = 0,
    cache: str | os.PathLike = 'work_dirs/probe/features',
    device: str | torch.device | None = None,
    amp: bool = False,
    dtype: torch.dtype = torch.float16,
    batch_size: int = 64,
    num_workers: int = 4,
    max_gigabytes: float = 50.0,
) -> Probed:
    """Measure what the features of a frozen backbone are worth, block by block.

    Args:
        model: A model with the backbone of BEiT or BEiT-3, such a backbone, or VQ-KD or its tokenizer, whose encoder
            is probed; or what :func:`mmbeit.get_model` takes.
        train: A folder of class folders; or a folder and a list with a line `NAME LABEL` for each image.
        val: Likewise. Nothing is learned from these images, and nothing chosen.
        probes: What to measure, see the classes. An attentive probe without a block takes the best one of the linear
            probe before it, or else of the nearest neighbours.
        pretrained: For :func:`mmbeit.get_model`; by default the published weights.
        data: What the weights expect of an image, if it is not what the model says.
        size: Of the images in pixels, one number or (height, width); by default the model's.
        held_out: Share of the training images that learning rates, numbers of neighbours and blocks are chosen with.
        seed: Of all that is drawn.
        cache: Folder that features are kept in, and taken from.
        device: Where to run; by default a model stays where it is, and a new one goes to the GPU if there is one.
        amp: Whether the backbone runs under bfloat16 autocast.
        dtype: What features are stored in.
        batch_size: Images that the backbone takes at once.
        num_workers: Processes that read images.
        max_gigabytes: Patches of one block that would take more than that on the disk are not kept, but computed again
            in every epoch.

    Raises:
        FileNotFoundError: There is no such model, folder or list, or no image.
        TypeError: The model has another backbone.
        ValueError: The classes differ, or an option is none of the accepted values; the message names it.
        FeatureError: Features cannot be computed or kept.
    """
    sources = [read_images(*source) if isinstance(source, tuple) else read_images(source) for source in (train, val)]
    *labels, num_classes = match_classes(*sources)
    hold_out(labels[0], held_out, seed)  # complains, if at all, before anything slow happens
    model = prepare_model(model, pretrained, device)
    backbone, data = backbone_and_data(model, data)
    probes = [_prepared(one, probes[:i], backbone) for i, one in enumerate(probes)]
    extractor = Extractor(backbone, sized(data, size, backbone.patch_size), amp)

    def keep(kind: Kind) -> list[Features]:
        return [
            cached_features(
                Path(cache), extractor, kind, images, f'{kind.name} of {name}', dtype, batch_size, num_workers
            )
            for images, name in zip(sources, ('train', 'val'), strict=True)
        ]

    def task_of(features: list[Features]) -> Task:
        both = [Labelled(some, own[some.index]) for some, own in zip(features, labels, strict=True)]
        return Task(*both, hold_out(both[0].labels, held_out, seed), num_classes, seed, extractor.device)

    pooled = keep(extractor.pooled())
    task = task_of(pooled)
    measured = []
    for one in probes:
        if isinstance(one, AttentiveProbe):
            if one.block is None:
                one = replace(one, block=(next((m for m in measured if m.probe == 'linear'), None) or measured[0]).best)
            kind = extractor.patches(one.block)
            if sum(map(len, sources)) * kind.num_bytes(dtype) <= 1e9 * max_gigabytes:
                features = keep(kind)
            else:
                features = [
                    StreamedFeatures(extractor, kind, images, some.index, num_workers)
                    for images, some in zip(sources, pooled, strict=True)
                ]
            measured.append(one.measure(task_of(features)))
        else:
            measured.append(one.measure(task))
    return Probed(
        measured=measured,
        num_blocks=extractor.num_blocks,
        num_classes=num_classes,
        num_train=len(task.train.labels),
        num_held_out=int(task.held_out.sum()),
        num_val=len(task.val.labels),
        skipped=[
            str(images.path(i))
            for images, some in zip(sources, pooled, strict=True)
            for i in sorted({*range(len(images))} - {*some.index.tolist()})
        ],
        data=extractor.data,
        seed=seed,
    )


def backbone_and_data(model: nn.Module, data: DataConfig | None = None) -> tuple[Backbone, DataConfig]:
    """The backbone of a model, and what it expects of an image.

    Args:
        model: As for :func:`probe`.
        data: What the model expects; by default what it says. A tokenizer normalises by itself, so what its encoder
            expects differs from that in mean and std.

    Raises:
        TypeError: The model has another backbone.
        ValueError: The model does not say what it expects.
    """
    vqkd = next((part for part in model.modules() if isinstance(part, VQKDEncoder)), None)
    if vqkd is None:
        return backbone_of(model), data or data_config_of(model)
    mean, std = VQKD_STATISTICS[vqkd.process_type]
    return vqkd.encoder, replace(data or data_config_of(model), mean=mean, std=std)


def _prepared(probe: Probe, before: Sequence[Probe], backbone: Backbone) -> Probe:
    """A probe with what it takes from the backbone; those before it may choose its block."""
    if not isinstance(probe, AttentiveProbe):
        return probe
    depth = len(backbone.blocks)
    if probe.block is None and not before:
        raise ValueError('the attentive probe needs a block: say which, or put a linear probe before it')
    if probe.block is not None and not -depth <= probe.block < depth:
        raise ValueError(f'block {probe.block} is not one of the {depth} blocks')
    num_heads = probe.num_heads or backbone.blocks[0].attn.num_heads
    return replace(probe, block=None if probe.block is None else probe.block % depth, num_heads=num_heads)
