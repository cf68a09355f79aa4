"""Beam search for captions (unilm:beit3/engine_for_finetuning.py)."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor


class Hypothesis(NamedTuple):
    """A caption.

    Attributes:
        words: Its ids, without `<s>` and `</s>`.
        score: Sum of the log probabilities of the words and of the end, over (len(words) + 2) ** length_penalty.
    """

    words: list[int]
    score: float


def beam_search(
    step: Callable[[Tensor | None, Tensor | None], Tensor],
    eos: int,
    num_beams: int = 3,
    max_length: int = 64,
    length_penalty: float = 0.6,
) -> list[Hypothesis]:
    """Search the best caption of each image of a batch.

    As officially: three times as many continuations as beams are looked at, a single hypothesis is kept, and an image
    is done when no caption as long as the longest could be better. What reaches `max_length` is stopped there: the last
    word does not count then, but its probability does.

    Args:
        step: From the words (B, num_beams) just added and the beams (B, num_beams) that they continue, both long, to
            the logits (B, num_beams, V) of the next word. It is called with None twice to begin, with nothing said so
            far, and gives (B, 1, V) then. An image that is done is continued with anything; there may be fewer beams.
        eos: Id of `</s>`.
        num_beams: Beams of an image.
        max_length: Most ids of a caption, which has up to `max_length - 3` words.
        length_penalty: Exponent of the length.

    Returns:
        A hypothesis for each image.
    """
    words = parents = None
    for length in range(2, max_length):  # `<s>`, the words, and the place of the next one
        logits = step(words, parents)
        B, _, V = logits.shape
        if words is None:
            scores = torch.zeros(B, 1, device=logits.device)
            said = [[[]] for _ in range(B)]
            best: list[Hypothesis | None] = [None] * B
            done = [False] * B
        totals = (logits.float().log_softmax(dim=2) + scores[..., None]).flatten(1)
        tops, picks = totals.topk(min(3 * num_beams, totals.shape[1]), dim=1)
        going = []  # per image, of each beam: score, word, beam that it continues
        for i, candidates in enumerate(zip(tops.tolist(), picks.tolist(), strict=True)):
            bound = candidates[0][0] / (max_length - 1) ** length_penalty
            done[i] = done[i] or (best[i] is not None and best[i].score >= bound)
            beams: list[tuple[float, int, int]] = []
            for score, pick in zip(*candidates, strict=True) if not done[i] else ():
                beam, word = divmod(pick, V)
                if word == eos or length + 1 == max_length:
                    found = Hypothesis(said[i][beam], score / length**length_penalty)
                    best[i] = found if best[i] is None or found.score > best[i].score else best[i]
                else:
                    beams.append((score, word, beam))
                if len(beams) == num_beams:
                    break
            going.append(beams)
        if not any(going):
            break
        nothing = (-1e9, eos, 0)
        for i, beams in enumerate(going):
            beams += [nothing] * (max(map(len, going)) - len(beams))
            said[i] = [said[i][beam] + [word] for _, word, beam in beams]
        scores, words, parents = (
            torch.tensor([[beam[part] for beam in beams] for beams in going], device=logits.device) for part in range(3)
        )
    return best
