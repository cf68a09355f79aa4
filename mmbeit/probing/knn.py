"""Weighted nearest neighbours."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from mmbeit.apis.progress import track
from mmbeit.probing.features import StoredFeatures
from mmbeit.probing.task import Labelled, Measured, Score, Task, choose

AT_ONCE = 4096  # images that are compared with as many
LEAST = 1e-9  # share of the votes, for the loss where the right class has none


@dataclass(frozen=True)
class KNNProbe:
    """Votes of the nearest training images, weighted by their similarity, as in DINO (dino:eval_knn.py).

    Similarity is the cosine of pooled features as they are, and a vote weighs exp(similarity / temperature). It is
    exact: every image is compared with every training image.

    Args:
        ks: Numbers of neighbours; those above the number of training images are left out.
        temperature: Of the weights.

    Raises:
        ValueError: There are no numbers of neighbours, or one is below 1.
    """

    ks: tuple[int, ...] = (1, 5, 10, 20, 100, 200)
    temperature: float = 0.07
    name: str = 'knn'

    def __post_init__(self):
        object.__setattr__(self, 'ks', tuple(dict.fromkeys(self.ks)))
        if not self.ks or min(self.ks) < 1:
            raise ValueError(f'ks {self.ks} are not one or more numbers of neighbours')

    def measure(self, task: Task) -> Measured:
        num_blocks, _ = task.train.features.shape
        most = len(task.fit_rows)
        ks = [k for k in self.ks if k <= most] or [most]
        held_out, val = [], []
        for block in track(range(num_blocks), num_blocks, 'nearest neighbours'):
            train = Labelled(task.train.features.of_block(block), task.train.labels)
            other = Labelled(task.val.features.of_block(block), task.val.labels)
            held_out.append(self.score(train, task.fit_rows, train, task.held_out_rows, ks, task))
            val.append(self.score(train, task.train.rows, other, task.val.rows, ks, task))
        score = Score(*map(torch.stack, zip(*held_out, strict=True)))
        choice = choose(score)
        accuracies = [float(one.accuracy[i]) for one, i in zip(val, choice.settings, strict=True)]
        return Measured.of(self.name, range(num_blocks), 'k', ks, score, choice, accuracies)

    @torch.no_grad()
    def score(
        self, known: Labelled, rows: Tensor, asked: Labelled, asked_rows: Tensor, ks: Sequence[int], task: Task
    ) -> Score:
        """Score for each k of one block.

        Args:
            known: Features (rows, 2D) whose classes are known.
            rows: Of these.
            asked: Features whose classes are asked for.
            asked_rows: Of these.
            ks: Numbers of neighbours.
            task: Whose number of classes and device are used.
        """
        right, loss = torch.zeros(len(ks), dtype=torch.long), torch.zeros(len(ks), dtype=torch.double)
        for batch, x in asked.features.batches(asked_rows, AT_ONCE):
            near = nearest(x.to(task.device).float(), known.features, rows, max(ks))
            labels = known.labels[near.rows.cpu()].to(task.device)
            shares = torch.stack(
                [vote(near.similarity[:, :k], labels[:, :k], task.num_classes, self.temperature) for k in ks]
            )
            targets = asked.labels[batch].to(task.device)
            right += (shares.argmax(dim=2) == targets).sum(dim=1).cpu()
            of_right = shares.gather(2, targets.expand(len(ks), -1)[..., None])
            loss -= of_right.clamp(min=LEAST).log().sum(dim=(1, 2)).double().cpu()
        return Score(100 * right.double() / len(asked_rows), loss / len(asked_rows))


class Neighbours(NamedTuple):
    """The nearest first.

    Attributes:
        similarity: (B, k).
        rows: (B, k) long.
    """

    similarity: Tensor
    rows: Tensor


def nearest(queries: Tensor, features: StoredFeatures, rows: Tensor, k: int) -> Neighbours:
    """The k features of the largest cosine.

    Args:
        queries: (B, width).
        features: (rows, width) that are searched, piece by piece.
        rows: Of these.
        k: At most the number of rows.
    """
    queries = F.normalize(queries, dim=1)
    similarity = queries.new_empty(len(queries), 0)
    found = torch.empty(len(queries), 0, dtype=torch.long, device=queries.device)
    for batch, x in features.batches(rows, AT_ONCE):
        similarity = torch.cat([similarity, queries @ F.normalize(x.to(queries.device).float(), dim=1).T], dim=1)
        found = torch.cat([found, batch.to(queries.device).expand(len(queries), -1)], dim=1)
        similarity, places = similarity.topk(min(k, similarity.shape[1]), dim=1)
        found = found.gather(1, places)
    return Neighbours(similarity, found)


def vote(similarity: Tensor, labels: Tensor, num_classes: int, temperature: float) -> Tensor:
    """Share of the votes of each class, (B, num_classes), of neighbours (B, k)."""
    weights = (similarity / temperature).softmax(dim=1)
    return weights.new_zeros(len(weights), num_classes).scatter_add_(1, labels, weights)
