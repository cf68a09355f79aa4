"""Classifiers of frozen features, trained side by side, each as if it were alone."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmbeit.apis.progress import track
from mmbeit.probing.features import shuffle
from mmbeit.probing.task import Labelled, Score

Prepare = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Training:
    """How classifiers are trained: with AdamW, whose learning rate follows a cosine from epoch to epoch, down to 0.

    It is the recipe of the official linear probe (unilm:beit/run_linear_eval.py), in which biases decay, too, but for
    the number of epochs, the batch size and the sweep.

    Args:
        epochs: Passes over the features.
        rates: Learning rates; officially 4e-3 alone, for 1024 images in a step.
        batch_size: Images in a step.
        weight_decay: Of AdamW.

    Raises:
        ValueError: A number is not positive, or there is no rate.
    """

    epochs: int = 100
    rates: tuple[float, ...] = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
    batch_size: int = 256
    weight_decay: float = 1e-4

    def __post_init__(self):
        for name in ('epochs', 'batch_size'):
            if getattr(self, name) < 1:
                raise ValueError(f'{name} ({getattr(self, name)}) is not 1 or more')
        object.__setattr__(self, 'rates', tuple(dict.fromkeys(self.rates)))
        if not self.rates or min(self.rates) <= 0:
            raise ValueError(f'rates {self.rates} are not one or more learning rates above 0')

    def fit(
        self,
        heads: Mapping[float, nn.Module],
        data: Labelled,
        rows: Tensor,
        prepare: Prepare,
        generator: torch.Generator,
        description: str,
    ) -> None:
        """Train in place.

        Args:
            heads: By learning rate. Each gives the logits (heads, B, K) of one or more classifiers.
            data: Features and classes.
            rows: Of these.
            prepare: What is done to features first.
            generator: Draws the order of the rows.
            description: For the progress bar.
        """
        device = next(next(iter(heads.values())).parameters()).device
        groups = [dict(params=head.parameters(), lr=rate) for rate, head in heads.items()]
        optimizer = torch.optim.AdamW(groups, weight_decay=self.weight_decay)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, self.epochs)
        for _ in track(range(self.epochs), self.epochs, description):
            for batch, features in data.features.batches(shuffle(rows, generator), self.batch_size):
                features, targets = prepare(features.to(device).float()), data.labels[batch].to(device)
                optimizer.zero_grad()
                for head in heads.values():  # one after the other, for the logits are the largest thing here
                    logits = head(features)
                    loss = F.cross_entropy(logits.flatten(0, 1), targets.repeat(len(logits)))
                    (len(logits) * loss).backward()  # the sum over classifiers, which do not know of each other
                optimizer.step()
            schedule.step()


@torch.no_grad()
def score(heads: Mapping[float, nn.Module], data: Labelled, rows: Tensor, prepare: Prepare, batch_size: int) -> Score:
    """Score of every classifier of every head, in that order: (classifiers,)."""
    device = next(next(iter(heads.values())).parameters()).device
    right, loss = 0, 0.0
    for batch, features in data.features.batches(rows, batch_size):
        features, targets = prepare(features.to(device).float()), data.labels[batch].to(device)
        log_probs = [head(features).log_softmax(dim=2) for head in heads.values()]
        right = right + torch.cat([(x.argmax(dim=2) == targets).sum(dim=1) for x in log_probs]).cpu()
        of_right = [x.gather(2, targets.expand(len(x), -1)[..., None]) for x in log_probs]
        loss = loss - torch.cat([x.sum(dim=(1, 2), dtype=torch.double) for x in of_right]).cpu()
    return Score(100 * right.double() / len(rows), loss / len(rows))
