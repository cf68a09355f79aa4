"""What the backbones of all versions have in common: blocks in a row, whose tokens are the features."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn

from mmbeit.archs import resolve_arch
from mmbeit.layers.embeddings import pad_to_patches, remove_padding
from mmbeit.layers.position import Grid

OUT_TYPES = ('raw', 'cls_token', 'featmap', 'avg_featmap')


class Backbone(BaseModule, ABC):
    """From images to the tokens after some blocks, in the form that OpenMMLab's heads expect.

    A subclass makes `patch_embed`, `blocks` and, for `out_type='avg_featmap'`, `fc_norm`.

    Args:
        arch, img_size, patch_size, drop_path_rate, out_indices, out_type, with_cp, init_cfg: See
            :class:`mmbeit.models.backbones.beit.BEiT`.

    Attributes:
        arch: The four numbers of the size.
        embed_dims: Width D of the tokens.
        grid: Patches per side of images of `img_size`.
        out_indices: Not negative.

    Raises:
        ValueError: An argument is not among the accepted values; the message names both.
    """

    blocks: nn.ModuleList
    fc_norm: nn.Module | None

    def __init__(
        self,
        arch: str | dict,
        img_size: int | Sequence[int],
        patch_size: int,
        drop_path_rate: float,
        out_indices: int | Sequence[int],
        out_type: str,
        with_cp: bool,
        init_cfg: dict | list[dict] | None,
    ):
        super().__init__(init_cfg)
        if out_type not in OUT_TYPES:
            raise ValueError(f'out_type {out_type!r} is not one of {OUT_TYPES}')
        height, width = (img_size, img_size) if isinstance(img_size, int) else img_size
        if height % patch_size or width % patch_size:
            raise ValueError(f'img_size {(height, width)} is not a whole number of patches of {patch_size}')
        self.arch = resolve_arch(arch)
        depth = self.arch.num_layers
        out_indices = [out_indices] if isinstance(out_indices, int) else list(out_indices)
        if not all(-depth <= i < depth for i in out_indices):
            raise ValueError(f'out_indices {out_indices} do not fit the {depth} blocks of arch {arch!r}')
        self.embed_dims = self.arch.embed_dims
        self.patch_size = patch_size
        self.grid: Grid = (height // patch_size, width // patch_size)
        self.drop_path_rate = drop_path_rate
        self.out_indices = tuple(i % depth for i in out_indices)
        self.out_type = out_type
        self.with_cp = with_cp

    def forward(self, x: Tensor, mask: Tensor | None = None) -> tuple[Tensor, ...]:
        """Features of a batch of images.

        Args:
            x: Normalised images (B, C, height, width).
            mask: (B, h*w) bool, True where a patch is replaced by the mask token; needs `mask_token=True`.

        Returns:
            One tensor for each of `out_indices`, in the order of the blocks, of the form that `out_type` says.
        """
        size = x.shape[-2:]
        if self.out_type == 'featmap':
            x = pad_to_patches(x, self.patch_size)
        grid = self.grid_of(x)
        only_cls = torch.zeros(len(x), 1, dtype=torch.long, device=x.device) if self.out_type == 'cls_token' else None
        outs = self.block_tokens(x, mask, self.out_indices, keep=only_cls)
        return tuple(self._format(tokens, grid, size) for tokens in outs)

    @abstractmethod
    def block_tokens(
        self, x: Tensor, mask: Tensor | None, indices: Sequence[int], *, keep: Tensor | None = None
    ) -> list[Tensor]:
        """All tokens of images after some blocks, whatever `out_indices` and `out_type` are.

        Args:
            x: As for :meth:`forward`.
            mask: As for :meth:`forward`.
            indices: Blocks, 0-based.
            keep: Which tokens of each image come out of the last block, (B, T) long in [0, 1 + h*w); None: all.

        Returns:
            (B, 1 + h*w, D) for each of them, in the order of the blocks; the last block's are normalised by
            `final_norm`, and (B, T, D) where `keep` is given.
        """

    def grid_of(self, images: Tensor) -> Grid:
        """Patches per side of images (..., height, width)."""
        return images.shape[-2] // self.patch_size, images.shape[-1] // self.patch_size

    def _format(self, x: Tensor, grid: Grid, size: Sequence[int]) -> Tensor:
        match self.out_type:
            case 'raw':
                return x
            case 'cls_token':
                return x[:, 0]
            case 'featmap':
                return remove_padding(x[:, 1:].transpose(1, 2).unflatten(2, grid), size, self.patch_size)
            case 'avg_featmap':
                return self.fc_norm(x[:, 1:].mean(dim=1))
