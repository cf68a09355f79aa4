"""Visual tokens that were extracted before."""

from torch import Tensor

from mmbeit.models.target_generators.base import TargetGenerator
from mmbeit.registry import MODELS


@MODELS.register_module()
class StoredTokens(TargetGenerator):
    """No network: the pipeline has put the ids in the place of the target view, and here they pass.

    See :class:`mmbeit.datasets.transforms.replay.ReplayView`.

    Args:
        num_codes: Size of the codebook of the tokenizer that made them.
    """

    def __init__(self, num_codes: int):
        super().__init__()
        self.num_codes = num_codes

    def targets(self, images: Tensor) -> Tensor:
        """The ids (B, N) as they are; float32, as what is given here always is, holds every one below 2 ** 24."""
        return images.long()

    def num_targets(self, images: Tensor) -> int:
        return images.shape[1]
