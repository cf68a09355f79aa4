"""Scores of captions, by the scorers of COCO (pycocoevalcap)."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Hashable, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from mmengine.dist import is_main_process
from mmengine.evaluator import BaseMetric
from mmengine.logging import MMLogger

from mmbeit.registry import METRICS

# Where a scorer is, what it takes, and what it gives.
SCORERS = {
    'BLEU': ('bleu.bleu', 'Bleu', dict(verbose=0), ('Bleu_1', 'Bleu_2', 'Bleu_3', 'Bleu_4')),
    'METEOR': ('meteor.meteor', 'Meteor', {}, ('METEOR',)),
    'ROUGE_L': ('rouge.rouge', 'Rouge', {}, ('ROUGE_L',)),
    'CIDEr': ('cider.cider', 'Cider', {}, ('CIDEr',)),
    'SPICE': ('spice.spice', 'Spice', {}, ('SPICE',)),
}
IN_JAVA = ('METEOR', 'SPICE')
JAR = 'stanford-corenlp-3.4.1.jar'
CONTRACTED = re.compile(r"(n't|'(?:s|m|d|re|ve|ll))\b")
WORD = re.compile(CONTRACTED.pattern + r"|o'clock|\w+(?:[-./,:]\w+)*|[$#%&]")


def split_words(texts: Sequence[str]) -> list[str]:
    """Words in lower case without punctuation, spaced; much as :func:`split_words_by_ptb` does it, in Python."""
    spaced = (CONTRACTED.sub(r' \1', text.lower().replace('’', "'")) for text in texts)
    return [' '.join(word[0] for word in WORD.finditer(text)) for text in spaced]


def split_words_by_ptb(texts: Sequence[str]) -> list[str]:
    """Words in lower case without punctuation, spaced, as the official evaluation of COCO has them.

    Runs Stanford's tokenizer of the Penn Treebank in Java.

    Raises:
        RuntimeError: Java fails.
    """
    from pycocoevalcap.tokenizer.ptbtokenizer import PUNCTUATIONS

    jar = Path(find_spec('pycocoevalcap.tokenizer.ptbtokenizer').origin).with_name(JAR)
    lines = '\n'.join(' '.join(text.split()) or '.' for text in texts)  # a blank line would not come back
    command = ['java', '-Dfile.encoding=UTF-8', '-cp', str(jar), 'edu.stanford.nlp.process.PTBTokenizer']
    done = subprocess.run(
        [*command, '-preserveLines', '-lowerCase'], input=lines, capture_output=True, encoding='utf-8', check=False
    )
    words = done.stdout.rstrip('\n').split('\n')
    if done.returncode or len(words) != len(texts):
        raise RuntimeError(f'cannot split captions into words by {" ".join(command)}: {done.stderr.strip()[-500:]}')
    return [' '.join(word for word in line.split(' ') if word not in PUNCTUATIONS) for line in words]


TOKENIZERS: dict[str, Callable[[Sequence[str]], list[str]]] = {'ptb': split_words_by_ptb, 'words': split_words}


def read_references(path: str | os.PathLike) -> dict[Hashable, list[str]]:
    """Captions by the id of their image, from a file of COCO's form, which has lists of `images` and `annotations`.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is malformed; the message names the entry.
    """
    from mmbeit.datasets.annotations import Entries, read_json

    found, content = {}, read_json(path)
    with Entries(path, 'annotations', content) as annotations:
        for entry in annotations:
            found.setdefault(same_id(entry['image_id']), []).append(str(entry['caption']))
    return found


def same_id(image_id: int | str) -> Hashable:
    """An id under which '000042' and 42 are the same image."""
    return int(image_id) if str(image_id).isdecimal() else image_id


@METRICS.register_module()
class CaptionScores(BaseMetric):
    """BLEU, ROUGE-L, CIDEr and others of captions, times 100, as COCO's evaluation has them.

    Takes samples with `pred_caption` and `image_id`. Gives `Bleu_1` to `Bleu_4`, `METEOR`, `ROUGE_L`, `CIDEr`,
    `SPICE`. The scorers are those of `pycocoevalcap`, of which BLEU, ROUGE-L and CIDEr need no Java. Other than
    mmpretrain's `COCOCaption`, and as officially (unilm:beit3/utils.py), all images of the references have to have a
    caption: CIDEr depends on how rare words are in all of them.

    Args:
        ann_file: File of the references, of COCO's form, such as `coco_karpathy_test_gt.json` or `nocaps_val_gt.json`.
            None: those of the samples, `gt_caption`.
        scores: Which ones. METEOR and SPICE need Java; SPICE downloads a model.
        tokenizer: How captions become words: 'ptb' as officially, which needs Java; 'words' in Python, which gives
            nearly the same numbers, but not those to compare with published ones.
        kwargs: Of :class:`mmengine.evaluator.BaseMetric`.

    Raises:
        ImportError: pycocoevalcap is not installed.
        FileNotFoundError: There are no references.
        ValueError: An argument is not among the accepted values, or the references are malformed.
        RuntimeError: There is no Java.
    """

    default_prefix = 'caption'

    def __init__(
        self,
        ann_file: str | None = None,
        scores: Sequence[str] = ('BLEU', 'ROUGE_L', 'CIDEr'),
        tokenizer: str = 'ptb',
        **kwargs,
    ):
        super().__init__(**kwargs)
        scores = (scores,) if isinstance(scores, str) else tuple(scores)
        if not scores or not set(scores) <= set(SCORERS):
            raise ValueError(f'scores {scores} are not among {tuple(SCORERS)}')
        if tokenizer not in TOKENIZERS:
            raise ValueError(f'tokenizer {tokenizer!r} is not one of {tuple(TOKENIZERS)}')
        if find_spec('pycocoevalcap') is None:
            raise ImportError('scores of captions need pycocoevalcap: pip install pycocoevalcap')
        needing = [name for name in scores if name in IN_JAVA] + ["tokenizer='ptb'"] * (tokenizer == 'ptb')
        if needing and shutil.which('java') is None:
            raise RuntimeError(
                f'{", ".join(needing)} needs Java, and there is no command java: install a Java runtime, or take '
                "scores=('BLEU', 'ROUGE_L', 'CIDEr') and tokenizer='words', which are close to the official numbers"
            )
        self.scores = scores
        self.tokenizer = TOKENIZERS[tokenizer]
        self.ann_file = ann_file
        self.references = None if ann_file is None else read_references(ann_file)

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Keep the captions of a batch.

        Raises:
            ValueError: A sample has no caption, or no references where there is no file of them.
        """
        for sample in data_samples:
            image, references = same_id(sample['image_id']), sample.get('gt_caption')
            if sample.get('pred_caption') is None:
                raise ValueError(f'image {image} has no pred_caption: give the model its text `tokenizer`')
            if self.references is None and not references:
                raise ValueError(f'image {image} has no gt_caption, and there is no ann_file')
            references = [references] if isinstance(references, str) else references
            self.results.append((image, sample['pred_caption'], references if self.references is None else None))

    def compute_metrics(self, results: list[tuple[Hashable, str, list[str] | None]]) -> dict[str, float]:
        """Score what all processes have.

        Raises:
            ValueError: The images are not those of the references.
        """
        captions = {image: caption for image, caption, _ in results}
        references = self.references
        if references is None:
            references = {image: given for image, _, given in results}
        total = len(references.keys() | captions.keys())
        for where, missing in (
            ('among the predictions', [image for image in references if image not in captions]),
            (f'in {self.ann_file}', [image for image in captions if image not in references]),
        ):
            if missing:
                raise ValueError(f'{len(missing)} of {total} images are not {where}, such as {missing[0]}')
        return score_captions({image: captions[image] for image in references}, references, self.scores, self.tokenizer)


