"""Convert a checkpoint of the BEiT family: `python tools/convert_checkpoint.py SRC DST --to hf`.

SRC is a file, a folder of transformers, or hf://owner/name, in any format: official (microsoft/unilm), hf
(transformers), timm, mmpretrain, mmseg, or mmbeit. DST is a file (.pth or .safetensors), for hf a folder. Only weights
are written; what was written is read again and compared tensor by tensor.
"""

import argparse

from mmbeit.checkpoint.formats import FORMATS, to_ours, unwrap
from mmbeit.checkpoint.load import CheckpointError, read_weights
from mmbeit.checkpoint.mmengine_loader import RUNNER_GLOBALS
from mmbeit.checkpoint.save import HALF, save_state
from mmbeit.engine.errors import readable_errors


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Convert a checkpoint of the BEiT family')
    parser.add_argument('source', metavar='SRC', help='file, folder of transformers, or hf://owner/name')
    parser.add_argument('target', metavar='DST', help='file to write; a new folder for hf')
    parser.add_argument('--to', required=True, choices=FORMATS, help='format to write')
    parser.add_argument('--from', dest='origin', default='auto', choices=('auto', *FORMATS), help='format of SRC')
    parser.add_argument('--ema', action='store_true', help='take the average of the weights that SRC holds')
    parser.add_argument('--publish', action='store_true', help='add the first 8 digits of the sha256 to the name')
    parser.add_argument('--num-heads', type=int, help='for hf, where there are no relative positions (of 64 channels)')
    parser.add_argument('--mean', type=float, nargs=3, default=HALF, help='for the processor of hf (0.5 0.5 0.5)')
    parser.add_argument('--std', type=float, nargs=3, default=HALF, help='for the processor of hf (0.5 0.5 0.5)')
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    with readable_errors():
        content = read_weights(args.source, allowed=RUNNER_GLOBALS)
        try:
            state, found = to_ours(unwrap(content, args.ema), args.origin)
        except CheckpointError as error:
            raise CheckpointError(f'{args.source}: {error}') from error
        path = save_state(state, found.kind, args.target, args.to, args.publish, args.num_heads, args.mean, args.std)
    print(f'{path}: {found.kind}, {found.name} to {args.to}, {len(state)} tensors, read back and compared')
    if (found.kind, args.to) == ('segmentor', 'hf'):
        print(
            'transformers will segment with it otherwise than it was trained to: it takes each feature map two blocks '
            'too early, and cannot take the last one at all; see transformers_config in mmbeit/checkpoint/save.py'
        )


if __name__ == '__main__':
    main()
