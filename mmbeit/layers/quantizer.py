"""The vector quantizer of VQ-KD, and what one wants to know about a codebook."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, distributed, nn

from mmbeit.layers.autocast import no_autocast

CHUNK = 2**22  # largest number of distances at a time: 16 MiB, which stay in the cache


class Quantized(NamedTuple):
    """What a quantizer makes of tokens."""

    vectors: Tensor  # (B, N, E), their codes; straight-through: the gradient goes to the tokens
    ids: Tensor  # (B, N) long, in [0, num_codes)
    loss: Tensor  # scalar, the commitment loss


class NormEMAQuantizer(nn.Module):
    """Nearest codes on the unit sphere, in a codebook of moving averages (BEiT v2, section 3.1 and appendix).

    Reference: unilm:beit2/norm_ema_quantizer.py. Three departures. Ranks share one start and one codebook, where
    officially each starts from its own images. Everything is float32, where officially autocast reaches the
    similarities. In eval mode nothing changes, where officially the counts go on.

    Args:
        num_codes: Size V of the codebook.
        code_dim: Width E of a code.
        decay: Share of the old code that a training step keeps.
        commitment_weight: Factor of the commitment loss.
        kmeans_init: Whether the first training step starts the codebook by k-means over its tokens. Otherwise it
            starts from random directions.
        revive_below: Each training step replaces the codes that are used less than this share of the average code by
            tokens of the batch. 0 is the official behaviour: a code that nothing is near to stays as it is for ever.
    """

    def __init__(
        self,
        num_codes: int,
        code_dim: int,
        decay: float = 0.99,
        commitment_weight: float = 1.0,
        kmeans_init: bool = True,
        revive_below: float = 0.0,
    ):
        super().__init__()
        if not 0 <= revive_below < 1:
            raise ValueError(f'revive_below ({revive_below}) is a share of the average use: expected 0 <= share < 1')
        self.decay = decay
        self.commitment_weight = commitment_weight
        self.revive_below = revive_below
        self.register_buffer('codebook', F.normalize(torch.randn(num_codes, code_dim), dim=1))
        self.register_buffer('cluster_size', torch.zeros(num_codes))  # moving average of the tokens of each code
        self.register_buffer('initted', torch.full((1,), float(not kmeans_init)))
        self._started = False  # reading a buffer would wait for the device

    @property
    def num_codes(self) -> int:
        return self.codebook.shape[0]

    @property
    def code_dim(self) -> int:
        return self.codebook.shape[1]

    def forward(self, tokens: Tensor) -> Quantized:
        """Replace tokens (B, N, E), of any length, by the nearest codes. In training, move the codes, too."""
        with no_autocast(tokens):
            tokens = F.normalize(tokens.float(), dim=-1)
            flat = tokens.detach().flatten(0, 1)
            if self.training and not self._started:
                self._start(flat)
            ids = nearest_codes(flat, self.codebook)
            vectors = self.codebook[ids].view_as(tokens)  # before the update
            if self.training:
                self._update(flat, ids)
            loss = self.commitment_weight * F.mse_loss(tokens, vectors)
            return Quantized(tokens + (vectors - tokens).detach(), ids.view(tokens.shape[:-1]), loss)

    @torch.no_grad()
    def _start(self, tokens: Tensor) -> None:
        """Start the codebook from the tokens of all ranks, unless that has happened before."""
        if not self.initted:
            tokens = gather_rows(tokens)
            if rank() == 0:
                self.codebook.copy_(kmeans(tokens, self.num_codes))
            broadcast(self.codebook)
            self.initted.fill_(1)
        self._started = True

    @torch.no_grad()
    def _update(self, tokens: Tensor, ids: Tensor) -> None:
        """Move each code towards the mean direction of its tokens, on all ranks."""
        sums, counts = sum_by_code(tokens, ids, self.num_codes)
        self.cluster_size.lerp_(counts, 1 - self.decay)
        means = F.normalize(sums / counts.clamp(min=1)[:, None], dim=1)
        means = torch.where(counts[:, None] == 0, self.codebook, means)
        self.codebook.copy_(F.normalize(self.decay * self.codebook + (1 - self.decay) * means, dim=1))
        if self.revive_below:
            self._revive(tokens)

    def _revive(self, tokens: Tensor) -> None:
        """Put tokens of the batch in the place of codes that are hardly used.

        These count as used just enough: what nothing is near to in the next batch either is replaced again. With more
        time for each, fewer stay where an encoder moves faster than its codes follow (600 steps on patches of 8
        kinds: 90 % of 512 codes in use this way, 73 % with 70 steps of time, 70 % with 230).
        """
        enough = self.revive_below * self.cluster_size.mean()
        dead = (self.cluster_size < enough).byte()
        # Ranks that did not agree on a rounding error would exchange different numbers of codes, and wait for ever.
        dead = broadcast(dead).nonzero().flatten()
        if len(dead):
            self.codebook[dead] = broadcast(sample_rows(gather_rows(tokens), len(dead)))
            self.cluster_size[dead] = enough

    def _load_from_state_dict(self, *args, **kwargs) -> None:
        self._started = False
        super()._load_from_state_dict(*args, **kwargs)

    def extra_repr(self) -> str:
        return f'num_codes={self.num_codes}, code_dim={self.code_dim}, revive_below={self.revive_below}'


def nearest_codes(tokens: Tensor, codebook: Tensor) -> Tensor:
    """Id of the nearest code (n,) of each token (n, E) by squared distance; of several the first one."""
    norms = codebook.square().sum(dim=1)
    chunks = tokens.split(max(CHUNK // len(codebook), 1))
    return torch.cat([torch.addmm(norms, chunk, codebook.t(), alpha=-2).argmin(dim=1) for chunk in chunks])


def sum_by_code(tokens: Tensor, ids: Tensor, num_codes: int) -> tuple[Tensor, Tensor]:
    """Sum (V, E) and number (V,) of the tokens (n, E) of each code, over all ranks, in one collective."""
    counted = torch.cat([tokens, tokens.new_ones(len(tokens), 1)], dim=1)
    sums = counted.new_zeros(num_codes, counted.shape[1]).index_add_(0, ids, counted)
    if is_distributed():
        distributed.all_reduce(sums)
    return sums[:, :-1], sums[:, -1]


def kmeans(tokens: Tensor, num_clusters: int, num_iters: int = 10) -> Tensor:
    """Spherical k-means: unit means (num_clusters, E) of unit tokens (n, E), which may be fewer.

    Means start from random tokens; one that loses all its tokens stays where it is.
    """
    means = sample_rows(tokens, num_clusters)
    for _ in range(num_iters):
        ids = nearest_codes(tokens, means)
        counts = torch.bincount(ids, minlength=num_clusters)[:, None]
        sums = torch.zeros_like(means).index_add_(0, ids, tokens)
        means = torch.where(counts == 0, means, F.normalize(sums / counts.clamp(min=1), dim=1))
    return means


def sample_rows(rows: Tensor, num: int) -> Tensor:
    """`num` random rows, different ones if there are enough."""
    if len(rows) >= num:
        return rows[torch.randperm(len(rows), device=rows.device)[:num]]
    return rows[torch.randint(len(rows), (num,), device=rows.device)]


def code_usage(counts: Tensor) -> Tensor:
    """Percentage of the codes that occur, of counts (num_codes,)."""
    return 100 * (counts > 0).double().mean()


def perplexity(counts: Tensor) -> Tensor:
    """How many equally used codes would be as varied as these counts (num_codes,): the exponential of the entropy."""
    probs = counts / counts.sum().clamp(min=1)
    return torch.exp(-torch.special.xlogy(probs, probs).sum())


# ---- ranks: asked for at each call, since a model may be built before they are ----


def is_distributed() -> bool:
    return distributed.is_available() and distributed.is_initialized()


def rank() -> int:
    return distributed.get_rank() if is_distributed() else 0


def broadcast(tensor: Tensor) -> Tensor:
    """Rank 0's values, in place."""
    if is_distributed():
        distributed.broadcast(tensor, src=0)
    return tensor


def gather_rows(rows: Tensor) -> Tensor:
    """The rows (n, E) of all ranks, one rank after the other; n may differ."""
    if not is_distributed():
        return rows
    number = torch.tensor([len(rows)], device=rows.device)
    numbers = [torch.empty_like(number) for _ in range(distributed.get_world_size())]
    distributed.all_gather(numbers, number)
    longest = max(map(int, numbers))
    padded = F.pad(rows, (0, 0, 0, longest - len(rows)))
    gathered = [torch.empty_like(padded) for _ in numbers]
    distributed.all_gather(gathered, padded)
    return torch.cat([part[:n] for part, n in zip(gathered, map(int, numbers), strict=True)])
