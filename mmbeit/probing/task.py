"""What every probe is given, and what it gives back."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from mmbeit.probing.features import Features


class Labelled(NamedTuple):
    """Features and their classes.

    Attributes:
        features: Row by row.
        labels: (rows,) long.
    """

    features: Features
    labels: Tensor

    @property
    def rows(self) -> Tensor:
        return torch.arange(len(self.labels))


class Task(NamedTuple):
    """A classification of features.

    Attributes:
        train: To learn from.
        val: To report the accuracy of; nothing is chosen with it.
        held_out: (rows of `train`,) bool, True = held out to choose with.
        num_classes: How many classes there are.
        seed: Of all that is drawn.
        device: Where to compute.
    """

    train: Labelled
    val: Labelled
    held_out: Tensor
    num_classes: int
    seed: int
    device: torch.device

    @property
    def fit_rows(self) -> Tensor:
        """Rows of `train` to learn from while something is being chosen."""
        return (~self.held_out).nonzero().flatten()

    @property
    def held_out_rows(self) -> Tensor:
        return self.held_out.nonzero().flatten()


class Score(NamedTuple):
    """How well something classifies; of several, tensors of one shape.

    Attributes:
        accuracy: In percent.
        loss: Mean negative log-likelihood of the right class; decides between equal accuracies.
    """

    accuracy: Tensor
    loss: Tensor

    def best(self) -> int:
        """Number of the best of several."""
        pairs = zip((-self.accuracy).tolist(), self.loss.tolist(), strict=True)
        return min(enumerate(pairs), key=lambda item: item[1])[0]


class OfBlock(NamedTuple):
    """What was measured of one block: its setting, and accuracies in percent."""

    setting: float
    held_out: float
    val: float


class Choice(NamedTuple):
    """What the held-out images say.

    Attributes:
        settings: Number of the best setting of each block.
        block: Number of the best block, with its best setting.
    """

    settings: list[int]
    block: int


def choose(score: Score) -> Choice:
    """Choose a setting for each block, and a block, by scores (blocks, settings)."""
    settings = [Score(accuracy, loss).best() for accuracy, loss in zip(*score, strict=True)]
    of_each = torch.arange(len(settings)), torch.tensor(settings)
    return Choice(settings, Score(score.accuracy[of_each], score.loss[of_each]).best())


@dataclass(frozen=True)
class Measured:
    """What one probe has measured.

    For every block a setting is chosen with the held-out images, and so is the best block. Then everything is learned
    again from all training images, and `val` is the accuracy of that.

    Args:
        probe: 'linear', 'knn' or 'attentive'.
        blocks: Numbers of the blocks, from 0.
        setting: What was swept: 'rate' or 'k'.
        settings: Its values.
        held_out: Accuracy in percent on the held-out images, for each block and setting.
        chosen: The setting of each block.
        val: Accuracy in percent of each block.
        best: Number of the best block.
    """

    probe: str
    blocks: list[int]
    setting: str
    settings: list[float]
    held_out: list[list[float]]
    chosen: list[float]
    val: list[float]
    best: int

    @classmethod
    def of(
        cls,
        probe: str,
        blocks: Sequence[int],
        setting: str,
        settings: Sequence[float],
        held_out: Score,
        choice: Choice,
        val: list[float],
    ) -> 'Measured':
        """From scores on the held-out images, (blocks, settings), and what :func:`choose` makes of them."""
        chosen = [settings[i] for i in choice.settings]
        best = blocks[choice.block]
        return cls(probe, list(blocks), setting, list(settings), held_out.accuracy.tolist(), chosen, val, best)

    def of_block(self, block: int) -> OfBlock:
        i = self.blocks.index(block)
        return OfBlock(self.chosen[i], self.held_out[i][self.settings.index(self.chosen[i])], self.val[i])
