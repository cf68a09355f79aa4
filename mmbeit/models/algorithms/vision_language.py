"""The ways of running BEiT-3 on images and texts (BEiT-3, figure 3): one class each."""

from mmengine.model import BaseModel
from torch import Tensor

from mmbeit.registry import MODELS
from mmbeit.text_tokenizer import Texts, pad_texts


def batch_texts(data_samples: list, like: Tensor, field: str = 'text_ids') -> Texts:
    """The texts of some samples on the device of `like`, padded to the longest one.

    Raises:
        ValueError: A sample has none.
    """
    if not all(field in sample for sample in data_samples):
        raise ValueError(f'a sample has no {field}: is TokenizeText in the pipeline, and does PackInputs pass it on?')
    return pad_texts((sample.get(field) for sample in data_samples), like.device)


def with_preprocessor(data_preprocessor: dict | None) -> dict:
    """mmpretrain's data preprocessor for images with texts, where the config does not name another one."""
    return {'type': 'mmpretrain.MultiModalDataPreprocessor', **(data_preprocessor or {})}


@MODELS.register_module()
class FusionEncoder(BaseModel):
    """Images and a text, encoded together: VQA, NLVR2.

    Args:
        backbone: Config of a :class:`mmbeit.models.backbones.beit3.BEiT3`. What the head does not read of its last
            block is frozen, since it gets no gradient.
        head: Config of a head of :mod:`mmbeit.models.heads.fusion`; `embed_dims` is the backbone's where it is not
            given.
        neck: Config of a module between them, such as :class:`mmbeit.models.necks.pooler.Pooler`, or None. Likewise.
        data_preprocessor: Config of mmpretrain's `MultiModalDataPreprocessor`, or of another one with its output.
        init_cfg: mmengine's initialisation config.
    """

    def __init__(
        self,
        backbone: dict,
        head: dict,
        neck: dict | None = None,
        data_preprocessor: dict | None = None,
        init_cfg: dict | list[dict] | None = None,
    ):
        super().__init__(data_preprocessor=with_preprocessor(data_preprocessor), init_cfg=init_cfg)
        self.backbone = MODELS.build(backbone)
        sizes = {'embed_dims': self.backbone.embed_dims}
        self.neck = None if neck is None else MODELS.build({**sizes, **neck})
        self.head = MODELS.build({**sizes, **head})
        self.backbone.freeze_unread(self.head.keep)

    def forward(
        self, images: Tensor, data_samples: list | None = None, mode: str = 'tensor'
    ) -> dict[str, Tensor] | list | Tensor:
        """mmengine's entry point.

        Args:
            images: Normalised images (B, 3, height, width), or (B, I, 3, height, width) for I images of each sample.
            data_samples: One per sample, each with `text_ids`, and for `mode='loss'` what the head wants.
            mode: 'loss'; 'predict' for the samples with predictions; 'tensor' for logits.

        Raises:
            ValueError: Another mode, or a sample without a text.
        """
        if mode not in ('loss', 'predict', 'tensor'):
            raise ValueError(f"mode {mode!r} is not one of ('loss', 'predict', 'tensor')")
        feats = self.extract_feat(images, data_samples)
        match mode:
            case 'loss':
                return self.head.loss(feats, data_samples)
            case 'predict':
                return self.head.predict(feats, data_samples)
            case 'tensor':
                return self.head(feats)

    def extract_feat(self, images: Tensor, data_samples: list) -> Tensor:
        """Features (B, C): of each image the tokens that the head reads, one after the other."""
        ids, padding_mask = batch_texts(data_samples, images)
        if images.ndim == 5:
            num_images = images.shape[1]
            images = images.flatten(0, 1)
            ids, padding_mask = (x.repeat_interleave(num_images, dim=0) for x in (ids, padding_mask))
        out = self.backbone.encode(images, ids, padding_mask=padding_mask, keep=self.head.keep)
        feats = out.tokens.flatten(1).view(len(data_samples), -1)
        return feats if self.neck is None else self.neck(feats)
