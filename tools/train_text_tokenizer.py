"""Train a text tokenizer: `python tools/train_text_tokenizer.py captions.txt --out own.spm --vocab-size 8000`.

From plain text, a sentence or a caption in each line, of any language. The result has the kind of BEiT-3's own
(unigram, cased) and is named by `tokenizer` in configs; the `vocab_size` that it prints is that of the encoder. Weights
that were trained with another tokenizer make no sense with it.
"""

import argparse
import re
from pathlib import Path

from mmbeit.engine.errors import readable_errors
from mmbeit.text_tokenizer import OFFSET, TextTokenizer


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Train a text tokenizer of the kind of BEiT-3')
    parser.add_argument('texts', nargs='+', type=Path, metavar='TEXT', help='file with a text in each line')
    parser.add_argument('--out', type=Path, required=True, help='file to write, such as own.spm')
    parser.add_argument('--vocab-size', type=int, default=64002, help='ids in all, special ones included (64002)')
    parser.add_argument('--coverage', type=float, default=0.9995, help='share of the characters to have (0.9995)')
    return parser.parse_args(argv)


def train(texts: list[Path], out: Path, vocab_size: int, coverage: float = 0.9995) -> TextTokenizer:
    """Train a tokenizer and open it.

    Args:
        texts: Files with a text in each line.
        out: File to write, complete or not at all.
        vocab_size: Ids in all, special ones included.
        coverage: Share of the characters of the texts that get a piece; 1.0 for small alphabets.

    Raises:
        FileNotFoundError: There is no such file or folder.
        ValueError: The texts do not hold as many pieces; the message says how many they do.
    """
    import sentencepiece

    for path in texts:
        if not path.is_file():
            raise FileNotFoundError(f'no such file: {path}')
    if not out.parent.is_dir():
        raise FileNotFoundError(f'no such folder: {out.parent}')
    draft = out.with_name(f'.{out.name}')
    try:
        with draft.open('wb') as file:
            sentencepiece.SentencePieceTrainer.train(
                input=','.join(map(str, texts)),
                model_writer=file,
                vocab_size=vocab_size - OFFSET - 1,
                model_type='unigram',
                character_coverage=coverage,
                unk_id=0,
                bos_id=1,
                eos_id=2,
                pad_id=-1,
                minloglevel=1,
            )
        draft.replace(out)
    except RuntimeError as error:
        if most := re.search(r'Please set it to a value <= (\d+)', str(error)):
            most = int(most[1]) + OFFSET + 1
            raise ValueError(f'vocab_size {vocab_size} is too much for these texts: expected at most {most}') from error
        raise ValueError(f'cannot train {out}: {" ".join(str(error).split())}') from error
    finally:
        draft.unlink(missing_ok=True)
    return TextTokenizer(out)


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    with readable_errors():
        tokenizer = train(args.texts, args.out, args.vocab_size, args.coverage)
    print(f'{args.out}: vocab_size={tokenizer.vocab_size}, <mask> is {tokenizer.mask_id}')


if __name__ == '__main__':
    main()
