"""A classifier that chooses which patches to look at."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mmbeit.probing.standardize import Standardize
from mmbeit.probing.task import Measured, Score, Task, choose
from mmbeit.probing.training import Prepare, Training, score

FOR_STATISTICS = 2048  # images: with hundreds of patches each these are enough, and they are a fair sample


class AttentiveHead(nn.Module):
    """Attention of one learned query to the patches, and a linear classifier (AIM, https://arxiv.org/abs/2401.08541).

    AIM has keys and values of every patch. As the query is learned, the key projection is folded into it here, one
    vector u for each head: q . (K x) = (K' q) . x. And as the weights of a head are the same for all channels,
    patches are averaged before they are projected, not after. The functions are the same, at the cost of a few vectors
    for each patch instead of two matrices.

    Args:
        dim: Width D of the patches.
        num_classes: Number of classes K.
        num_heads: Heads H of the attention; they share D.
        generator: Draws the weights.

    Raises:
        ValueError: The heads do not share D evenly.
    """

    def __init__(self, dim: int, num_classes: int, num_heads: int, generator: torch.Generator):
        super().__init__()
        if dim % num_heads:
            raise ValueError(f'dim ({dim}) must be divisible by num_heads ({num_heads})')
        self.query = nn.Parameter(torch.zeros(num_heads, dim))
        self.value = nn.Parameter(torch.empty(num_heads, dim, dim // num_heads))
        self.classifier = nn.Linear(dim, num_classes)
        nn.init.normal_(self.query, std=0.02, generator=generator)
        nn.init.normal_(self.value, std=dim**-0.5, generator=generator)
        nn.init.normal_(self.classifier.weight, std=0.01, generator=generator)
        nn.init.zeros_(self.classifier.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (1, B, K) of patches (B, N, D)."""
        weights = torch.einsum('bnd,hd->bhn', x, self.query).softmax(dim=2)
        pooled = torch.einsum('bhn,bnd->bhd', weights, x)
        return self.classifier(torch.einsum('bhd,hdc->bhc', pooled, self.value).flatten(1))[None]


@dataclass(frozen=True)
class AttentiveProbe:
    """An attentive head on the patches of one block, for every learning rate of a sweep.

    Args:
        block: Its number; by default the best one of a linear probe, or else of the nearest neighbours.
        training: Epochs, learning rates and so on.
        num_heads: Of the attention; by default as many as the backbone has.
    """

    block: int | None = None
    training: Training = Training()
    num_heads: int | None = None
    name: str = 'attentive'

    def measure(self, task: Task) -> Measured:
        """Measure with patches of the block as features, (rows, N, D)."""
        rates = self.training.rates
        heads, prepare = self.fit(task, task.fit_rows, rates)
        held_out = score(heads, task.train, task.held_out_rows, prepare, self.training.batch_size)
        held_out = Score(*(values[None] for values in held_out))  # (1 block, rates)
        choice = choose(held_out)
        heads, prepare = self.fit(task, task.train.rows, [rates[choice.settings[0]]])
        accuracy = score(heads, task.val, task.val.rows, prepare, self.training.batch_size).accuracy
        return Measured.of(self.name, [self.block], 'rate', rates, held_out, choice, accuracy.tolist())

    def fit(self, task: Task, rows: Tensor, rates: Sequence[float]) -> tuple[dict[float, AttentiveHead], Prepare]:
        """Train a head for each learning rate on some rows of the training images, see :meth:`LinearProbe.fit`."""
        features = task.train.features
        dim = features.shape[-1]
        prepare = Standardize((x for _, x in features.batches(rows[:FOR_STATISTICS], self.training.batch_size)), (0, 1))
        heads = {}
        for rate in rates:
            generator = torch.Generator().manual_seed(task.seed)
            heads[rate] = AttentiveHead(dim, task.num_classes, self.num_heads, generator).to(task.device)
        generator = torch.Generator().manual_seed(task.seed)
        self.training.fit(heads, task.train, rows, prepare, generator, f'{len(heads)} attentive classifiers')
        return heads, prepare
