"""The BEiT-3 encoder."""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mmbeit.checkpoint.backbone import BEIT3, TEXT_STEM, check_backbone, naming_files, rename_backbone
from mmbeit.layers.attn_bias import padding_bias
from mmbeit.layers.embeddings import PatchEmbed, substitute_masked
from mmbeit.layers.init import init_subln_, init_transformer_, trunc_normal_
from mmbeit.layers.multiway import EPS, MODALITIES, Keep, KeyValue, Multiway, MultiwayBlock, Streams
from mmbeit.layers.position import resize_abs_pos_embed, square_grid
from mmbeit.models.backbones.base import Backbone
from mmbeit.registry import MODELS

INITS = ('official', 'subln')
NUM_UNUSED = 2  # first rows of both position tables, as in fairseq; token j of its modality uses row j + 2

# Names of what belongs to one modality.
PARTS = {
    'vision': re.compile(r'cls_token|mask_token|pos_embed|pos_grid|patch_embed\..+|.+\.vision\..+'),
    'text': re.compile(r'text_embed\..+|text_pos_embed|.+\.text\..+'),
}

Cache = Sequence[KeyValue]  # one of each block


class EncoderOutput(NamedTuple):
    """What :meth:`BEiT3.encode` gives.

    Attributes:
        vision: Class token and patches (B, 1 + h*w, D); None without an image, or where `keep` leaves nothing of it.
        text: Tokens of the text (B, T, D), likewise.
        cache: What further tokens need to know of these, if asked for.
    """

    vision: Tensor | None
    text: Tensor | None
    cache: list[KeyValue] | None

    @property
    def tokens(self) -> Tensor:
        """Of both, those of the image first: (B, L, D)."""
        return torch.cat([x for x in (self.vision, self.text) if x is not None], dim=1)


