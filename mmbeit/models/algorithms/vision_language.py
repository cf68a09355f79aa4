"""The ways of running BEiT-3 on images and texts (BEiT-3, figure 3): one class each."""

import torch
from mmengine.dist import get_world_size
from mmengine.model import BaseModel
from torch import Tensor

from mmbeit.layers.attn_bias import caption_bias
from mmbeit.layers.beam_search import Hypothesis, beam_search
from mmbeit.layers.multiway import Streams
from mmbeit.models.decoding import TEXT_ONLY, BeamDecoder
from mmbeit.models.matching import Pool, best_matches, pool, split_texts, texts_of
from mmbeit.models.texts import batch_texts, masked_texts
from mmbeit.registry import MODELS
from mmbeit.text_tokenizer import EOS, Texts, TextTokenizer, pad_texts


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
        ids, padding_mask = batch_texts(data_samples, images.device)
        if images.ndim == 5:
            num_images = images.shape[1]
            images = images.flatten(0, 1)
            ids, padding_mask = (x.repeat_interleave(num_images, dim=0) for x in (ids, padding_mask))
        out = self.backbone.encode(images, ids, padding_mask=padding_mask, keep=self.head.keep)
        feats = out.tokens.flatten(1).view(len(data_samples), -1)
        return feats if self.neck is None else self.neck(feats)


