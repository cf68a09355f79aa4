"""Masked image modeling on visual tokens."""

import torch
from torch import Tensor, nn

from mmbeit.layers.masked import MaskedPlaces, find_masked, stack_masks
from mmbeit.models.algorithms.tool import ModelWithTool
from mmbeit.models.target_generators.base import TargetGenerator
from mmbeit.registry import MODELS


@MODELS.register_module()
class MaskedImageModeling(ModelWithTool):
    """BEiT pretraining: predict the visual tokens of the patches that the backbone does not see.

    Without a neck this is BEiT v1. BEiT v2 has :class:`mmbeit.models.necks.patch_aggregation.PatchAggregationNeck`, and
    predicts the same tokens a second time, from what the neck makes of the patches of an early block.

    The target generator is a tool of this model, not a part of it: see :class:`ModelWithTool`.

    Args:
        backbone: Config of a :class:`mmbeit.models.backbones.beit.BEiT` with `mask_token=True`.
        head: Config of :class:`mmbeit.models.heads.mim.MIMHead`; `embed_dims` and `num_codes` are taken from the
            backbone and the target generator where they are not given.
        neck: Config of the neck of v2, or None. Where they are not given, size, layer scale, drop path rate and
            `with_cp` are the backbone's, which is then a `mmbeit.BEiT` with `rel_pos_bias='shared'` or None.
        target_generator: Config of a :class:`TargetGenerator` that gives ids, or None for a model that is not trained.
        data_preprocessor: Config of :class:`mmbeit.models.data_preprocessors.MIMDataPreprocessor`.
        init_cfg: mmengine's initialisation config.

    Raises:
        ValueError: There is a neck, and every block of the backbone has a position table of its own.
    """

    tool_name = 'target_generator'

    def __init__(
        self,
        backbone: dict,
        head: dict,
        neck: dict | None = None,
        target_generator: dict | None = None,
        data_preprocessor: dict | None = None,
        init_cfg: dict | list[dict] | None = None,
    ):
        super().__init__(target_generator, data_preprocessor, init_cfg)
        self.backbone = MODELS.build(backbone)
        self.neck = None if neck is None else self._build_neck(neck)
        defaults = {'embed_dims': self.backbone.embed_dims}
        if self.target_generator is not None:
            defaults['num_codes'] = self.target_generator.num_codes
        self.head = MODELS.build({**defaults, **head})

    target_generator: TargetGenerator | None

    def _build_neck(self, cfg: dict) -> nn.Module:
        backbone = self.backbone
        if len(backbone.rel_pos_bias) > 1:
            raise ValueError("rel_pos_bias 'per_block' leaves none for a neck: give the backbone 'shared' or None")
        like_backbone = {
            'arch': backbone.arch._asdict(),
            'layer_scale': backbone.layer_scale,
            'drop_path_rate': backbone.drop_path_rate,
            'with_cp': backbone.with_cp,
        }
        return MODELS.build({**like_backbone, **cfg})

    def forward(
        self, inputs: Tensor | tuple[Tensor, Tensor], data_samples: list | None = None, mode: str = 'tensor'
    ) -> dict[str, Tensor] | tuple[Tensor, ...]:
        """mmengine's entry point.

        Args:
            inputs: View (B, 3, height, width), normalised, and target view in [0, 1]; for `mode='tensor'` the view
                alone will do.
            data_samples: One per image, each with a `mask` (h, w) or (h*w), True or 1 = masked.
            mode: 'loss', or 'tensor' for the features of the unmasked view.

        Raises:
            ValueError: Another mode.
        """
        if mode == 'loss':
            return self.loss(inputs, data_samples)
        if mode == 'tensor':
            return self.extract_feat(inputs if isinstance(inputs, Tensor) else inputs[0])
        raise ValueError(f"mode {mode!r} is not one of ('loss', 'tensor')")

    def extract_feat(self, inputs: Tensor) -> tuple[Tensor, ...]:
        """Features of the backbone, nothing masked."""
        return self.backbone(inputs)

    def loss(self, inputs: tuple[Tensor, Tensor], data_samples: list) -> dict[str, Tensor]:
        """Loss of a batch: cross entropy at the masked patches, and their accuracy, from every stream of tokens.

        Raises:
            ValueError: There is no target generator, or its tokens do not match the patches; the message gives both
                numbers.
        """
        view, target_view = inputs
        mask = stack_masks(data_samples)
        masked = find_masked(mask, view.device)
        ids = self.targets(target_view, masked)
        return self.head.loss(self.streams(view, mask, masked), ids)

    def streams(self, inputs: Tensor, mask: Tensor, masked: MaskedPlaces | None = None) -> dict[str, Tensor]:
        """What visual tokens are predicted from. What the loss does not look at is not computed in the last block.

        Args:
            inputs: Normalised view (B, 3, height, width).
            mask: (B, N) bool, True = masked.
            masked: What :func:`find_masked` gives for it, of someone who has it.

        Returns:
            Un-normalised tokens of the M masked patches (M, D), image by image and row by row: 'mim', of the last
            block, and with a neck 'cls', of its last one.
        """
        masked = find_masked(mask, inputs.device) if masked is None else masked
        if self.neck is None:
            return {'mim': self._masked_tokens(inputs, mask, masked)}
        mask, biases = mask.to(inputs.device, non_blocking=True), self.backbone.attn_biases(inputs)
        blocks = self.neck.early_layers - 1, len(self.backbone.blocks) - 1
        with_cls_token = torch.cat([torch.zeros_like(masked.tokens[:, :1]), masked.tokens], dim=1)
        early, last = self.backbone.block_tokens(inputs, mask, blocks, biases, keep=with_cls_token)
        aggregated = self.neck(early, last[:, 0], biases[-1], masked.tokens)
        return {'mim': masked.of(last[:, 1:]), 'cls': masked.of(aggregated)}

    def _masked_tokens(self, inputs: Tensor, mask: Tensor, masked: MaskedPlaces) -> Tensor:
        """The stream 'mim' of :meth:`streams` alone."""
        mask = mask.to(inputs.device, non_blocking=True)
        last = len(self.backbone.blocks) - 1
        return masked.of(self.backbone.block_tokens(inputs, mask, [last], keep=masked.tokens)[0])

    def predict_streams(self, inputs: Tensor, mask: Tensor) -> dict[str, Tensor]:
        """Logits of the masked patches from every stream: as of :meth:`predict_tokens`, by the names of `streams`."""
        return self.head(self.streams(inputs, mask))

    def predict_tokens(self, inputs: Tensor, mask: Tensor) -> Tensor:
        """Logits of the masked patches, from the output of the last block. A neck is not run.

        Args:
            inputs: Normalised view (B, 3, height, width).
            mask: (B, N) bool, True = masked.

        Returns:
            (M, num_codes), image by image and row by row.
        """
        tokens = self._masked_tokens(inputs, mask, find_masked(mask, inputs.device))
        return self.head({'mim': tokens})['mim']
