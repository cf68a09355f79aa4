"""Write scikit-learn's scans of handwritten digits as a folder of images.

`python tools/dataset_converters/digits.py data/digits`

1,797 scans of 8 x 8 pixels and 17 grey levels, by 43 writers (the test set of the UCI collection "Optical Recognition
of Handwritten Digits"). They come with scikit-learn, so nothing is downloaded.
"""

import argparse
import random
from collections import defaultdict
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

NUM_VAL_PER_CLASS = 36


def write_digits(root: Path, labelled_per_class: int = 5, num_splits: int = 3) -> dict[str, int]:
    """Write `train/CLASS/*.png`, `val/CLASS/*.png`, and lists of few labelled training images, `labelled_SPLIT.txt`.

    Which images are held out and which are labelled depends on nothing but the arguments.

    Args:
        root: Folder to write to.
        labelled_per_class: Images of each digit in a list.
        num_splits: Lists to write, each a different draw.

    Returns:
        Number of images in `train`, `val` and each list.
    """
    data = load_digits()
    members = defaultdict(list)
    for number, (image, label) in enumerate(zip(data.images, data.target, strict=True)):
        members[int(label)].append((number, image))
    train = {}
    count = {'train': 0, 'val': 0, 'labelled': 10 * labelled_per_class}
    for label, images in sorted(members.items()):
        random.Random(label).shuffle(images)
        train[label] = [f'{label}/{number:04}.png' for number, _ in images[NUM_VAL_PER_CLASS:]]
        for i, (number, image) in enumerate(images):
            split = 'val' if i < NUM_VAL_PER_CLASS else 'train'
            path = root / split / str(label) / f'{number:04}.png'
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.round(image * 255 / 16).astype(np.uint8)).save(path)
            count[split] += 1
    for split in range(num_splits):
        draw = random.Random(split)
        lines = [f'{name} {label}' for label, names in train.items() for name in draw.sample(names, labelled_per_class)]
        (root / f'labelled_{split}.txt').write_text('\n'.join(lines) + '\n')
    return count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('root', type=Path, help='folder to write to')
    parser.add_argument('--labelled-per-class', type=int, default=5)
    parser.add_argument('--num-splits', type=int, default=3)
    args = parser.parse_args()
    count = write_digits(args.root, args.labelled_per_class, args.num_splits)
    print(
        f'{args.root}: {count["train"]} images to train on, {count["val"]} to evaluate, '
        f'{args.num_splits} lists of {count["labelled"]} labelled ones'
    )


if __name__ == '__main__':
    main()