def score_captions(
    captions: dict[Hashable, str],
    references: dict[Hashable, list[str]],
    scores: Sequence[str],
    tokenizer: Callable[[Sequence[str]], list[str]],
) -> dict[str, float]:
    """Scores of captions of some images, see :class:`CaptionScores`.

    Args:
        captions: One for each image.
        references: One or more for each of these images.
        scores: Names of the scorers.
        tokenizer: From texts to texts whose words are spaced.
    """
    texts = [*captions.values(), *(text for image in captions for text in references[image])]
    words = iter(tokenizer(texts))
    candidates = {image: [next(words)] for image in captions}
    expected = {image: [next(words) for _ in references[image]] for image in captions}
    out = {}
    for score in scores:
        module, name, kwargs, names = SCORERS[score]
        scorer = getattr(import_module(f'pycocoevalcap.{module}'), name)()
        values, _ = scorer.compute_score(expected, candidates, **kwargs)
        values = values if isinstance(values, list) else [values]
        out.update((name, 100 * float(value)) for name, value in zip(names, values, strict=True))
    return out


@METRICS.register_module()
class ReportCaptions(BaseMetric):
    """Write captions to a file, as the evaluation servers of COCO and NoCaps want them.

    Takes samples with `pred_caption` and `image_id`; writes a JSON list of `image_id` and `caption`, each image once.

    Args:
        file_path: Name of the file, in .json.
        kwargs: Of :class:`mmengine.evaluator.BaseMetric`.

    Raises:
        ValueError: The name ends in something else.
    """

    default_prefix = 'caption'

    def __init__(self, file_path: str, **kwargs):
        super().__init__(**kwargs)
        if not file_path.endswith('.json'):
            raise ValueError(f'file_path {file_path!r} does not end in .json')
        self.file_path = Path(file_path)

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        self.results += [(same_id(sample['image_id']), sample['pred_caption']) for sample in data_samples]

    def compute_metrics(self, results: list[tuple[Hashable, str]]) -> dict[str, float]:
        captions = [dict(image_id=image, caption=caption) for image, caption in dict(results).items()]
        if is_main_process():
            self.file_path.parent.mkdir(parents=True, exist_ok=True)
            self.file_path.write_text(json.dumps(captions))
            MMLogger.get_current_instance().info(f'{len(captions)} captions are in {self.file_path}')
        return {}


@METRICS.register_module()
class CaptionExactMatch(BaseMetric):
    """Share of the captions, in percent, that are word for word one of those of their image.

    For captions of a few fixed forms, which are right or wrong. Takes samples with `pred_caption` and `gt_caption`, a
    list. Gives `exact`.
    """

    default_prefix = 'caption'

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Compare the captions of a batch."""
        self.results += [sample['pred_caption'] in sample['gt_caption'] for sample in data_samples]

    def compute_metrics(self, results: list[bool]) -> dict[str, float]:
        return {'exact': 100 * sum(results) / len(results)}
