"""The BEiT backbone."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mmbeit.checkpoint.backbone import check_backbone, rename_backbone
from mmbeit.checkpoint.load import CheckpointError
from mmbeit.layers.block import Block
from mmbeit.layers.embeddings import PatchEmbed, substitute_masked
from mmbeit.layers.init import init_transformer_, rescale_depth_, trunc_normal_
from mmbeit.layers.position import Bias, RelativePositionBias, resize_abs_pos_embed, square_grid
from mmbeit.models.backbones.base import Backbone
from mmbeit.registry import MODELS

REL_POS_BIAS = ('shared', 'per_block', None)


def compute_dtype(x: Tensor) -> torch.dtype:
    """The dtype that matrix products of `x` run in, under autocast or not."""
    device = x.device.type
    if torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):  # there is none on 'meta'
        return torch.get_autocast_dtype(device)
    return x.dtype


@MODELS.register_module()
class BEiT(Backbone):
    """Backbone of BEiT v1 and v2, for pretraining, classification, dense prediction and tokenizers.

    Paper: https://arxiv.org/abs/2106.08254; reference: unilm:beit/modeling_{pretrain,finetune}.py, beit2/ likewise.

    Images of any size that is a whole number of patches are accepted, without reloading: relative position tables are
    resized by the official geometric scheme, absolute embeddings bicubically. For maps ('featmap') any size will do.

    Args:
        arch: Name of a size ('tiny', 'small', 'base', '24x544', 'large', 'huge', 'giant'), or a dict of
            `embed_dims`, `num_layers`, `num_heads`, `feedforward_channels`.
        img_size: Size in pixels, one number or (height, width), that the position tables are stored for.
        patch_size: Side of a patch in pixels.
        in_channels: Channels of the image.
        rel_pos_bias: 'shared' (one table, as in pretraining), 'per_block' (as in fine-tuning), or None.
        abs_pos_embed: Whether to add a learned absolute embedding.
        layer_scale: Initial value of the layer scale (0.1 for base, 1e-5 for large), or None for none.
        drop_path_rate: Drop path rate of the last block; it grows linearly from 0.
        mask_token: Whether there is a mask token, that is, whether `forward` takes a mask. It also selects the
            official initialisation of the pretraining model in place of that of the fine-tuning model.
        out_indices: Blocks whose outputs are returned, 0-based, negative from the end. Blocks after the last one of
            them are not run.
        out_type: 'raw': all tokens, (B, 1 + h*w, D). 'cls_token': (B, D). 'featmap': patches as a map, (B, D, h, w);
            images are padded to whole patches, and the maps cover the image without the padding
            (:func:`mmbeit.layers.embeddings.remove_padding`). 'avg_featmap': mean of the patches after which a
            LayerNorm follows (`fc_norm`), (B, D).
        final_norm: Whether to normalise the last block's tokens.
        frozen_stages: Nothing is frozen by -1, embeddings by 0, and the first n blocks, too, by n.
        with_cp: Whether to recompute activations in the backward pass, to save memory.
        init_cfg: mmengine's initialisation config, applied after the official one.

    Raises:
        ValueError: An argument is not among the accepted values; the message names both.
    """

    def __init__(
        self,
        arch: str | dict = 'base',
        *,
        img_size: int | Sequence[int] = 224,
        patch_size: int = 16,
        in_channels: int = 3,
        rel_pos_bias: str | None = 'per_block',
        abs_pos_embed: bool = False,
        layer_scale: float | None = 0.1,
        drop_path_rate: float = 0.0,
        mask_token: bool = False,
        out_indices: int | Sequence[int] = -1,
        out_type: str = 'avg_featmap',
        final_norm: bool = False,
        frozen_stages: int = -1,
        with_cp: bool = False,
        init_cfg: dict | list[dict] | None = None,
    ):
        super().__init__(arch, img_size, patch_size, drop_path_rate, out_indices, out_type, with_cp, init_cfg)
        if rel_pos_bias not in REL_POS_BIAS:
            raise ValueError(f'rel_pos_bias {rel_pos_bias!r} is not one of {REL_POS_BIAS}')
        dim, depth, num_heads, hidden_dim = self.arch
        if not -1 <= frozen_stages <= depth:
            raise ValueError(f'frozen_stages {frozen_stages} is not between -1 and the {depth} blocks of arch {arch!r}')
        self.layer_scale = layer_scale
        self.frozen_stages = frozen_stages

        self.patch_embed = PatchEmbed(in_channels, dim, patch_size)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.mask_token = nn.Parameter(torch.zeros(1, 1, dim)) if mask_token else None
        num_patches = self.grid[0] * self.grid[1]
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + num_patches, dim)) if abs_pos_embed else None
        num_tables = {'shared': 1, 'per_block': depth, None: 0}[rel_pos_bias]
        self.rel_pos_bias = nn.ModuleList(RelativePositionBias(self.grid, num_heads) for _ in range(num_tables))
        rates = np.linspace(0, drop_path_rate, depth)
        self.blocks = nn.ModuleList(Block(dim, num_heads, hidden_dim, layer_scale, rate) for rate in rates)
        self.norm = nn.LayerNorm(dim, eps=1e-6) if final_norm else nn.Identity()
        self.fc_norm = nn.LayerNorm(dim, eps=1e-6) if out_type == 'avg_featmap' else None
        self._freeze()

    def block_tokens(
        self,
        x: Tensor,
        mask: Tensor | None,
        indices: Sequence[int],
        biases: Sequence[Bias | None] | None = None,
        *,
        keep: Tensor | None = None,
    ) -> list[Tensor]:
        """As of :class:`Backbone`; `biases`: what :meth:`attn_biases` gives for `x`, of someone who needs it again."""
        images, x = x, self.patch_embed(x)  # (B, N, D)
        if mask is not None:
            if self.mask_token is None:
                raise ValueError('this backbone was built without a mask token: give it mask_token=True')
            x = substitute_masked(x, mask, self.mask_token)
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], dim=1)
        if self.pos_embed is not None:
            x = x + resize_abs_pos_embed(self.pos_embed, self.grid, self.grid_of(images))
        biases = self.attn_biases(images) if biases is None else biases
        outs = []
        for i in range(max(indices) + 1):
            block, is_last = self.blocks[i], i == len(self.blocks) - 1
            args = (x, biases[i], keep) if is_last and keep is not None else (x, biases[i])
            if self.with_cp and torch.is_grad_enabled():
                x = checkpoint(block, *args, use_reentrant=False)
            else:
                x = block(*args)
            if i in indices:
                outs.append(self.norm(x) if is_last else x)
        return outs

    def attn_biases(self, images: Tensor) -> list[Bias | None]:
        """What each block adds to its attention logits on images of that size: (H, 1 + h*w, 1 + h*w), or None."""
        biases = [bias(self.grid_of(images), compute_dtype(images)) for bias in self.rel_pos_bias]
        return biases if len(biases) == len(self.blocks) else (biases or [None]) * len(self.blocks)

    def init_weights(self) -> None:
        """Initialise as the official pretraining model where there is a mask token, else as the fine-tuning model."""
        if self.is_init:
            return
        bound = 0.02 if self.mask_token is not None else 2.0
        init_transformer_(self, bound)
        for token in (self.cls_token, self.mask_token, self.pos_embed):
            if token is not None:
                trunc_normal_(token, bound=bound)
        if self.mask_token is not None:  # fine-tuning keeps PyTorch's default for the convolution
            trunc_normal_(self.patch_embed.proj.weight, bound=bound)
            nn.init.zeros_(self.patch_embed.proj.bias)
        rescale_depth_(self.blocks)
        try:
            super().init_weights()
        except CheckpointError as error:  # which says nothing of where the weights were
            configs = [self.init_cfg] if isinstance(self.init_cfg, dict) else self.init_cfg
            names = ', '.join(cfg['checkpoint'] for cfg in configs if 'checkpoint' in cfg)
            raise error if names in str(error) else CheckpointError(f'{names}: {error}') from error

    def get_layer_depth(self, param_name: str, prefix: str = '') -> tuple[int, int]:
        """Depth of a parameter for layer-wise learning rate decay, and the number of depths.

        Embeddings and tokens are at 0, block i and its own position table at i + 1, and everything else, a shared
        table included, at the end (unilm:beit/optim_factory.py).
        """
        num_layers = len(self.blocks) + 2
        name = param_name.removeprefix(prefix) if param_name.startswith(prefix) else ''
        part, _, rest = name.partition('.')
        if part in ('cls_token', 'mask_token', 'pos_embed', 'patch_embed'):
            return 0, num_layers
        if part == 'blocks' or (part == 'rel_pos_bias' and len(self.rel_pos_bias) == len(self.blocks)):
            return int(rest.partition('.')[0]) + 1, num_layers
        return num_layers - 1, num_layers

    def train(self, mode: bool = True) -> 'BEiT':
        super().train(mode)
        self._freeze()
        return self

    def _freeze(self) -> None:
        if self.frozen_stages < 0:
            return
        for parameter in (self.cls_token, self.mask_token, self.pos_embed):
            if parameter is not None:
                parameter.requires_grad_(False)
        frozen = [self.patch_embed, *self.blocks[: self.frozen_stages]]
        frozen += self.rel_pos_bias[: self.frozen_stages]  # a shared table, too: the first block uses it already
        if self.frozen_stages == len(self.blocks):
            frozen.append(self.norm)
        for module in frozen:
            module.eval().requires_grad_(False)

    def _load_from_state_dict(self, state_dict, prefix, local_metadata, strict, missing_keys, *args) -> None:
        rename_backbone(state_dict, prefix)
        # Pretraining has one table for all blocks, fine-tuning starts one per block from it.
        name = prefix + 'rel_pos_bias.{}.{}'
        if name.format(0, 'table') in state_dict and name.format(1, 'table') not in state_dict:
            for i in range(1, len(self.rel_pos_bias)):
                for key in ('table', 'grid'):
                    if name.format(0, key) in state_dict:
                        state_dict[name.format(i, key)] = state_dict[name.format(0, key)]
        if self.pos_embed is not None and prefix + 'pos_embed' in state_dict:
            embed = state_dict[prefix + 'pos_embed']
            if embed.shape[1] != self.pos_embed.shape[1]:
                src = square_grid(embed.shape[1] - 1, f'{prefix}pos_embed')
                state_dict[prefix + 'pos_embed'] = resize_abs_pos_embed(embed, src, self.grid)
        check_backbone(state_dict, prefix, self.state_dict())
        super()._load_from_state_dict(state_dict, prefix, local_metadata, strict, missing_keys, *args)
