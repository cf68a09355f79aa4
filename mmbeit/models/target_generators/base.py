"""What a frozen network that makes pretraining targets has to offer."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import nullcontext

import torch
from mmengine.model import BaseModule
from mmengine.runner import CheckpointLoader
from torch import Tensor

from mmbeit.checkpoint.load import CheckpointError
from mmbeit.layers.autocast import no_autocast
from mmbeit.layers.masked import MaskedPlaces


class TargetGenerator(BaseModule, ABC):
    """Frozen network from images in [0, 1] to one target per patch: ids (B, N) or features (B, N, D).

    The attribute `num_codes` is the number of ids, `embed_dims` the width D, `stride` the side of a patch in pixels.
    Whoever needs the targets of masked patches only says so, and what is for the others alone need not be computed. It
    owns the normalisation that it was trained with. It is always in eval mode, gives no gradient, and has float32
    weights whatever the model is cast to. It also computes in float32 whatever autocast says (on GPUs in TF32 in part),
    since ids near a tie would flip, unless a class says otherwise by `follows_autocast`.

    Args:
        init_cfg: `dict(type='Pretrained', checkpoint=PATH)`, or a list of them; every weight has to come from there.
            None leaves the weights as they are drawn.
    """

    follows_autocast = False

    def __init__(self, init_cfg: dict | list[dict] | None = None):
        super().__init__(init_cfg)
        self.requires_grad_(False)

    @abstractmethod
    def targets(self, images: Tensor) -> Tensor:
        """Targets of images (B, 3, height, width) in [0, 1]."""

    def masked_targets(self, images: Tensor, masked: MaskedPlaces) -> Tensor:
        """Those of masked patches, (M,) or (M, D). Override where they are had with less work than all."""
        return self.targets(images).flatten(0, 1).index_select(0, masked.places)

    def num_targets(self, images: Tensor) -> int:
        """Targets N of each image."""
        return images.shape[-2] // self.stride * (images.shape[-1] // self.stride)

    @torch.no_grad()
    def forward(self, images: Tensor, masked: MaskedPlaces | None = None) -> Tensor:
        """Targets of images.

        Args:
            images: (B, 3, height, width) in [0, 1].
            masked: Those of which patches are wanted; None: of all.

        Returns:
            Ids (B, N) or features (B, N, D), row by row; where `masked` is given, (M,) or (M, D), image by image.

        Raises:
            ValueError: The number of targets is not that of the patches that `masked` is about; the message gives both.
        """
        if masked is not None and self.num_targets(images) != masked.num_places:
            raise ValueError(
                f'the target view gives {self.num_targets(images)} tokens for a mask of {masked.num_places} patches: '
                'its size over the stride of the tokenizer has to equal the size of the view over the patch'
            )
        if not self.is_init:  # Runner.test() and inference do not call it, and random targets would not show
            self.init_weights()
        with nullcontext() if self.follows_autocast else no_autocast(images):
            images = images.float()
            return self.targets(images) if masked is None else self.masked_targets(images, masked)

    def init_weights(self) -> None:
        """Load the files of `init_cfg`.

        Raises:
            CheckpointError: Together they do not hold exactly the weights of this network; the message names the keys.
        """
        if self.is_init:
            return
        self.is_init = True
        configs = [self.init_cfg] if isinstance(self.init_cfg, dict) else self.init_cfg or []
        state = {}
        for config in configs:
            content = self.read(config['checkpoint'])
            try:
                state.update(self.convert(content))
            except CheckpointError as error:
                raise CheckpointError(f'{config["checkpoint"]}: {error}') from error
        if not configs:
            return
        names = ', '.join(config['checkpoint'] for config in configs)
        try:
            missing, unexpected = self.load_state_dict(state, strict=False)
        except (RuntimeError, CheckpointError) as error:  # shapes, or the keys of a backbone
            raise CheckpointError(f'{names} does not fit {type(self).__name__}: {error}') from error
        if missing or unexpected:
            raise CheckpointError(
                f'{names} does not fit {type(self).__name__}: '
                f'missing {missing[:4]} ({len(missing)} keys), unexpected {unexpected[:4]} ({len(unexpected)} keys)'
            )

    def read(self, checkpoint: str) -> dict[str, Tensor]:
        """The weights in a file. Override where its names are not to be ours."""
        content = CheckpointLoader.load_checkpoint(checkpoint, map_location='cpu')
        return content.get('state_dict', content)

    def convert(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Rename the keys of a file that this network can be loaded from. Override where there are such files."""
        return state

    def train(self, mode: bool = True) -> 'TargetGenerator':
        """Stay in eval mode."""
        return super().train(False)

    def _apply(self, fn: Callable[[Tensor], Tensor], *args, **kwargs) -> 'TargetGenerator':
        """Follow the model to another device, and stay in float32."""

        def keep_dtype(tensor: Tensor) -> Tensor:
            moved = fn(tensor)
            return moved if moved.dtype == tensor.dtype else tensor.to(moved.device)

        return super()._apply(keep_dtype, *args, **kwargs)

    def __deepcopy__(self, memo: dict) -> 'TargetGenerator':
        return self  # nothing ever changes it, so that a model and its average share one