@MODELS.register_module()
class BEiT3(Backbone):
    """Encoder of images, of texts, and of both together.

    Paper: https://arxiv.org/abs/2208.10442; reference: unilm:beit3/modeling_utils.py, torchscale:model/BEiT3.py. As in
    the released models, and other than in the paper, the modalities share no weights.

    For its vision alone it is a backbone like any other: `forward` takes images and gives features. `encode` takes
    images, texts, or both. Images of any size that is a whole number of patches are accepted, without reloading: the
    table of their positions is resized bicubically. For `out_type='featmap'` any size is.

    Args:
        arch: Name of a size ('base' and 'large' as released, 'giant' as in the paper, which has patches of 14, and
            others), or a dict of `embed_dims`, `num_layers`, `num_heads`, `feedforward_channels`.
        modalities: ('vision', 'text'), or one of them. What belongs to the other is then not built, and left out of
            what is loaded: official files are always full.
        img_size: Size in pixels, one number or (height, width), that the table of positions is stored for.
        patch_size: Side of a patch in pixels.
        in_channels: Channels of the image.
        vocab_size: Rows of the text embedding. The official text tokenizer has 64002 ids, the official table 8 rows
            more.
        num_text_positions: Rows of the table of text positions; the longest text has two tokens less.
        final_norm: Whether to normalise the last block's tokens. The official models do so, but for classification and
            VQA.
        mask_token: Whether there is a mask token for images, that is, whether `forward` and `encode` take a mask.
        drop_path_rate: Drop path rate of the last block; it grows linearly from 0.
        out_indices: Blocks whose outputs `forward` returns, 0-based, negative from the end. Blocks after the last one
            of them are not run.
        out_type: Of `forward`: 'raw': all tokens, (B, 1 + h*w, D). 'cls_token': (B, D). 'featmap': patches as a map,
            (B, D, h, w). 'avg_featmap': mean of the patches after which a LayerNorm follows (`fc_norm`), (B, D).
        with_cp: Whether to recompute activations in the backward pass, to save memory.
        init: How weights are drawn. 'official': as for fine-tuning (unilm:beit3/modeling_utils.py). 'subln': with
            the gains that sub-LN is made for, to pretrain from scratch
            (:func:`mmbeit.layers.init.init_subln_`).
        init_cfg: mmengine's initialisation config, applied after that.

    Raises:
        ValueError: An argument is not among the accepted values; the message names both.
    """

    def __init__(
        self,
        arch: str | dict = 'base',
        *,
        modalities: Sequence[str] = MODALITIES,
        img_size: int | Sequence[int] = 224,
        patch_size: int = 16,
        in_channels: int = 3,
        vocab_size: int = 64010,
        num_text_positions: int = 1024,
        final_norm: bool = True,
        mask_token: bool = False,
        drop_path_rate: float = 0.0,
        out_indices: int | Sequence[int] = -1,
        out_type: str = 'raw',
        with_cp: bool = False,
        init: str = 'official',
        init_cfg: dict | list[dict] | None = None,
    ):
        super().__init__(arch, img_size, patch_size, drop_path_rate, out_indices, out_type, with_cp, init_cfg)
        modalities = tuple(name for name in MODALITIES if name in _checked_modalities(modalities))
        if init not in INITS:
            raise ValueError(f'init {init!r} is not one of {INITS}')
        self.modalities = modalities
        self.init = init
        dim, depth, num_heads, hidden_dim = self.arch

        if 'vision' in modalities:
            self.patch_embed = PatchEmbed(in_channels, dim, patch_size)
            self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
            self.pos_embed = nn.Parameter(torch.zeros(NUM_UNUSED + 1 + self.grid[0] * self.grid[1], dim))
            self.register_buffer('pos_grid', torch.tensor(self.grid))
        self.mask_token = nn.Parameter(torch.zeros(1, 1, dim)) if mask_token and 'vision' in modalities else None
        if 'text' in modalities:
            self.text_embed = nn.Embedding(vocab_size, dim)
            self.text_pos_embed = nn.Parameter(torch.zeros(num_text_positions, dim))
        rates = np.linspace(0, drop_path_rate, depth)
        self.blocks = nn.ModuleList(MultiwayBlock(dim, num_heads, hidden_dim, modalities, rate) for rate in rates)
        self.norm = Multiway(lambda: nn.LayerNorm(dim, eps=EPS), modalities) if final_norm else nn.Identity()
        self.fc_norm = nn.LayerNorm(dim, eps=EPS) if out_type == 'avg_featmap' else None

    def block_tokens(
        self, x: Tensor, mask: Tensor | None, indices: Sequence[int], *, keep: Tensor | None = None
    ) -> list[Tensor]:
        streams: Streams = {'vision': self.embed_images(x, mask)}
        outs = []
        for i in range(max(indices) + 1):
            is_last = i == len(self.blocks) - 1
            chosen = {'vision': keep} if is_last and keep is not None else None
            streams, _ = self._run(self.blocks[i], streams, None, None, chosen)
            if i in indices:
                outs.append((self.norm(streams) if is_last else streams)['vision'])
        return outs

    def encode(
        self,
        images: Tensor | None = None,
        text_ids: Tensor | None = None,
        *,
        padding_mask: Tensor | None = None,
        mask: Tensor | None = None,
        attn_bias: Tensor | None = None,
        text_positions: Tensor | None = None,
        cache: Cache | None = None,
        keep: Keep | None = None,
    ) -> EncoderOutput:
        """Encode images, texts, or pairs of both.

        Args:
            images: Normalised images (B, C, height, width).
            text_ids: Ids of the text tokenizer (B, T) long; the first one is that of `<s>`.
            padding_mask: (B, T) bool, True = padding, which nobody attends to.
            mask: (B, h*w) bool, True where a patch is replaced by the mask token; needs `mask_token=True`.
            attn_bias: Added to the logits of attention, next to what padding adds: (B or 1, H or 1, queries, keys), of
                tokens in the order: those of `cache`, image, text.
            text_positions: (T,) or (B, T) long, where in the text a token is; by default 0, 1, ...
            cache: Of an earlier call, of whose tokens these are a continuation, for attention from these to those;
                `()` to begin one. None: the output has none.
            keep: Which tokens of 'vision' and 'text' come out of the last block, all where one is not named: how many
                of the first ones, or which of each sample, (B, T) long. What is not needed is not computed: of an image
                of 900 patches of which the class token alone is read, that is most of the last block.

        Raises:
            ValueError: There is nothing to encode, or it does not fit this encoder; the message says what.
        """
        streams: Streams = {}
        if images is not None:
            streams['vision'] = self.embed_images(images, mask)
        if text_ids is not None:
            streams['text'] = self.embed_text(text_ids, padding_mask, text_positions)
        if not streams:
            raise ValueError('there is nothing to encode: expected images, text_ids, or both')
        if len({len(x) for x in streams.values()}) > 1:
            raise ValueError(f'{len(images)} images for {len(text_ids)} texts')
        if cache is not None and self.training and self.drop_path_rate:
            raise ValueError('a cache in training would lack the samples that drop path drops: call eval() first')
        if padding_mask is not None:
            num_past = cache[0].key.shape[2] if cache else 0
            x = next(iter(streams.values()))
            padding = padding_bias(padding_mask, num_past + sum(x.shape[1] for x in streams.values()), x.dtype)
            attn_bias = padding if attn_bias is None else padding + attn_bias
        presents = []
        for i, block in enumerate(self.blocks):
            past, chosen = cache[i] if cache else None, None
            if keep and i == len(self.blocks) - 1:
                chosen, attn_bias = keep, _rows_of(attn_bias, streams, keep)
            streams, present = self._run(block, streams, attn_bias, past, chosen)
            if cache is not None:
                presents.append(present)
        streams = self.norm(streams)
        return EncoderOutput(streams.get('vision'), streams.get('text'), None if cache is None else presents)

    @property
    def max_text_length(self) -> int:
        """Most tokens of a text."""
        return len(self.text_pos_embed) - NUM_UNUSED

    def num_vision_tokens(self, images: Tensor) -> int:
        """Class token and patches of images (..., height, width)."""
        return 1 + math.prod(self.grid_of(images))

    def embed_images(self, images: Tensor, mask: Tensor | None = None) -> Tensor:
        """Tokens (B, 1 + h*w, D) before the first block; arguments as for :meth:`encode`."""
        self._check_modality('vision')
        x = self.patch_embed(images)  # (B, N, D)
        if mask is not None:
            if self.mask_token is None:
                raise ValueError('this encoder was built without a mask token: give it mask_token=True')
            x = substitute_masked(x, mask, self.mask_token)
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], dim=1)
        return x + resize_abs_pos_embed(self.pos_embed[None, NUM_UNUSED:], self.grid, self.grid_of(images))

    def embed_text(self, ids: Tensor, padding_mask: Tensor | None = None, positions: Tensor | None = None) -> Tensor:
        """Tokens (B, T, D) before the first block; arguments as for :meth:`encode`."""
        self._check_modality('text')
        if positions is None:
            if ids.shape[1] > self.max_text_length:
                raise ValueError(f'a text of {ids.shape[1]} tokens, there are positions for {self.max_text_length}')
            positions = self.text_pos_embed[NUM_UNUSED : NUM_UNUSED + ids.shape[1]]
        else:
            positions = self.text_pos_embed[NUM_UNUSED + positions]
        x = self.text_embed(ids) + positions
        return x if padding_mask is None else x.masked_fill(padding_mask[..., None], 0)

    def freeze_unread(self, keep: Mapping[str, int]) -> None:
        """Freeze what gets no gradient where :meth:`encode` is always asked for these tokens only.

        DDP would wait for it, unless it looked for unused parameters in every step.
        """
        block = self.blocks[-1]
        parts = [block.attn.q, block.attn.norm, block.attn.proj, block.norm2, block.mlp, self.norm]
        for name in self.modalities:
            if keep.get(name) == 0:
                for part in parts:
                    if isinstance(part, Multiway):
                        part[name].requires_grad_(False)

    def get_layer_depth(self, param_name: str, prefix: str = '') -> tuple[int, int]:
        """Depth of a parameter for layer-wise learning rate decay, and the number of depths.

        Embeddings, tokens and positions of both modalities are at 0, block i at i + 1, and everything else at the end
        (unilm:beit3/optim_factory.py).
        """
        num_layers = len(self.blocks) + 2
        name = param_name.removeprefix(prefix) if param_name.startswith(prefix) else ''
        part, _, rest = name.partition('.')
        if part in ('cls_token', 'mask_token', 'pos_embed', 'patch_embed', 'text_embed', 'text_pos_embed'):
            return 0, num_layers
        if part == 'blocks':
            return int(rest.partition('.')[0]) + 1, num_layers
        return num_layers - 1, num_layers

    def init_weights(self) -> None:
        """Initialise as `init` says."""
        if self.is_init:
            return
        if self.init == 'official':
            init_transformer_(self, bound=0.02)
        else:
            init_subln_(self.blocks)
            for name in ('cls_token', 'mask_token'):
                if (token := getattr(self, name, None)) is not None:
                    trunc_normal_(token)
        # As torchscale has it. Small positions are found out late: which of three digits a question is about, after
        # thousands of steps in place of hundreds.
        for name in ('pos_embed', 'text_pos_embed'):
            if hasattr(self, name):
                nn.init.normal_(getattr(self, name))
        if 'text' in self.modalities:
            nn.init.normal_(self.text_embed.weight, std=self.embed_dims**-0.5)
        with naming_files(self.init_cfg):
            super().init_weights()

    def _run(self, block: MultiwayBlock, *args) -> tuple[Streams, KeyValue]:
        if self.with_cp and torch.is_grad_enabled():
            return checkpoint(block, *args, use_reentrant=False)
        return block(*args)

    def _check_modality(self, name: str) -> None:
        if name not in self.modalities:
            raise ValueError(f'this encoder was built for modalities {self.modalities}, without {name!r}')

    def _load_from_state_dict(self, state_dict, prefix, local_metadata, strict, missing_keys, *args) -> None:
        naming = BEIT3 if 'vision' in self.modalities else BEIT3._replace(stem=TEXT_STEM)
        rename_backbone(state_dict, prefix, naming)
        absent = [PARTS[name] for name in MODALITIES if name not in self.modalities]
        for key in [key for key in state_dict if key.startswith(prefix)]:
            if any(part.fullmatch(key.removeprefix(prefix)) for part in absent):
                del state_dict[key]
        name = prefix + 'pos_embed'
        if 'vision' in self.modalities:
            if name in state_dict:
                state_dict[name] = self._resized(state_dict[name], state_dict.get(prefix + 'pos_grid'))
            state_dict[prefix + 'pos_grid'] = torch.tensor(self.grid)
        check_backbone(state_dict, prefix, self.state_dict(), naming)
        super()._load_from_state_dict(state_dict, prefix, local_metadata, strict, missing_keys, *args)

    def _resized(self, table: Tensor, grid: Tensor | None) -> Tensor:
        """A table of another grid for the own one. Its first three rows, two that nobody reads and one, stay."""
        rows = NUM_UNUSED + 1
        src = square_grid(len(table) - rows, 'pos_embed') if grid is None else tuple(grid.tolist())
        if src == self.grid:
            return table
        patches = resize_abs_pos_embed(table[None, NUM_UNUSED:], src, self.grid)
        return torch.cat([table[:NUM_UNUSED], patches[0]])


def _rows_of(attn_bias: Tensor | None, streams: Streams, keep: Keep) -> Tensor | None:
    """The rows (queries) of an attention bias that are of the tokens to keep."""
    if attn_bias is None or attn_bias.shape[-2] == 1:
        return attn_bias
    if any(isinstance(chosen, Tensor) for chosen in keep.values()):  # then samples have rows of their own
        attn_bias = attn_bias.expand(len(next(iter(streams.values()))), -1, -1, -1)
    rows, start = [], 0
    for name, x in streams.items():
        length = x.shape[1]
        part, chosen = attn_bias[..., start : start + length, :], keep.get(name, length)
        picked = isinstance(chosen, Tensor)
        rows.append(part.take_along_dim(chosen[:, None, :, None], dim=2) if picked else part[..., :chosen, :])
        start += length
    return torch.cat(rows, dim=-2)


def _checked_modalities(names: Iterable[str]) -> tuple[str, ...]:
    names = (names,) if isinstance(names, str) else tuple(names)
    if not names or not set(names) <= set(MODALITIES):
        raise ValueError(f'modalities {names} are not among {MODALITIES}')
    return names