@MODELS.register_module()
class DualEncoder(BaseModel):
    """Images and texts, encoded by themselves and compared: retrieval, and the contrastive tuning before (ITC).

    Works with mmpretrain's `RetrievalValLoop` and its inferencers, and gives the same scores in any number of processes
    and with any sampler.

    Args:
        backbone: Config of a :class:`mmbeit.models.backbones.beit3.BEiT3`.
        head: Config of :class:`mmbeit.models.heads.retrieval.ContrastiveHead`; `embed_dims` is the backbone's where
            it is not given.
        data_preprocessor: Config of mmpretrain's `MultiModalDataPreprocessor`, or of another one with its output.
        init_cfg: mmengine's initialisation config.
    """

    def __init__(
        self,
        backbone: dict,
        head: dict,
        data_preprocessor: dict | None = None,
        init_cfg: dict | list[dict] | None = None,
    ):
        super().__init__(data_preprocessor=with_preprocessor(data_preprocessor), init_cfg=init_cfg)
        self.backbone = MODELS.build(backbone)
        self.head = MODELS.build({'embed_dims': self.backbone.embed_dims, **head})

    def forward(
        self, images: Tensor | None = None, data_samples: list | None = None, mode: str = 'tensor'
    ) -> dict[str, Tensor] | tuple[list, ...]:
        """mmengine's entry point.

        Args:
            images: Normalised images (B, 3, height, width).
            data_samples: One per image, each with `text_ids`, one text or, but for 'loss', a list of them.
            mode: 'loss'; 'predict', see :meth:`predict`; 'tensor' for features, see :meth:`extract_feat`.

        Raises:
            ValueError: Another mode.
        """
        match mode:
            case 'loss':
                return self.loss(images, data_samples)
            case 'predict':
                return self.predict(images, data_samples)
            case 'tensor':
                return self.extract_feat(images, data_samples)
        raise ValueError(f"mode {mode!r} is not one of ('loss', 'predict', 'tensor')")

    def loss(self, images: Tensor, data_samples: list) -> dict[str, Tensor]:
        """Contrastive loss of pairs, see :meth:`mmbeit.models.heads.retrieval.ContrastiveHead.loss`."""
        texts = batch_texts(data_samples, images.device)
        return self.head.loss({**self._encode(images), **self._encode(None, texts)})

    def extract_feat(self, images: Tensor | None = None, data_samples: list | None = None) -> dict[str, Tensor]:
        """Features of length 1.

        Returns:
            `image_feat` (B, D) where there are images, and `text_feat` (number of texts, D) where there are texts, in
            the order of the samples.
        """
        feats = {}
        if images is not None:
            feats['image_feat'] = self.head(self._encode(images))['vision']
        ids = [text for sample in data_samples or [] if 'text_ids' in sample for text in texts_of(sample)]
        if ids:
            texts = pad_texts(ids, next(self.parameters()).device)
            feats['text_feat'] = self.head(self._encode(None, texts))['text']
        return feats

    def _encode(self, images: Tensor | None, texts: Texts | None = None) -> Streams:
        """The token that stands for the whole (B, D), of images or of texts."""
        ids, padding_mask = texts or (None, None)
        out = self.backbone.encode(images, ids, padding_mask=padding_mask, keep=self.head.keep)
        return {'vision': out.vision[:, 0]} if ids is None else {'text': out.text[:, 0]}

    def predict(
        self, images: Tensor, data_samples: list, cal_i2t: bool = True, cal_t2i: bool = True
    ) -> tuple[list, ...]:
        """Compare the images of a batch with its texts, see :meth:`predict_all`."""
        return self.predict_all(self.extract_feat(images, data_samples), data_samples, None, None, cal_i2t, cal_t2i)

    def predict_all(
        self,
        feats: dict[str, Tensor],
        data_samples: list | None,
        num_images: int | None = None,
        num_texts: int | None = None,
        cal_i2t: bool = True,
        cal_t2i: bool = True,
    ) -> tuple[list, ...]:
        """Compare images and texts with those of all processes.

        Args:
            feats: As of :meth:`extract_feat`, of the images and texts of this process.
            data_samples: Those that they are of. In several processes they say, by `image_id` and `gt_text_id`, which
                they are; what a sampler has handed to two processes is scored once.
            num_images: Images of all processes; None for those of this one only.
            num_texts: Texts of all processes, likewise.
            cal_i2t: Whether to find texts for images.
            cal_t2i: Whether to find images for texts.

        Returns:
            For images, if asked for, samples with `pred_score` (num_texts,), `pred_label` (1,), the best of them, and
            `gt_label`, those of the image (`gt_text_id`); then, if asked for, for texts likewise.
        """
        from mmpretrain.structures import DataSample

        samples = data_samples if data_samples is not None else [DataSample() for _ in feats['image_feat']]
        images, texts = (Pool(x, range(len(x))) for x in (feats['image_feat'], feats['text_feat']))
        if num_images is not None and get_world_size() > 1:
            images = pool(images.feats, [sample.get('image_id') for sample in samples], num_images)
            texts = pool(texts.feats, [i for sample in samples for i in sample.get('gt_text_id')], num_texts)
        results = []
        if cal_i2t:
            for sample in samples:
                if 'gt_text_id' in sample:
                    sample.set_gt_label(sample.get('gt_text_id'))
            results.append(best_matches(samples, feats['image_feat'], images.own, texts.feats))
        if cal_t2i:
            of_texts = [part for sample in samples for part in split_texts(sample)]
            results.append(best_matches(of_texts, feats['text_feat'], texts.own, images.feats))
        return tuple(results)


