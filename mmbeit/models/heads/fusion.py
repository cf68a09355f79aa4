"""Heads on what the fusion encoder makes of images with a text: VQA and NLVR2 (unilm:beit3/modeling_finetune.py).

`keep` of a head says which tokens it reads, see :meth:`mmbeit.models.backbones.beit3.BEiT3.encode`. Of each image of a
sample it gets these, concatenated.
"""

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor, nn

from mmbeit.answers import read_answers
from mmbeit.layers.init import init_transformer_
from mmbeit.layers.multiway import EPS
from mmbeit.registry import MODELS


@MODELS.register_module()
class VQAHead(BaseModule):
    """Classifier over the answers of VQAv2, several of which may be right to a degree.

    Args:
        embed_dims: Width D of the tokens.
        num_classes: Number of answers K.
        answers: What the labels mean: a file (:func:`mmbeit.answers.read_answers`) or a list. Without it predictions
            are labels.
        init_cfg: mmengine's initialisation config, applied after the official one.

    Raises:
        ValueError: There are more or fewer answers than classes.
    """

    keep: Mapping[str, int] = {'vision': 1, 'text': 0}  # the class token of the image

    def __init__(
        self,
        embed_dims: int,
        num_classes: int = 3129,
        answers: str | Sequence[str] | None = None,
        init_cfg: dict | list[dict] | None = None,
    ):
        super().__init__(init_cfg)
        self.answers = read_answers(answers) if isinstance(answers, str) else answers
        if self.answers is not None and len(self.answers) != num_classes:
            raise ValueError(f'{len(self.answers)} answers for num_classes {num_classes}')
        self.fc1 = nn.Linear(embed_dims, 2 * embed_dims)
        self.norm = nn.LayerNorm(2 * embed_dims, eps=EPS)
        self.fc2 = nn.Linear(2 * embed_dims, num_classes)

    def init_weights(self) -> None:
        if not self.is_init:
            init_transformer_(self, bound=0.02)
            super().init_weights()

    def forward(self, feats: Tensor) -> Tensor:
        """Logits (B, K) of features (B, D)."""
        return self.fc2(F.gelu(self.norm(self.fc1(feats))))

    def loss(self, feats: Tensor, data_samples: list) -> dict[str, Tensor]:
        """Binary cross entropy of every answer, summed over the answers and averaged over the samples.

        Args:
            feats: As for :meth:`forward`.
            data_samples: One per question, each with a `gt_score` (K,): how right each answer is, in [0, 1].

        Returns:
            `loss`.
        """
        logits = self(feats).float()
        targets = torch.stack([sample.gt_score for sample in data_samples]).to(logits)
        return {'loss': F.binary_cross_entropy_with_logits(logits, targets, reduction='sum') / len(logits)}

    def predict(self, feats: Tensor, data_samples: list) -> list:
        """Answer.

        Args:
            feats: As for :meth:`forward`.
            data_samples: mmpretrain's `DataSample`, one per question.

        Returns:
            The samples, each with `pred_score` (K,), `pred_label` (1,), and `pred_answer`, where the answers are known.
        """
        scores = self(feats).float().sigmoid()
        for sample, score, label in zip(data_samples, scores, scores.argmax(dim=1).tolist(), strict=True):
            sample.set_pred_score(score).set_pred_label(label)
            if self.answers is not None:
                sample.set_field(self.answers[label], 'pred_answer')
        return data_samples


@MODELS.register_module()
class NLVRHead(BaseModule):
    """Whether a sentence is true of two images.

    Args:
        embed_dims: Width D of the tokens.
        num_classes: Number of classes K.
        num_images: Images of a sample.
        init_cfg: mmengine's initialisation config, applied after the official one.
    """

    keep: Mapping[str, int] = {'vision': 1, 'text': 1}  # the class token of the image, and the text's `<s>`

    def __init__(
        self,
        embed_dims: int,
        num_classes: int = 2,
        num_images: int = 2,
        init_cfg: dict | list[dict] | None = None,
    ):
        super().__init__(init_cfg)
        self.num_images = num_images
        in_channels = 2 * num_images * embed_dims
        self.norm1 = nn.LayerNorm(in_channels, eps=EPS)
        self.fc1 = nn.Linear(in_channels, 2 * embed_dims)
        self.norm2 = nn.LayerNorm(2 * embed_dims, eps=EPS)
        self.fc2 = nn.Linear(2 * embed_dims, num_classes)

    def init_weights(self) -> None:
        if self.is_init:
            return
        init_transformer_(self, bound=0.02)
        with torch.no_grad():
            for layer in (self.fc1, self.fc2):
                layer.weight.mul_(0.001)
        super().init_weights()

    def forward(self, feats: Tensor) -> Tensor:
        """Logits (B, K) of features (B, 4D): class token and `<s>` of the first image, then of the second."""
        return self.fc2(F.gelu(self.norm2(self.fc1(self.norm1(feats)))))

    def loss(self, feats: Tensor, data_samples: list) -> dict[str, Tensor]:
        """Cross entropy.

        Args:
            feats: As for :meth:`forward`.
            data_samples: One per sentence, each with a `gt_label` (1,) long, 1 = true.

        Returns:
            `loss`, and `accuracy` in percent.
        """
        logits = self(feats).float()
        targets = torch.cat([sample.gt_label for sample in data_samples]).to(logits.device)
        correct = logits.detach().argmax(dim=1) == targets
        return {'loss': F.cross_entropy(logits, targets), 'accuracy': 100 * correct.float().mean()}

    def predict(self, feats: Tensor, data_samples: list) -> list:
        """Judge.

        Args:
            feats: As for :meth:`forward`.
            data_samples: mmpretrain's `DataSample`, one per sentence.

        Returns:
            The samples, each with `pred_score` (K,) and `pred_label` (1,).
        """
        scores = self(feats).float().softmax(dim=1)
        for sample, score, label in zip(data_samples, scores, scores.argmax(dim=1).tolist(), strict=True):
            sample.set_pred_score(score).set_pred_label(label)
        return data_samples
