"""Linear classifiers on the features of all blocks, for many learning rates, in one pass over the features."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mmbeit.probing.standardize import Standardize
from mmbeit.probing.task import Measured, Score, Task, choose
from mmbeit.probing.training import Prepare, Training, score


class BlockClassifiers(nn.Module):
    """A linear classifier for each of some blocks. All start from the same weights, drawn from N(0, 0.01).

    Args:
        blocks: Their numbers.
        width: Of the features.
        num_classes: Number of classes K.
        generator: Draws the weights.
    """

    def __init__(self, blocks: Sequence[int], width: int, num_classes: int, generator: torch.Generator):
        super().__init__()
        self.blocks = list(blocks)
        start = torch.empty(width, num_classes).normal_(0, 0.01, generator=generator)
        self.weight = nn.Parameter(start.repeat(len(self.blocks), 1, 1))
        self.bias = nn.Parameter(torch.zeros(len(self.blocks), 1, num_classes))

    def forward(self, features: Tensor) -> Tensor:
        """Logits (own blocks, B, K) of features (B, all blocks, width)."""
        own = features if len(self.blocks) == features.shape[1] else features[:, self.blocks]
        return torch.baddbmm(self.bias, own.transpose(0, 1), self.weight)


@dataclass(frozen=True)
class LinearProbe:
    """A linear classifier after every block, for every learning rate of a sweep.

    Images are not augmented, for their features are computed once, which is what makes this fast; the official probe
    (unilm:beit/run_linear_eval.py, and the recipes with `linear` in their names) crops and flips, and is slow.

    Args:
        training: Epochs, learning rates and so on.
        standardize: Whether features are standardised first, see :class:`Standardize`. The official probe does not.
    """

    training: Training = Training()
    standardize: bool = True
    name: str = 'linear'

    def measure(self, task: Task) -> Measured:
        blocks = range(task.train.features.shape[0])
        rates = self.training.rates
        heads, prepare = self.fit(task, task.fit_rows, dict.fromkeys(rates, blocks))
        held_out = score(heads, task.train, task.held_out_rows, prepare, self.training.batch_size)
        held_out = Score(*(values.view(len(rates), len(blocks)).T for values in held_out))  # (blocks, rates)
        choice = choose(held_out)
        # Once more with all training images, every block at its rate.
        chosen = [rates[i] for i in choice.settings]
        by_rate = {rate: [block for block in blocks if chosen[block] == rate] for rate in dict.fromkeys(chosen)}
        heads, prepare = self.fit(task, task.train.rows, by_rate)
        accuracy = score(heads, task.val, task.val.rows, prepare, self.training.batch_size).accuracy
        order = torch.tensor([block for some in by_rate.values() for block in some])
        return Measured.of(self.name, blocks, 'rate', rates, held_out, choice, accuracy[order.argsort()].tolist())

    def fit(
        self, task: Task, rows: Tensor, blocks: Mapping[float, Sequence[int]]
    ) -> tuple[dict[float, BlockClassifiers], Prepare]:
        """Train classifiers, each as if it were alone.

        Args:
            task: Whose training images, seed and device are used.
            rows: Of the training images.
            blocks: Blocks by learning rate.

        Returns:
            The classifiers by learning rate, and what prepares features (B, blocks, width) for them.
        """
        features = task.train.features
        prepare = nn.Identity()
        if self.standardize:
            prepare = Standardize(x for _, x in features.batches(rows, self.training.batch_size))
        heads = {}
        for rate, some in blocks.items():
            generator = torch.Generator().manual_seed(task.seed)
            heads[rate] = BlockClassifiers(some, features.shape[-1], task.num_classes, generator).to(task.device)
        count = sum(map(len, blocks.values()))
        generator = torch.Generator().manual_seed(task.seed)
        self.training.fit(heads, task.train, rows, prepare, generator, f'{count} linear classifiers')
        return heads, prepare
