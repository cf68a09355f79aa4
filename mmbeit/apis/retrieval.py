"""Pictures and texts in one space: features, classes from names, texts for pictures, and pictures for texts."""

import os
from collections.abc import Sequence
from typing import Any

import matplotlib.figure
import torch
from PIL import Image
from torch import Tensor, nn

from mmbeit.apis.images import list_images, read_image
from mmbeit.apis.inferencer import Place
from mmbeit.apis.progress import track
from mmbeit.apis.texts import TextInferencer
from mmbeit.models.algorithms.vision_language import DualEncoder
from mmbeit.text_tokenizer import TextTokenizer

TEMPLATES = ('a photo of a {}.',)
THUMBNAIL = 224  # longest side in pixels, on a contact sheet


class Embedder(TextInferencer):
    """Features of pictures and of texts, of length 1: (D,) float32 tensors on the CPU. Their products are cosines."""

    @staticmethod
    def fits(model: nn.Module) -> bool:
        return isinstance(model, DualEncoder)

    def predict(self, images: list[Image.Image], places: list[Place]) -> list[Any]:
        return list(self.model.extract_feat(images=self.batch(images))['image_feat'].float().cpu())

    @torch.no_grad()
    def embed_texts(self, texts: Sequence[str], batch_size: int = 64) -> Tensor:
        """Features (number of texts, D).

        Raises:
            ValueError: A text is empty; it is found before anything runs.
        """
        if isinstance(texts, str):
            raise TypeError('texts is a str: expected a list of texts')
        samples = [self.sample(text) for text in texts]
        feats = [
            self.model.extract_feat(data_samples=samples[start : start + batch_size])['text_feat'].float().cpu()
            for start in track(range(0, len(samples), batch_size), -(-len(samples) // batch_size), 'texts')
        ]
        return torch.cat(feats) if feats else torch.empty(0, self.model.backbone.embed_dims)


class ImageToTextRetrievalInferencer(Embedder):
    """The texts out of a list that fit pictures best.

    A result is a list of dicts, the best first, as of mmpretrain's inferencer: `text`, `sample_idx`, its number, and
    `match_score`, the cosine.

    Args:
        model, pretrained, device, data, tokenizer, overrides: See :class:`mmbeit.apis.texts.TextInferencer`.
        texts: The texts to choose from.
    """

    def __init__(self, *args: Any, texts: Sequence[str], **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.texts = texts
        self.text_feats = self.embed_texts(texts)

    def predict(self, images: list[Image.Image], places: list[Place], top: int = 3) -> list[list[dict]]:
        scores = torch.stack(super().predict(images, places)) @ self.text_feats.T
        best, found = scores.topk(min(top, len(self.texts)), dim=1)
        return [
            [dict(match_score=s, sample_idx=i, text=self.texts[i]) for s, i in zip(values, indices, strict=True)]
            for values, indices in zip(best.tolist(), found.tolist(), strict=True)
        ]


class ZeroShotClassificationInferencer(Embedder):
    """Classes of pictures, from nothing but the names of the classes.

    A result is a dict as of :class:`mmbeit.ImageClassificationInferencer`. The probabilities are those that the model
    was trained to give, with its temperature.

    Args:
        model, pretrained, device, data, tokenizer, overrides: See :class:`mmbeit.apis.texts.TextInferencer`.
        classes: Names.
        templates: Sentences with `{}` for the name. The features of a class are the mean over the sentences, scaled to
            length 1 again.
    """

    def __init__(self, *args: Any, classes: Sequence[str], templates: Sequence[str] = TEMPLATES, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.classes = classes
        feats = self.embed_texts([template.format(name) for name in classes for template in templates])
        mean = feats.unflatten(0, (len(classes), len(templates))).mean(dim=1)
        self.class_feats = torch.nn.functional.normalize(mean, dim=-1)

    def predict(self, images: list[Image.Image], places: list[Place]) -> list[dict]:
        scale = self.model.head.logit_scale.detach().exp().cpu()
        results = []
        for scores in (scale * torch.stack(super().predict(images, places)) @ self.class_feats.T).softmax(dim=1):
            label = int(scores.argmax())
            results.append(
                dict(
                    pred_scores=scores.numpy(),
                    pred_label=label,
                    pred_score=float(scores[label]),
                    pred_class=self.classes[label],
                )
            )
        return results


class TextToImageRetrievalInferencer(Embedder):
    """The pictures out of many that fit a text best.

    The pictures are read once. Then it is called with a text, or a list of texts. A result is a list of dicts, the best
    first, as of mmpretrain's inferencer: `img`, the picture as it was given (of a folder: its path), `sample_idx`, its
    number, and `match_score`, the cosine. Pictures that cannot be read are warned of and never found.

    Args:
        model, pretrained, device, data, tokenizer, overrides: See :class:`mmbeit.apis.texts.TextInferencer`.
        images: A list of pictures, or a folder, which is searched with its subfolders.
        batch_size: How many pictures run at once.
    """

    def __init__(self, *args: Any, images: Any, batch_size: int = 8, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.images = list(map(str, list_images(images))) if isinstance(images, (str, os.PathLike)) else list(images)
        feats = super().__call__(self.images, batch_size)
        self.readable = [i for i, feat in enumerate(feats) if feat is not None]
        if not self.readable:
            raise ValueError(f'none of the {len(self.images)} pictures can be read')
        self.image_feats = torch.stack([feats[i] for i in self.readable])

    def __call__(self, inputs: str | Sequence[str], top: int = 12, sheet: str | os.PathLike | None = None) -> Any:
        """Search.

        Args:
            inputs: A text, or a list of texts.
            top: How many pictures to find.
            sheet: File of a PNG with the pictures that were found, a row for each text.

        Raises:
            ValueError: A text is empty.
        """
        texts = [inputs] if isinstance(inputs, str) else list(inputs)
        best, found = (self.embed_texts(texts) @ self.image_feats.T).topk(min(top, len(self.readable)), dim=1)
        results = []
        for values, places in zip(best.tolist(), found.tolist(), strict=True):
            hits = [(score, self.readable[place]) for score, place in zip(values, places, strict=True)]
            results.append([dict(match_score=score, sample_idx=i, img=self.images[i]) for score, i in hits])
        if sheet is not None:
            contact_sheet(texts, results).savefig(sheet, dpi=100)
        return results[0] if isinstance(inputs, str) else results


def contact_sheet(texts: Sequence[str], results: Sequence[list[dict]], columns: int = 6) -> matplotlib.figure.Figure:
    """The pictures that :class:`TextToImageRetrievalInferencer` has found for texts, one text under the other."""
    rows_of = [-(-len(hits) // columns) for hits in results]
    figure = matplotlib.figure.Figure((1.6 * columns, 1.9 * sum(rows_of) + 0.3 * len(texts)), layout='constrained')
    parts = figure.subfigures(len(texts), 1, height_ratios=rows_of, squeeze=False)[:, 0]
    for part, text, hits, rows in zip(parts, texts, results, rows_of, strict=True):
        part.suptitle(text, fontsize=10, wrap=True)
        for axis, hit in zip(part.subplots(rows, columns, squeeze=False).flat, hits + [None] * columns, strict=False):
            axis.set_axis_off()
            if hit is not None:
                picture = read_image(hit['img'])
                picture.thumbnail((THUMBNAIL, THUMBNAIL))
                axis.imshow(picture)
                axis.set_title(f'{hit["match_score"]:.3f}', fontsize=8)
    return figure


def embed_images(model: Any, inputs: Any, batch_size: int = 8, **options: Any) -> Any:
    """Features of pictures, of length 1.

    Args:
        model: A model for retrieval, or what :func:`mmbeit.get_model` takes.
        inputs: A picture, a list of pictures, or a folder.
        batch_size: How many run at once.
        options: Of :class:`Embedder`.

    Returns:
        A float32 tensor (D,) on the CPU, a list of them, or a dict of them by path. None stands for what could not be
        read.
    """
    return Embedder(model, **options)(inputs, batch_size)


def embed_texts(
    model: Any,
    texts: Sequence[str],
    batch_size: int = 64,
    tokenizer: str | os.PathLike | TextTokenizer | None = None,
    **options: Any,
) -> Tensor:
    """Features (number of texts, D) of texts, of length 1, on the CPU. The arguments are those of :class:`Embedder`."""
    return Embedder(model, tokenizer=tokenizer, **options).embed_texts(texts, batch_size)
