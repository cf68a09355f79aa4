"""Write pictures of several digits on photographs, with the class of every pixel, in ADE20K's layout.

`python tools/dataset_converters/digit_scenes.py data/digits data/digit_scenes`

The digits are the scans that `digits.py` has written, each resized, rotated and inked anew; the grounds are cut out of
the two photographs that come with scikit-learn. Pictures to evaluate on have no scan and no piece of a photograph in
common with those to train on.

Labels of pixels are numbered like ADE20K's, that is, for `reduce_zero_label=True`: 0 is ignored, here the soft rim of a
stroke; 1 is the ground; 2 to 11 are the digits.
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_image

SIZE = 48
PHOTOS = ('china.jpg', 'flower.jpg')
NUM_TRIES = (6, 12)  # to place a digit where there is none yet
SIDES = (13, 20)  # of a digit before it is rotated, in pixels
MAX_ANGLE = 30
RIM, STROKE = 0.2, 0.5  # shares of ink from which a pixel is no ground any more, and from which it is the digit
DARKNESS = 0.5  # of the ground, so that light ink stands out
HELD_OUT = 0.25  # share of a photograph, on its right
GROUND, FIRST_DIGIT = 1, 2


def photographs(split: str) -> list[np.ndarray]:
    """The part of each photograph that a split may use: (height, width, 3) uint8."""
    parts = []
    for name in PHOTOS:
        image = load_sample_image(name)
        border = round(image.shape[1] * (1 - HELD_OUT))
        parts.append(image[:, :border] if split == 'training' else image[:, border:])
    return parts


def draw_digit(scan: Image.Image, draw: np.random.Generator) -> np.ndarray:
    """A scan, resized and rotated: share of ink of every pixel, (height, width) in [0, 1]."""
    side = int(draw.integers(*SIDES, endpoint=True))
    scan = scan.resize((side, side), Image.Resampling.BICUBIC)
    scan = scan.rotate(draw.uniform(-MAX_ANGLE, MAX_ANGLE), Image.Resampling.BICUBIC, expand=True)
    return np.asarray(scan, dtype=np.float32) / 255


def compose(
    scans: dict[Path, int], photos: list[np.ndarray], draw: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, list[Path]]:
    """One picture.

    Args:
        scans: Class of each file that may be used.
        photos: What the ground is cut out of.
        draw: Random numbers.

    Returns:
        Pixels (SIZE, SIZE, 3) uint8, labels (SIZE, SIZE) uint8, and the scans that are in it.
    """
    photo = photos[draw.integers(len(photos))]
    scale = int(draw.integers(1, 3))  # in its own resolution, or in half of it
    top, left = (int(draw.integers(side - scale * SIZE)) for side in photo.shape[:2])
    ground = photo[top : top + scale * SIZE : scale, left : left + scale * SIZE : scale].astype(np.float32)
    ground *= DARKNESS
    labels = np.full((SIZE, SIZE), GROUND, dtype=np.uint8)
    paths, used = list(scans), []
    for _ in range(int(draw.integers(*NUM_TRIES, endpoint=True))):
        path = paths[draw.integers(len(paths))]
        ink = draw_digit(Image.open(path), draw)
        top, left = (int(draw.integers(SIZE - side)) for side in ink.shape)
        place = np.s_[top : top + ink.shape[0], left : left + ink.shape[1]]
        if (labels[place][ink > RIM] != GROUND).any():
            continue  # two digits would touch
        colour = draw.uniform(170, 255, 3).astype(np.float32)
        ground[place] += ink[..., None] * (colour - ground[place])
        labels[place][ink > RIM] = 0
        labels[place][ink > STROKE] = FIRST_DIGIT + scans[path]
        used.append(path)
    return ground.round().clip(0, 255).astype(np.uint8), labels, used


def write_scenes(digits: Path, root: Path, counts: dict[str, int]) -> dict[str, set[Path]]:
    """Write `images/SPLIT/*.jpg` and `annotations/SPLIT/*.png`.

    What is in them depends on nothing but the arguments.

    Args:
        digits: Folder with `train/CLASS/*.png` and `val/CLASS/*.png`.
        root: Folder to write to.
        counts: Pictures of 'training' and of 'validation'.

    Returns:
        The scans that are in the pictures of each split.

    Raises:
        FileNotFoundError: There are no scans.
    """
    used = {}
    for number, (split, folder) in enumerate((('training', 'train'), ('validation', 'val'))):
        scans = {path: int(path.parent.name) for path in sorted((digits / folder).glob('*/*.png'))}
        if not scans:
            raise FileNotFoundError(f'no digits in {digits / folder}: write them with dataset_converters/digits.py')
        draw, photos, used[split] = np.random.default_rng(number), photographs(split), set()
        for kind in ('images', 'annotations'):
            (root / kind / split).mkdir(parents=True, exist_ok=True)
        for i in range(counts[split]):
            pixels, labels, paths = compose(scans, photos, draw)
            used[split].update(paths)
            Image.fromarray(pixels).save(root / 'images' / split / f'{i:04}.jpg', quality=95)
            Image.fromarray(labels).save(root / 'annotations' / split / f'{i:04}.png')
    return used


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('digits', type=Path, help='folder that digits.py has written')
    parser.add_argument('root', type=Path, help='folder to write to')
    parser.add_argument('--training', type=int, default=100, help='pictures to train on')
    parser.add_argument('--validation', type=int, default=200, help='pictures to evaluate on')
    args = parser.parse_args(argv)
    counts = dict(training=args.training, validation=args.validation)
    used = write_scenes(args.digits, args.root, counts)
    print(
        f'{args.root}: {args.training} pictures of {len(used["training"])} scans to train on, '
        f'{args.validation} of {len(used["validation"])} other scans to evaluate on'
    )


if __name__ == '__main__':
    main()
