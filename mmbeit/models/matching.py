"""Images and texts of all processes, compared."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from mmengine.dist import all_gather, get_rank
from mmengine.structures import BaseDataElement
from torch import Tensor


class Pool(NamedTuple):
    """What is searched.

    Attributes:
        feats: Features of all processes (num, D), each at its id.
        own: Which of those of this process it reports.
    """

    feats: Tensor
    own: Sequence[int]


def pool(feats: Tensor, ids: list[int], num: int) -> Pool:
    """Put together what all processes have. What two of them have, because a sampler hands it out twice, one reports.

    Args:
        feats: Features of this process (n, D).
        ids: Of which images or texts they are, in [0, num).
        num: How many there are in all.
    """
    parts, id_parts = gather_rows(feats), gather_rows(torch.tensor(ids, device=feats.device))
    everything = feats.new_zeros(num, feats.shape[1])
    everything[torch.cat(id_parts)] = torch.cat(parts)
    reported, own = {i for part in id_parts[: get_rank()] for i in part.tolist()}, []
    for at, i in enumerate(ids):
        if i not in reported:
            own.append(at)
            reported.add(i)
    return Pool(everything, own)


def gather_rows(x: Tensor) -> list[Tensor]:
    """What each process has, (n, ...) with its own n."""
    sizes = [int(size) for size in all_gather(torch.tensor(len(x), device=x.device))]
    padded = torch.cat([x, x.new_zeros(max(sizes) - len(x), *x.shape[1:])])
    return [part[:size] for part, size in zip(all_gather(padded), sizes, strict=True)]


def best_matches(samples: Sequence, queries: Tensor, own: Sequence[int], feats: Tensor) -> list:
    """The samples that this process reports, each with the cosines of its query (n, D) to `feats` (num, D)."""
    scores = queries[list(own)] @ feats.T
    found = [samples[i] for i in own]
    for sample, score, best in zip(found, scores, scores.argmax(dim=1).tolist(), strict=True):
        sample.set_pred_score(score).set_pred_label(best)
    return found


def texts_of(sample: BaseDataElement) -> list:
    """The texts of a sample, which may have one or a list of them, as ids."""
    ids = sample.get('text_ids')
    return ids if isinstance(ids[0], (list, tuple)) else [ids]


def split_texts(sample: BaseDataElement) -> list:
    """A sample of its own for each text of a sample, with `text` and `gt_label`, its image, where these are known."""
    parts, texts, labels = [], sample.get('text'), sample.get('gt_image_id')
    for i in range(len(texts_of(sample))):
        parts.append(type(sample)())
        if texts is not None:
            parts[-1].set_field(texts if isinstance(texts, str) else texts[i], 'text')
        if labels is not None:
            parts[-1].set_gt_label(labels[i])
    return parts
