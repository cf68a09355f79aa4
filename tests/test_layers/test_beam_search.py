"""Beam search on toy languages, in which the next word depends on the last one."""

import itertools

import pytest
import torch

from mmbeit.layers.beam_search import beam_search

EOS, V = 2, 5


class Language:
    """Logits by the last word, of a number of images; knows what all beams have said."""

    def __init__(self, num_images=1, end=0.0, seed=0):
        self.table = torch.randn(num_images, V + 1, V, generator=torch.Generator().manual_seed(seed)).double() * 2
        self.table[:, :, EOS] += end
        self.said = None
        self.steps = 0

    def __call__(self, words, parents):
        self.steps += 1
        if words is None:
            self.said = [[[]] for _ in self.table]
            return self.table[:, V:]
        self.said = [
            [said[parent] + [word] for word, parent in zip(*beams, strict=True)]
            for said, *beams in zip(self.said, words.tolist(), parents.tolist(), strict=True)
        ]
        return torch.stack([table[last] for table, last in zip(self.table, words, strict=True)])

    def score(self, image, words):
        """Log probability of some words, one after the other."""
        table = self.table[image].log_softmax(dim=1)
        return sum(table[last][word].item() for last, word in zip([V, *words], words, strict=False))


def search_everything(language, image, max_length, alpha):
    """The best caption by looking at all of them."""
    best = []
    for length in range(max_length - 2):
        for words in itertools.product([w for w in range(V) if w != EOS], repeat=length):
            stopped = length == max_length - 3  # then the next word may be any
            ends = range(V) if stopped else [EOS]
            total = max(language.score(image, [*words, end]) for end in ends)
            best.append((total / (length + 2) ** alpha, list(words)))
    return max(best)


@pytest.mark.parametrize('alpha', [0.0, 0.6, 1.0])
@pytest.mark.parametrize('end', [-2.0, 0.0, 1.0])
def test_with_enough_beams_nothing_is_missed(alpha, end):
    language = Language(3, end)
    found = beam_search(language, EOS, num_beams=300, max_length=6, length_penalty=alpha)
    for image, caption in enumerate(found):
        score, words = search_everything(language, image, 6, alpha)
        assert caption.words == words and caption.score == pytest.approx(score)


def test_one_beam_is_greedy():
    language = Language(4, end=-1.0)
    for image, caption in enumerate(beam_search(language, EOS, num_beams=1, max_length=9, length_penalty=0.0)):
        words, last = [], V
        while len(words) < 6:
            row = language.table[image][last].clone()
            row[EOS] = -1e9
            last = int(row.argmax())
            words.append(last)
        assert caption.words == words[: len(caption.words)]


def test_images_do_not_know_of_each_other():
    language = Language(4, end=0.5)
    together = beam_search(language, EOS, max_length=10)
    for image, caption in enumerate(together):
        alone = Language(4, end=0.5)
        alone.table = alone.table[image : image + 1]
        (other,) = beam_search(alone, EOS, max_length=10)
        assert other.words == caption.words and other.score == pytest.approx(caption.score)


def test_it_stops_when_nothing_better_can_come_and_at_the_longest():
    eager, reluctant = Language(2, end=20.0), Language(2, end=-20.0)
    assert [caption.words for caption in beam_search(eager, EOS)] == [[], []]
    assert eager.steps == 2  # the end is found, then nothing is better
    stopped = beam_search(reluctant, EOS, max_length=7)
    assert [len(caption.words) for caption in stopped] == [4, 4] and reluctant.steps == 5


@pytest.mark.parametrize('seed', range(5))
def test_scores_are_those_of_what_is_said(seed):
    """Beams are told whom they continue: the language hears what the search says."""
    language = Language(2, end=-1.0, seed=seed)
    for image, caption in enumerate(beam_search(language, EOS, num_beams=3, max_length=8)):
        total = caption.score * (len(caption.words) + 2) ** 0.6
        ends = [EOS] if len(caption.words) < 5 else range(V)
        assert min(abs(total - language.score(image, [*caption.words, end])) for end in ends) < 1e-5
