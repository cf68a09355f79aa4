"""Where the masked patches of images, or words of texts, are in a batch."""

from typing import NamedTuple

import torch
from torch import Tensor


class MaskedPlaces(NamedTuple):
    """Where the M masked places of a batch are, among the N of each sample.

    Attributes:
        places: Among its B*N places, (M,) long.
        tokens: Among the tokens of each sample, (B, T) long, T the most of a sample. One that has fewer has its first
            token, the class token or `<s>`, in the remaining places.
        found: Where they are among these B*T, (M,) long.
        num_places: N.
    """

    places: Tensor
    tokens: Tensor
    found: Tensor
    num_places: int

    def of(self, x: Tensor) -> Tensor:
        """Those (M, ...) among what was made of `tokens` (B, T, ...)."""
        x = x.flatten(0, 1)
        return x if len(x) == len(self.found) else x.index_select(0, self.found)


def stack_masks(data_samples: list) -> Tensor:
    """The masks (B, N) bool of some samples, each of which has a `mask` (h, w) or (h*w), True or 1 = masked."""
    return torch.stack([torch.as_tensor(sample.mask) for sample in data_samples]).flatten(1).bool()


def find_masked(mask: Tensor, device: torch.device, first: int = 1) -> MaskedPlaces:
    """The masked places of a mask (B, N) bool, on a device.

    They are counted where the mask is: on the CPU it costs no waiting for the GPU.

    Args:
        mask: True = masked.
        device: Where they are needed.
        first: Which token of a sample its first place is. Patches come after the class token.
    """
    places, counts = mask.flatten().nonzero()[:, 0], mask.sum(dim=1)
    most = max(int(counts.max()), 1)  # at least one, so that every parameter has a gradient: DDP waits for it
    taken = torch.arange(most, device=mask.device) < counts[:, None]
    tokens = torch.zeros_like(taken, dtype=torch.long).masked_scatter_(taken, first + places % mask.shape[1])
    found = taken.flatten().nonzero()[:, 0]
    return MaskedPlaces(*(x.to(device, non_blocking=True) for x in (places, tokens, found)), mask.shape[1])
