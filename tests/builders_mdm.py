"""Tiny sources for masked data modeling: a folder of images, lines of text, lines of pairs, shards of pairs."""

import importlib.util
import io
import json
import random
import tarfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).parents[1]
WORDS = ('a', 'man', 'riding', 'the', 'big', 'wave', 'two', 'dogs', 'and', 'cats', 'red', 'green', 'dot', 'left', '.')


def sentence(seed: int) -> str:
    """Of six words and the number, so that every one is another."""
    return ' '.join([*random.Random(seed).choices(WORDS, k=6), str(seed)])


def png(seed: int, size: int = 40) -> bytes:
    """An image of random pixels, as a file."""
    pixels = np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, 'PNG')
    return file.getvalue()


def write_tar(path: Path, samples: Iterable[tuple[str, dict[str, bytes]]]) -> Path:
    """A shard of samples: a key, and the content of files by extension."""
    with tarfile.open(path, 'w') as tar:
        for key, files in samples:
            for extension, content in files.items():
                info = tarfile.TarInfo(f'{key}.{extension}')
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return path


def write_shards(folder: Path, num_shards: int, num_samples: int) -> str:
    """Shards of pairs `0000` to `<n>`; gives their names in braces, as WebDataset takes them."""
    folder.mkdir(parents=True, exist_ok=True)
    for shard in range(num_shards):
        numbers = range(shard * num_samples, (shard + 1) * num_samples)
        pairs = ((f'{i:04}', {'png': png(i), 'txt': sentence(i).encode()}) for i in numbers)
        write_tar(folder / f'{shard:02}.tar', pairs)
    return f'{folder}/{{00..{num_shards - 1:02}}}.tar'


def write_sources(folder: Path, num_images: int = 12, num_texts: int = 20, num_pairs: int = 10) -> Path:
    """`images/`, `texts.txt`, with a blank line after each fourth one, and `pairs.jsonl`, of the same images."""
    (folder / 'images').mkdir(parents=True)
    for i in range(num_images):
        (folder / 'images' / f'{i}.png').write_bytes(png(i))
    lines = [sentence(i) + ('\n' if i % 4 == 3 else '') for i in range(num_texts)]
    (folder / 'texts.txt').write_text('\n'.join(lines) + '\n')
    pairs = [{'image': f'images/{i % num_images}.png', 'text': sentence(i)} for i in range(num_pairs)]
    (folder / 'pairs.jsonl').write_text(''.join(json.dumps(pair) + '\n' for pair in pairs))
    return folder


def train_tokenizer(folder: Path) -> Path:
    """A text tokenizer of 60 ids; gives its file."""
    spec = importlib.util.spec_from_file_location('train_text_tokenizer', ROOT / 'tools' / 'train_text_tokenizer.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    texts = folder / 'sentences.txt'
    texts.write_text('\n'.join(sentence(i) for i in range(300)))
    module.train([texts], folder / 'own.spm', vocab_size=60, coverage=1.0)
    return folder / 'own.spm'
