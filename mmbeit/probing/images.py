"""Images with classes: a folder of class folders, or a list."""

import os
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from mmbeit.apis.images import SUFFIXES, list_images


@dataclass(frozen=True)
class LabelledImages:
    """Images and their classes.

    Args:
        root: Folder that the names are relative to.
        names: Of the image files.
        labels: Class of each, (number,) long, from 0.
        classes: Names of the classes where they are known: those of the folders.
        source: Where they come from, for messages.
    """

    root: Path
    names: list[str]
    labels: Tensor
    classes: list[str] | None
    source: str

    def __len__(self) -> int:
        return len(self.names)

    def path(self, index: int) -> Path:
        return self.root / self.names[index]


def read_images(folder: str | os.PathLike, ann_file: str | os.PathLike | None = None) -> LabelledImages:
    """Find images and their classes, as mmpretrain's `CustomDataset` does.

    Args:
        folder: Without a list, `folder/CLASS/...` are the images of that class, and the classes are numbered in the
            order of their names. Hidden folders are none.
        ann_file: A list with a line `NAME LABEL` for each image, names relative to the folder.

    Raises:
        FileNotFoundError: There is no such folder or list, or no image.
        ValueError: A line of the list is something else; the message quotes it.
    """
    root = Path(folder).expanduser()
    if not root.is_dir():
        raise FileNotFoundError(f'no such folder: {root}')
    if ann_file is not None:
        return _read_list(root, Path(ann_file).expanduser())
    classes = sorted(path.name for path in root.iterdir() if path.is_dir() and not path.name.startswith('.'))
    names, labels = [], []
    for label, name in enumerate(classes):
        try:
            found = list_images(root / name)
        except FileNotFoundError:
            continue
        names += [str(path.relative_to(root)) for path in found]
        labels += [label] * len(found)
    if not names:
        raise FileNotFoundError(
            f'no images in {root}: expected {root}/CLASS/ with files that end in {", ".join(sorted(SUFFIXES))}, '
            'or a list of images and labels'
        )
    return LabelledImages(root, names, torch.tensor(labels), classes, str(root))


def _read_list(root: Path, ann_file: Path) -> LabelledImages:
    names, labels = [], []
    for number, line in enumerate(ann_file.read_text().splitlines(), 1):
        if not line.strip():
            continue
        name, _, label = line.strip().rpartition(' ')
        if not name or not label.isdigit():
            raise ValueError(f'line {number} of {ann_file} is {line!r}: expected NAME LABEL, a label being 0, 1, ...')
        names.append(name.strip())
        labels.append(int(label))
    if not names:
        raise FileNotFoundError(f'no images in {ann_file}: expected a line NAME LABEL for each')
    if not (root / names[0]).is_file():
        raise FileNotFoundError(f'no such file: {root / names[0]}, the first of {ann_file}')
    return LabelledImages(root, names, torch.tensor(labels), None, str(ann_file))


def match_classes(train: LabelledImages, val: LabelledImages) -> tuple[Tensor, Tensor, int]:
    """Number the classes of both alike: by their names where both have names, else by the numbers that they have.

    Returns:
        Labels of the training images, labels of the others, and the number of classes. Some of the classes may have no
        image in `val`.

    Raises:
        ValueError: `val` has classes that no training image is of; the message names them. Or both are the same.
    """
    if train.source == val.source:
        raise ValueError(f'the images to train on and those to evaluate are both {val.source}')
    labels = val.labels
    names = train.classes
    if train.classes is not None and val.classes is not None:
        places = {name: place for place, name in enumerate(train.classes)}
        known = len(places)
        for name in val.classes:
            places.setdefault(name, len(places))  # unknown: reported below, unless it is an empty folder
        names = list(places)
        labels = torch.tensor([places[name] for name in val.classes])[val.labels]
        num_classes = known
    else:
        names = train.classes or val.classes
        num_classes = len(names) if names else int(train.labels.max()) + 1
        if names and int(max(train.labels.max(), labels.max())) >= num_classes:
            listed, other = (train, val) if train.classes is None else (val, train)
            raise ValueError(
                f'{listed.source} has the label {int(listed.labels.max())}, but {other.source} has {num_classes} '
                'class folders'
            )
    strange = sorted({int(i) for i in labels.unique()} - {int(i) for i in train.labels.unique()})
    if strange:
        shown = ', '.join(str(names[i]) if names else str(i) for i in strange[:5])
        raise ValueError(
            f'{val.source} has {len(strange)} of its {len(labels.unique())} classes for itself: '
            f'{train.source} has no image of {shown}{", ..." if len(strange) > 5 else ""}'
        )
    return train.labels, labels, num_classes


def hold_out(labels: Tensor, fraction: float, seed: int) -> Tensor:
    """Choose a share of every class at random, but at least one image of each that has two.

    Args:
        labels: (number,) long.
        fraction: Above 0 and below 1.
        seed: Of the choice.

    Returns:
        (number,) bool, True = held out.

    Raises:
        ValueError: The fraction is none, or nothing can be held out because no class has two images.
    """
    if not 0 < fraction < 1:
        raise ValueError(f'held_out ({fraction}) is not above 0 and below 1')
    generator = torch.Generator().manual_seed(seed)
    held = torch.zeros(len(labels), dtype=torch.bool)
    for label in labels.unique():
        members = (labels == label).nonzero().flatten()
        count = min(len(members) - 1, max(1, round(fraction * len(members))))
        held[members[torch.randperm(len(members), generator=generator)[:count]]] = True
    if not held.any():
        raise ValueError('no class has two training images, of which one could be held out to choose with')
    return held
