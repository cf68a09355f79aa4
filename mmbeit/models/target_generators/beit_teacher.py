"""A BEiT as the teacher of VQ-KD, where there is no other for one's images."""

from collections.abc import Sequence

from torch import Tensor

from mmbeit.checkpoint.backbone import BEIT, NAME
from mmbeit.checkpoint.formats import to_ours, unwrap
from mmbeit.checkpoint.load import CheckpointError
from mmbeit.models.target_generators.base import TargetGenerator
from mmbeit.models.target_generators.teachers import Teacher
from mmbeit.registry import MODELS


@MODELS.register_module()
class BEiTTeacher(Teacher):
    """The patches of a pretrained BEiT after one of its blocks, not normalised.

    CLIP and DINO, the teachers of the paper, know photographs. On images of another kind a BEiT that was pretrained on
    these, without labels, is a teacher: a second generation of tokens is made from the first.

    Args:
        backbone: Config of a `mmbeit.BEiT`; `rel_pos_bias='shared'` for the weights of a pretraining.
        block: Whose output it is, 0-based, negative from the end. Blocks after it are not run.
        mean, std: Of R, G, B, that it was trained with, of images in [0, 1].
        stride: See :class:`Teacher`; by default that of the BEiT.
        init_cfg: See :class:`Teacher`. A file of any layout will do, of pretraining or of a classifier.

    Raises:
        ValueError: There is no such block.
    """

    def __init__(
        self,
        backbone: dict,
        mean: Sequence[float],
        std: Sequence[float],
        *,
        block: int = -1,
        stride: int | None = None,
        init_cfg: dict | list[dict] | None = None,
    ):
        network = MODELS.build({'type': 'mmbeit.BEiT', **backbone, 'out_type': 'raw', 'out_indices': block})
        patch_size = network.patch_size
        super().__init__(stride or patch_size, patch_size, network.embed_dims, mean, std, init_cfg)
        self.network = network
        self.requires_grad_(False).eval()

    read = TargetGenerator.read  # checkpoints of a run, too, and our names

    def features(self, images: Tensor) -> Tensor:
        return self.network(images)[0][:, 1:]

    def convert(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """The backbone of a model of any layout, without what is not run: the mask token, norms after the last block.

        Raises:
            CheckpointError: It has none.
        """
        state, found = to_ours(unwrap(state))
        inside = {key.removeprefix(NAME): value for key, value in state.items() if key.startswith(NAME)}
        if not inside:
            raise CheckpointError(f'expected a model with a backbone, but this is a {found.table}')
        own = self.network.state_dict()
        return {f'network.{key}': value for key, value in inside.items() if key in own or not BEIT.free.fullmatch(key)}