@MODELS.register_module()
class Captioner(BaseModel):
    """Images in, texts out. A word is predicted from `<mask>` at its place, by the image and the words before.

    Args:
        backbone: Config of a :class:`mmbeit.models.backbones.beit3.BEiT3`. What the image has of its last block is
            frozen, since it gets no gradient.
        mlm_head: Config of a :class:`mmbeit.models.heads.captioning.MaskedTokenHead`; `embed_dims` and `num_tokens`
            are the backbone's where they are not given. It has its name of pretraining, from which it starts.
        tokenizer: Path of the SentencePiece model, or a :class:`mmbeit.text_tokenizer.TextTokenizer`, to write
            captions; without it they are ids.
        mask_id: Id of `<mask>`, where there is no tokenizer that knows it.
        num_beams: Beams of an image.
        max_length: Most ids of a caption, which has up to `max_length - 3` words.
        length_penalty: Exponent of the length by which the log probability of a caption is divided.
        data_preprocessor: Config of mmpretrain's `MultiModalDataPreprocessor`, or of another one with its output.
        init_cfg: mmengine's initialisation config.

    Raises:
        ValueError: The tokenizer, whose last id is that of `<mask>`, has more ids than the backbone.
    """

    def __init__(
        self,
        backbone: dict,
        mlm_head: dict,
        tokenizer: str | TextTokenizer | None = None,
        mask_id: int = 64001,
        num_beams: int = 3,
        max_length: int = 64,
        length_penalty: float = 0.6,
        data_preprocessor: dict | None = None,
        init_cfg: dict | list[dict] | None = None,
    ):
        super().__init__(data_preprocessor=with_preprocessor(data_preprocessor), init_cfg=init_cfg)
        self.backbone = MODELS.build(backbone)
        sizes = {'embed_dims': self.backbone.embed_dims, 'num_tokens': self.backbone.text_embed.num_embeddings}
        self.mlm_head = MODELS.build({**sizes, **mlm_head})
        self.tokenizer = TextTokenizer(tokenizer) if isinstance(tokenizer, str) else tokenizer
        self.mask_id = mask_id if self.tokenizer is None else self.tokenizer.mask_id
        if self.mask_id >= sizes['num_tokens']:
            raise ValueError(f'<mask> is {self.mask_id}, vocab_size {sizes["num_tokens"]} is too small')
        self.num_beams = num_beams
        self.max_length = max_length
        self.length_penalty = length_penalty
        self.backbone.freeze_unread(TEXT_ONLY)

    def forward(
        self, images: Tensor, data_samples: list | None = None, mode: str = 'tensor'
    ) -> dict[str, Tensor] | list | Tensor:
        """mmengine's entry point.

        Args:
            images: Normalised images (B, 3, height, width).
            data_samples: One per image. For 'loss' each with `text_ids`, `masked_text_ids` and `text_mask`
                (:class:`mmbeit.datasets.transforms.text.MaskText`), for 'tensor' with `text_ids`.
            mode: 'loss'; 'predict' for the samples with captions; 'tensor' for the logits (B, T, V) of every place of
                a text.

        Raises:
            ValueError: Another mode, or a sample without a text.
        """
        match mode:
            case 'loss':
                return self.loss(images, data_samples)
            case 'predict':
                return self.predict(images, data_samples)
            case 'tensor':
                return self.mlm_head(self.text_tokens(images, batch_texts(data_samples, images.device)))
        raise ValueError(f"mode {mode!r} is not one of ('loss', 'predict', 'tensor')")

    def loss(self, images: Tensor, data_samples: list) -> dict[str, Tensor]:
        """Loss and accuracy of the hidden words, see :meth:`mmbeit.models.heads.captioning.MaskedTokenHead.loss`."""
        texts = masked_texts(data_samples, images.device)
        tokens = self.text_tokens(images, texts.shown, texts.masked.tokens)
        return self.mlm_head.loss(texts.masked.of(tokens), texts.ids)

    def text_tokens(self, images: Tensor, texts: Texts, kept: Tensor | None = None) -> Tensor:
        """Tokens (B, T, D) of captions, each of which knows the image and what comes before it; or those to keep."""
        keep = TEXT_ONLY if kept is None else {**TEXT_ONLY, 'text': kept}
        bias = caption_bias(self.backbone.num_vision_tokens(images), texts.ids.shape[1], images.dtype, images.device)
        out = self.backbone.encode(images, texts.ids, padding_mask=texts.padding_mask, attn_bias=bias, keep=keep)
        return out.text

    def predict(self, images: Tensor, data_samples: list | None = None) -> list:
        """Write captions.

        Returns:
            The samples, each with `pred_ids`, a list of the ids of the words, and, where there is a tokenizer,
            `pred_caption`.
        """
        if data_samples is None:
            from mmpretrain.structures import DataSample

            data_samples = [DataSample() for _ in images]
        for sample, caption in zip(data_samples, self.generate(images), strict=True):
            sample.set_field(caption.words, 'pred_ids')
            if self.tokenizer is not None:
                sample.set_field(self.tokenizer.decode(caption.words), 'pred_caption')
        return data_samples

    @torch.no_grad()
    def generate(self, images: Tensor) -> list[Hypothesis]:
        """The best caption of each image that beam search finds."""
        step = BeamDecoder(self.backbone, self.mlm_head, images, self.mask_id)
        return beam_search(step, EOS, self.num_beams, self.max_length, self.length_penalty)
