"""Masked data modeling: the pretraining of BEiT-3."""

from torch import Tensor

from mmbeit.layers.masked import find_masked, stack_masks
from mmbeit.models.algorithms.tool import ModelWithTool
from mmbeit.models.target_generators.base import TargetGenerator
from mmbeit.models.texts import masked_texts
from mmbeit.registry import MODELS

GROUPS = ('image', 'text', 'pair')


@MODELS.register_module()
class MaskedDataModeling(ModelWithTool):
    """Predict what is hidden of images, of texts, and of images with their texts (BEiT-3, section 2.2).

    The code was never released. As far as the paper says: 40 % of the patches are hidden block by block
    (:class:`mmbeit.datasets.transforms.mask.BlockwiseMask`), 15 % of the tokens of a text and 50 % of one with an image
    (:class:`mmbeit.datasets.transforms.text.MaskText`); patches are visual tokens of BEiT v2. The losses have equal
    weights here, which the paper leaves open, and there is one step of the optimizer for all of them.

    The target generator is a tool of this model, not a part of it: see :class:`ModelWithTool`.

    Args:
        backbone: Config of a :class:`mmbeit.models.backbones.beit3.BEiT3` with `mask_token=True`.
        mim_head: Config of a :class:`mmbeit.models.heads.captioning.MaskedTokenHead` for visual tokens; `embed_dims`
            and `num_tokens` are taken from the backbone and the target generator where they are not given.
        mlm_head: Likewise, for words.
        target_generator: Config of a :class:`TargetGenerator` that gives ids, or None for a model that is not trained.
        data_preprocessor: Config of :class:`mmbeit.models.data_preprocessors.MDMDataPreprocessor`.
        init_cfg: mmengine's initialisation config.
    """

    tool_name = 'target_generator'

    def __init__(
        self,
        backbone: dict,
        mim_head: dict,
        mlm_head: dict,
        target_generator: dict | None = None,
        data_preprocessor: dict | None = None,
        init_cfg: dict | list[dict] | None = None,
    ):
        super().__init__(target_generator, data_preprocessor, init_cfg)
        self.backbone = MODELS.build(backbone)
        sizes = {'embed_dims': self.backbone.embed_dims}
        codes = {} if self.target_generator is None else {'num_tokens': self.target_generator.num_codes}
        self.mim_head = MODELS.build({**sizes, **codes, **mim_head})
        self.mlm_head = MODELS.build({**sizes, 'num_tokens': self.backbone.text_embed.num_embeddings, **mlm_head})

    target_generator: TargetGenerator | None

    def forward(
        self, image: dict | None = None, text: dict | None = None, pair: dict | None = None, mode: str = 'loss'
    ) -> dict[str, Tensor]:
        """mmengine's entry point. Each of the three is a batch of its own; what is not there is not run.

        Args:
            image: `inputs`: view (B, 3, height, width), normalised, and target view in [0, 1]; `data_samples`: one per
                image, each with a `mask` (h, w) or (h*w), True or 1 = hidden.
            text: `data_samples`: one per text, each with `text_ids`, `masked_text_ids` and `text_mask`.
            pair: `inputs` as of `image`; `data_samples` with the fields of both.
            mode: 'loss'.

        Returns:
            `image_loss`, `text_loss`, `pair_image_loss` and `pair_text_loss`, as far as there are batches, and
            accuracies in percent under such names.

        Raises:
            ValueError: Another mode, nothing to model, no target generator, or visual tokens that do not match the
                patches.
        """
        if mode != 'loss':
            raise ValueError(f"mode {mode!r} is not 'loss': for features take the backbone")
        groups = {name: group for name, group in zip(GROUPS, (image, text, pair), strict=True) if group is not None}
        if not groups:
            raise ValueError(f'there is nothing to model: expected a batch of one of {GROUPS}')
        return {name: value for group, batch in groups.items() for name, value in self.group_loss(group, batch).items()}

    def extract_feat(self, inputs: Tensor) -> tuple[Tensor, ...]:
        """Features of images (B, 3, height, width) as the backbone gives them, nothing hidden."""
        return self.backbone(inputs)

    def group_loss(self, group: str, batch: dict) -> dict[str, Tensor]:
        """Losses of one of the batches that :meth:`forward` takes."""
        samples, losses = batch['data_samples'], {}
        view = mask = texts = ids = padding_mask = None
        keep = {}
        if group != 'text':
            view, target_view = batch['inputs']
            mask = stack_masks(samples)
            masked = find_masked(mask, view.device)
            mask, keep['vision'] = mask.to(view.device, non_blocking=True), masked.tokens
            codes = self.targets(target_view, masked)
        if group != 'image':
            texts = masked_texts(samples, self.backbone.text_embed.weight.device)
            ids, padding_mask = texts.shown
            keep['text'] = texts.masked.tokens
        out = self.backbone.encode(view, ids, padding_mask=padding_mask, mask=mask, keep=keep)
        if view is not None:
            losses['image'] = self.mim_head.loss(masked.of(out.vision), codes)
        if texts is not None:
            losses['text'] = self.mlm_head.loss(texts.masked.of(out.text), texts.ids)
        prefix = 'pair_' if group == 'pair' else ''
        return {f'{prefix}{part}_{name}': value for part, found in losses.items() for name, value in found.items()}
