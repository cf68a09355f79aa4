"""Parameters and FLOPs of a config's model: `python tools/get_flops.py CONFIG`. Needs no weights."""

import argparse

from mmengine.config import Config, DictAction
from mmengine.logging import MMLogger
from rich.console import Console
from rich.table import Table

from mmbeit.apis.complexity import Complexity, build_on_meta, complexity, image_size
from mmbeit.engine.config import check_override, find_config
from mmbeit.engine.errors import readable_errors


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Parameters and FLOPs of a model')
    parser.add_argument('config', help='path of a config, or name of one of mmbeit')
    parser.add_argument(
        '--shape', type=int, nargs='+', metavar='PIXELS', help="height and width of the image (the backbone's img_size)"
    )
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, default={}, metavar='KEY=VALUE')
    args = parser.parse_args(argv)
    if args.shape and len(args.shape) > 2:
        parser.error(f'--shape takes one or two numbers, not {len(args.shape)}')
    return args


def table(name: str, size: tuple[int, int], cost: Complexity) -> Table:
    table = Table(title=f'{name}, {size[0]} x {size[1]} pixels', title_justify='left')
    table.add_column('parameters')
    table.add_column('', justify='right')
    table.add_column('FLOPs', overflow='fold')
    table.add_column('', justify='right')
    parameters = [(part or 'other', f'{count:,}') for part, count in cost.parameters.items()]
    flops = [(op, f'{count:,}') for op, count in cost.flops.items()]
    height = max(len(parameters), len(flops))
    for left, right in zip(
        *(column + [('', '')] * (height - len(column)) for column in (parameters, flops)), strict=True
    ):
        table.add_row(*left, *right)
    table.add_section()
    table.add_row('all', f'{cost.num_parameters:,}', 'all', f'{cost.num_flops:,}')
    table.add_row('', f'{cost.num_parameters / 1e6:.2f} M', '', f'{cost.num_flops / 1e9:.2f} G')
    table.caption = (
        'One multiply-add is one FLOP, a norm five for each element. Of the features: without the classifier.'
    )
    return table


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    with readable_errors():
        path = find_config(args.config)
        cfg = Config.fromfile(path)
        for key in args.cfg_options:
            check_override(cfg, key)
        cfg.merge_from_dict(args.cfg_options)
        try:
            size = (args.shape[0], args.shape[-1]) if args.shape else image_size(cfg)
        except ValueError as error:
            raise ValueError(f'{error} with --shape') from None
        MMLogger.get_current_instance().setLevel('WARNING')
        cost = complexity(build_on_meta(cfg), size)
    Console().print(table(path.stem, size, cost))


if __name__ == '__main__':
    main()
