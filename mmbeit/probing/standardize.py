"""Channels of mean 0 and variance 1."""

from collections.abc import Iterable

from torch import Tensor

EPS = 1e-6  # added to the variance, as in the probes of MAE and AIM


class Standardize:
    """Shifts and scales channels, which changes nothing of what a linear classifier can say, but how fast it learns.

    The channels of a block of BEiT differ by orders of magnitude. MAE's probe (https://arxiv.org/abs/2111.06377,
    appendix A.1) and AIM's (https://arxiv.org/abs/2401.08541) have a batch norm without weights for the same purpose;
    here the statistics are those of all features given.

    Args:
        batches: Features (B, ..., channels).
        dim: What is averaged over: the batch, or (0, 1) for the patches, too.
    """

    def __init__(self, batches: Iterable[Tensor], dim: int | tuple[int, ...] = 0):
        count, total, squares = 0, 0.0, 0.0
        for batch in batches:
            batch = batch.double()
            total = total + batch.sum(dim)
            squares = squares + batch.square().sum(dim)
            count += batch.numel() // total.numel()
        mean = total / count
        self.mean = mean.float()
        self.std = (squares / count - mean.square()).clamp(min=0).add(EPS).sqrt().float()

    def __call__(self, x: Tensor) -> Tensor:
        return (x - self.mean.to(x.device)) / self.std.to(x.device)
