"""Accuracy among some of the classes."""

from collections.abc import Sequence

import torch
from mmengine.evaluator import BaseMetric

from mmbeit.registry import METRICS

# The 200 classes of ImageNet-A (https://arxiv.org/abs/1907.07174) and of ImageNet-R (https://arxiv.org/abs/2006.16241)
# among the 1000 of ImageNet, in the order of their WordNet ids, which are the names of the folders
# (timm:timm/data/_info/imagenet_{a,r}_indices.txt).
SUBSETS = {
    name: tuple(map(int, indices.split()))
    for name, indices in {
        'imagenet-a': """
        6 11 13 15 17 22 23 27 30 37 39 42 47 50 57 70 71 76 79 89 90 94 96 97 99 105 107 108 110 113 124 125 130 132
        143 144 150 151 207 234 235 254 277 283 287 291 295 298 301 306 307 308 309 310 311 313 314 315 317 319 323 324
        326 327 330 334 335 336 347 361 363 372 378 386 397 400 401 402 404 407 411 416 417 420 425 428 430 437 438 445
        456 457 461 462 470 472 483 486 488 492 496 514 516 528 530 539 542 543 549 552 557 561 562 569 572 573 575 579
        589 606 607 609 614 626 627 640 641 642 643 658 668 677 682 684 687 701 704 719 736 746 749 752 758 763 765 768
        773 774 776 779 780 786 792 797 802 803 804 813 815 820 823 831 833 835 839 845 847 850 859 862 870 879 880 888
        890 897 900 907 913 924 932 933 934 937 943 945 947 951 954 956 957 959 971 972 980 981 984 986 987 988
        """,
        'imagenet-r': """
        1 2 4 6 8 9 11 13 22 23 26 29 31 39 47 63 71 76 79 84 90 94 96 97 99 100 105 107 113 122 125 130 132 144 145 147
        148 150 151 155 160 161 162 163 171 172 178 187 195 199 203 207 208 219 231 232 234 235 242 245 247 250 251 254
        259 260 263 265 267 269 276 277 281 288 289 291 292 293 296 299 301 308 309 310 311 314 315 319 323 327 330 334
        335 337 338 340 341 344 347 353 355 361 362 365 366 367 368 372 388 390 393 397 401 407 413 414 425 428 430 435
        437 441 447 448 457 462 463 469 470 471 472 476 483 487 515 546 555 558 570 579 583 587 593 594 596 609 613 617
        621 629 637 657 658 701 717 724 763 768 774 776 779 780 787 805 812 815 820 824 833 847 852 866 875 883 889 895
        907 928 931 932 933 934 936 937 943 945 947 948 949 951 953 954 957 963 965 967 980 981 983 988
        """,
    }.items()
}


@METRICS.register_module()
class SubsetAccuracy(BaseMetric):
    """Accuracy of a classifier among some of its classes, in percent: of ImageNet's 1000 on a data set of 200 of them.

    The likeliest of these classes counts, whatever the scores of the others are, as if the classifier had only their
    rows (unilm:beit2/run_class_finetuning.py, `--robust_test`). Labels number the classes of the data set from 0: of
    folders, sorted by name. Gives `top1`, or whatever `topk` says.

    Args:
        classes: 'imagenet-a' or 'imagenet-r', or for each label of the data set which class of the classifier it is.
        topk: Among how many of the likeliest classes the right one has to be.
        kwargs: Of :class:`mmengine.evaluator.BaseMetric`.

    Raises:
        ValueError: An unknown name, or fewer classes than `topk` asks for.
    """

    default_prefix = 'accuracy'

    def __init__(self, classes: str | Sequence[int], topk: int | Sequence[int] = (1, 5), **kwargs):
        super().__init__(**kwargs)
        if isinstance(classes, str) and classes not in SUBSETS:
            raise ValueError(f'classes {classes!r} is not one of {tuple(SUBSETS)}, nor a list of numbers')
        self.classes = list(SUBSETS[classes] if isinstance(classes, str) else classes)
        self.topk = (topk,) if isinstance(topk, int) else tuple(topk)
        if max(self.topk) > len(self.classes):
            raise ValueError(f'topk {self.topk} of {len(self.classes)} classes')

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Note for a batch which predictions were right.

        Raises:
            ValueError: The data set does not have as many classes, or the predictions have fewer than there should be.
        """
        found = (self.dataset_meta or {}).get('classes')
        if found is not None and len(found) != len(self.classes):
            raise ValueError(f'the data set has {len(found)} classes (folders), where {len(self.classes)} are expected')
        for sample in data_samples:
            scores = sample['pred_score'].cpu()
            if len(scores) <= max(self.classes):
                raise ValueError(f'class {max(self.classes)} of predictions that hold {len(scores)} classes')
            best = scores[self.classes].topk(max(self.topk)).indices
            self.results.append([sample['gt_label'].item() in best[:k] for k in self.topk])

    def compute_metrics(self, results: list[list[bool]]) -> dict[str, float]:
        accuracy = 100 * torch.tensor(results, dtype=torch.float64).mean(dim=0)
        return {f'top{k}': value.item() for k, value in zip(self.topk, accuracy, strict=True)}
