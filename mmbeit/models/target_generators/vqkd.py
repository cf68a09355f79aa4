"""BEiT v2's visual tokens: the codes of VQ-KD."""

from mmengine.model import BaseModule
from torch import Tensor, nn

from mmbeit.checkpoint.formats import to_ours, unwrap, vqkd_encoder
from mmbeit.checkpoint.load import CheckpointError
from mmbeit.layers.autocast import no_autocast, tf32_products
from mmbeit.layers.init import init_transformer_
from mmbeit.layers.masked import MaskedPlaces
from mmbeit.layers.quantizer import NormEMAQuantizer, Quantized
from mmbeit.models.backbones.beit import BEiT
from mmbeit.models.target_generators.base import TargetGenerator
from mmbeit.registry import MODELS

PROCESS_TYPES = ('default', 'imagenet_norm', 'dall-e')


@MODELS.register_module()
class VQKDEncoder(BaseModule):
    """From images to codes, trainable: a transformer, two linear layers and a quantizer (BEiT v2, section 3.1).

    Reference: unilm:beit2/modeling_vqkd.py. Images of any size that is a whole number of patches are accepted, square
    or not. They are scaled whatever their values are; officially a batch whose maximum is above 1 is taken for one
    in [0, 255].

    Args:
        arch: Size of the transformer: see :class:`mmbeit.models.backbones.beit.BEiT`.
        img_size: Size in pixels, one number or (height, width), that the position embedding is stored for.
        patch_size: Side in pixels of what one code stands for.
        num_codes, code_dim, decay, commitment_weight, kmeans_init, revive_below: See
            :class:`mmbeit.layers.quantizer.NormEMAQuantizer`.
        process_type: How images in [0, 1] are normalised: 'default' to [-1, 1], 'imagenet_norm' by ImageNet's mean and
            standard deviation, 'dall-e' not at all.
        init_cfg: mmengine's initialisation config, applied after the official one.

    Raises:
        ValueError: An argument is not among the accepted values; the message names both.
    """

    def __init__(
        self,
        arch: str | dict = 'base',
        *,
        img_size: int | tuple[int, int] = 224,
        patch_size: int = 16,
        num_codes: int = 8192,
        code_dim: int = 32,
        decay: float = 0.99,
        commitment_weight: float = 1.0,
        kmeans_init: bool = True,
        revive_below: float = 0.0,
        process_type: str = 'default',
        init_cfg: dict | list[dict] | None = None,
    ):
        super().__init__(init_cfg)
        if process_type not in PROCESS_TYPES:
            raise ValueError(f'process_type {process_type!r} is not one of {PROCESS_TYPES}')
        self.process_type = process_type
        self.encoder = BEiT(
            arch,
            img_size=img_size,
            patch_size=patch_size,
            rel_pos_bias=None,
            abs_pos_embed=True,
            layer_scale=None,
            out_type='raw',
            final_norm=True,
        )
        dim = self.encoder.embed_dims
        self.encode_task_layer = nn.Sequential(nn.Linear(dim, dim), nn.Tanh(), nn.Linear(dim, code_dim))
        self.quantizer = NormEMAQuantizer(num_codes, code_dim, decay, commitment_weight, kmeans_init, revive_below)

    def forward(self, images: Tensor) -> Quantized:
        """Codes of images (B, 3, height, width) in [0, 1]; N patches, row by row."""
        return self.quantize(self.encode(images))

    def encode(self, images: Tensor) -> Tensor:
        """The transformer's tokens (B, N, D) of the patches."""
        return self.encoder(self.normalize(images))[-1][:, 1:]

    def encode_masked(self, images: Tensor, masked: MaskedPlaces) -> Tensor:
        """Those (M, D) of masked patches, for which alone the last block asks and computes any further."""
        last = len(self.encoder.blocks) - 1
        return masked.of(self.encoder.block_tokens(self.normalize(images), None, [last], keep=masked.tokens)[0])

    def quantize(self, tokens: Tensor) -> Quantized:
        """Codes of these tokens."""
        with no_autocast(tokens):
            return self.quantizer(self.encode_task_layer(tokens.float()))

    def normalize(self, images: Tensor) -> Tensor:
        """What the transformer expects, of images in [0, 1]."""
        match self.process_type:
            case 'default':
                return images * 255 / 127.5 - 1
            case 'imagenet_norm':
                mean, std = images.new_tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]]).view(2, 1, 3, 1, 1)
                return (images - mean) / std
            case 'dall-e':
                return images

    def init_weights(self) -> None:
        """Initialise as the official model."""
        if self.is_init:
            return
        init_transformer_(self.encode_task_layer, bound=2.0)
        super().init_weights()


@MODELS.register_module()
class VQKDTokenizer(TargetGenerator):
    """Visual tokens of a trained VQ-KD, frozen. One token stands for `stride` x `stride` pixels.

    `init_cfg` reads the official tokenizers, those of mmpretrain, and checkpoints of
    :class:`mmbeit.models.algorithms.vqkd.VQKD`. The defaults are the sizes of the official ones.

    Args:
        arch, img_size, patch_size, num_codes, code_dim, process_type: See :class:`VQKDEncoder`.
        init_cfg: See :class:`TargetGenerator`.
    """

    def __init__(
        self,
        arch: str | dict = 'base',
        *,
        img_size: int | tuple[int, int] = 224,
        patch_size: int = 16,
        num_codes: int = 8192,
        code_dim: int = 32,
        process_type: str = 'default',
        init_cfg: dict | list[dict] | None = None,
    ):
        super().__init__(init_cfg)
        self.num_codes = num_codes
        self.stride = patch_size
        self.network = VQKDEncoder(
            arch,
            img_size=img_size,
            patch_size=patch_size,
            num_codes=num_codes,
            code_dim=code_dim,
            kmeans_init=False,
            process_type=process_type,
        )
        self.requires_grad_(False).eval()

    def targets(self, images: Tensor) -> Tensor:
        """Ids (B, N), row by row, of images (B, 3, height, width) in [0, 1].

        On GPUs the transformer multiplies in TF32, as convolutions there do by PyTorch's default. Fewer than one id in
        a thousand changes by that in a trained tokenizer (docs/performance.md); `NVIDIA_TF32_OVERRIDE=0` in the
        environment forbids it.
        """
        with tf32_products(images):
            tokens = self.network.encode(images)
        return self.network.quantize(tokens).ids

    def masked_targets(self, images: Tensor, masked: MaskedPlaces) -> Tensor:
        """Those (M,) of masked patches."""
        with tf32_products(images):
            tokens = self.network.encode_masked(images, masked)
        return self.network.quantize(tokens[None]).ids[0]

    def convert(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Accept the layouts of the official project, of mmpretrain and of ours, with or without a decoder.

        Raises:
            CheckpointError: The file is of another kind of model, or its codebook was never trained.
        """
        state, found = to_ours(unwrap(state))
        if not found.kind.startswith('vqkd'):
            raise CheckpointError(f'expected the weights of VQ-KD, but they are of a {found.table}')
        state = vqkd_encoder(state) if found.kind == 'vqkd' else state
        if not state['quantizer.initted']:
            raise CheckpointError('the codebook of these weights was never started: they were saved before training')
        return {f'network.{key}': value for key, value in state.items()}
