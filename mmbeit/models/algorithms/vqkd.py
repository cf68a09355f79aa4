"""Training of VQ-KD, the tokenizer of BEiT v2, on any images."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmbeit.archs import resolve_arch
from mmbeit.layers.init import init_transformer_
from mmbeit.layers.position import Grid
from mmbeit.layers.quantizer import perplexity
from mmbeit.models.algorithms.tool import ModelWithTool
from mmbeit.models.backbones.beit import BEiT
from mmbeit.models.target_generators.base import TargetGenerator
from mmbeit.models.target_generators.vqkd import VQKDEncoder
from mmbeit.registry import MODELS


@MODELS.register_module()
class VQKD(ModelWithTool):
    """Vector-quantized knowledge distillation (https://arxiv.org/abs/2208.06366, section 3.1).

    A decoder has to tell from the codes alone what a teacher sees in each patch. Reference:
    unilm:beit2/modeling_vqkd.py, with one departure: the teacher is given the images themselves, where officially they
    are recovered from what the encoder is given, which is right for one of its three ways of normalising only.

    The teacher is a tool of this model, not a part of it: see :class:`ModelWithTool`.

    Args:
        tokenizer: Arguments of :class:`mmbeit.models.target_generators.vqkd.VQKDEncoder`.
        num_decoder_layers: Depth of the decoder, which is as wide as the encoder.
        teacher: Config of a :class:`TargetGenerator` that gives features, or None for a model that is not trained.
        target_dims: Width of the teacher's features; taken from the teacher where it is not given.
        data_preprocessor: Config; its images have to arrive here in [0, 1].
        init_cfg: mmengine's initialisation config, applied after the official one.

    Raises:
        ValueError: There is neither a teacher nor `target_dims`, or they disagree.
    """

    tool_name = 'teacher'

    def __init__(
        self,
        tokenizer: dict,
        num_decoder_layers: int,
        teacher: dict | None = None,
        target_dims: int | None = None,
        data_preprocessor: dict | None = None,
        init_cfg: dict | list[dict] | None = None,
    ):
        super().__init__(teacher, data_preprocessor, init_cfg)
        widths = {width for width in (target_dims, getattr(self.teacher, 'embed_dims', None)) if width is not None}
        if len(widths) != 1:
            raise ValueError(
                f'target_dims ({target_dims}) is the width of the features of the teacher '
                f'({type(self.teacher).__name__}): expected one width, found {sorted(widths) or "none"}'
            )
        self.tokenizer = MODELS.build({'type': 'mmbeit.VQKDEncoder', **tokenizer})
        arch = resolve_arch(tokenizer.get('arch', 'base'))
        self.decoder = BEiT(
            arch._replace(num_layers=num_decoder_layers)._asdict(),
            img_size=self.tokenizer.encoder.grid,
            patch_size=1,
            in_channels=self.tokenizer.quantizer.code_dim,
            rel_pos_bias=None,
            abs_pos_embed=True,
            layer_scale=None,
            out_type='raw',
            final_norm=True,
        )
        dim = self.decoder.embed_dims
        self.decode_task_layer = nn.Sequential(nn.Linear(dim, dim), nn.Tanh(), nn.Linear(dim, widths.pop()))

    teacher: TargetGenerator | None
    tokenizer: VQKDEncoder

    def forward(self, inputs: Tensor, data_samples: list | None = None, mode: str = 'tensor') -> dict | list | Tensor:
        """mmengine's entry point.

        Args:
            inputs: Images (B, 3, height, width) in [0, 1].
            data_samples: Not used.
            mode: 'loss'; 'predict' for what :class:`mmbeit.evaluation.codebook.CodebookUsage` takes, a dict for each
                image; 'tensor' for what the decoder makes of the codes, (B, N, target_dims).

        Raises:
            ValueError: Another mode.
        """
        vectors, ids, commitment = self.tokenizer(inputs)
        grid = tuple(side // self.tokenizer.encoder.patch_size for side in inputs.shape[-2:])
        features = self.decode(vectors, grid)
        if mode == 'tensor':
            return features
        if mode == 'loss':
            counts = torch.bincount(ids.flatten(), minlength=self.tokenizer.quantizer.num_codes)
            return {
                'loss_reconstruction': self.error(features, inputs).mean(),
                'loss_commitment': commitment,
                'perplexity': perplexity(counts),
            }
        if mode == 'predict':
            samples = [dict(ids=i.unflatten(0, grid), num_codes=self.tokenizer.quantizer.num_codes) for i in ids]
            if self.teacher is not None:
                for sample, error in zip(samples, self.error(features, inputs), strict=True):
                    sample['error'] = error.mean()
            return samples
        raise ValueError(f"mode {mode!r} is not one of ('loss', 'predict', 'tensor')")

    def decode(self, vectors: Tensor, grid: Grid) -> Tensor:
        """Features (B, N, target_dims) of codes (B, N, code_dim) on a grid."""
        tokens = self.decoder(vectors.transpose(1, 2).unflatten(2, grid))[-1]
        return self.decode_task_layer(tokens[:, 1:])

    def error(self, features: Tensor, images: Tensor) -> Tensor:
        """How far features (B, N, target_dims) point away from those of the teacher: 1 - cosine, (B, N).

        Raises:
            ValueError: There is no teacher, or it has another number of patches; the message gives both.
        """
        targets = self.targets(images)
        if targets.shape != features.shape:
            raise ValueError(
                f'the teacher gives features {tuple(targets.shape)}, the decoder {tuple(features.shape)}: size over '
                'patch size have to be equal in both'
            )
        return 1 - F.cosine_similarity(features.float(), targets.float(), dim=-1)

    def init_weights(self) -> None:
        """Initialise as the official model."""
        if not self.is_init:
            init_transformer_(self.decode_task_layer, bound=2.0)
        super().init_weights()
