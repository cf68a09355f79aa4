"""Views whose visual tokens are stored."""

import os
from collections.abc import Sequence

import numpy as np
from mmcv.transforms import BaseTransform

from mmbeit.datasets.samplers import SampleIndex, seeded
from mmbeit.datasets.tokens import TokenFolder, checksum
from mmbeit.datasets.transforms.seed import seed_generators
from mmbeit.registry import TRANSFORMS


@TRANSFORMS.register_module()
class ReplayView(BaseTransform):
    """First step of a pipeline: make a view again of which the visual tokens are stored, and add these.

    It stands where :class:`SeedTransforms` stands in a pipeline without stored tokens, and holds the steps from the
    loader to the crop. Epoch e shows view e modulo K of each image. What comes after it, the mask, is drawn anew in
    every epoch: the first time that a run shows a view, from where the view left the generators, as without stored
    tokens; later, when that would give the same mask again, from the seed that the sample has in this epoch.

    Adds `img`, a list of the view and of its tokens, ids (h * w,) int64, in the place of the target view.

    Args:
        tokens: Folder of tokens, see :class:`mmbeit.datasets.tokens.TokenFolder`.
        transforms: The steps, as they were when the tokens were extracted.
        check: Whether a view that is not, to the last bit, the one that was extracted stops the run. It takes 0.04 ms.

    Raises:
        FileNotFoundError: There are no tokens.
    """

    def __init__(self, tokens: str | os.PathLike, transforms: Sequence[dict], check: bool = True):
        self.tokens = TokenFolder(tokens)
        self.transforms = [TRANSFORMS.build(step) for step in transforms]
        self.check = check

    def transform(self, results: dict) -> dict | None:
        """Make the view.

        Raises:
            ValueError: It is not the one that was extracted: the file, a library or a step has changed.
        """
        contents, image = self.tokens.contents, results['sample_idx']
        if not isinstance(image, SampleIndex):  # it takes the place of an image that cannot be read
            seed, epoch = np.random.randint(2**32, dtype=np.uint32), np.random.randint(contents.views)
            image = SampleIndex(image, int(seed), epoch)
        view = image.epoch % contents.views
        seed = seeded(int(image), contents.seed, view).seed
        seed_generators(seed)
        records = self.tokens[image]
        results = None if records is None else self._run(results)
        if results is None:  # which image takes its place, behind which mask, is drawn anew in every epoch, too
            seed_generators(image.seed)
            return None
        shown = results['img'][0] if isinstance(results['img'], list) else results['img']
        if self.check and checksum(shown) != records['check'][view]:
            raise ValueError(
                f'view {view} of {results["img_path"]} is not the one that was extracted to {self.tokens.folder}: the '
                f'image has changed since, or one of {contents.versions}'
            )
        results['img'] = [shown, records['ids'][view].reshape(-1).astype(np.int64)]
        if seed != image.seed:
            seed_generators(image.seed)
        return results

    def _run(self, results: dict | None) -> dict | None:
        for step in self.transforms:
            results = step(results)
            if results is None:
                break
        return results
