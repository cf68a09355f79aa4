"""Write a folder of images that consist of few distinct patches, which a codebook easily collapses on.

`python tools/dataset_converters/tiles.py data/tiles`

Images of 16 x 16 pixels are drawn from a few flat greys, one for each 4 x 4 of them.
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

SIDE = 4  # tiles in a row, and pixels in the row of a tile


def write_tiles(root: Path, num_greys: int = 8, num_train: int = 1440, num_val: int = 360) -> None:
    """Write `train/*.png` and `val/*.png`. The images depend on nothing but the arguments.

    Args:
        root: Folder to write to.
        num_greys: Distinct patches, black and white included.
        num_train, num_val: Number of images.
    """
    draw = np.random.default_rng(0)
    greys = np.linspace(0, 255, num_greys).astype(np.uint8)
    for split, number in (('train', num_train), ('val', num_val)):
        (root / split).mkdir(parents=True, exist_ok=True)
        for i in range(number):
            tiles = greys[draw.integers(num_greys, size=(SIDE, SIDE))]
            image = tiles.repeat(SIDE, axis=0).repeat(SIDE, axis=1)
            Image.fromarray(image).save(root / split / f'{i:04}.png')


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('root', type=Path, help='folder to write to')
    parser.add_argument('--num-greys', type=int, default=8)
    args = parser.parse_args()
    write_tiles(args.root, args.num_greys)
    print(f'{args.root}: 1440 images to train on, 360 to evaluate, of {args.num_greys} distinct patches')


if __name__ == '__main__':
    main()
