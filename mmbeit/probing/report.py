"""What probes have measured, as a table, as a picture and as JSON."""

from dataclasses import asdict
from math import sqrt

import matplotlib.figure
from rich.table import Table

from mmbeit.probing.run import Probed
from mmbeit.probing.task import Measured

COLORS = {'linear': 'tab:blue', 'knn': 'tab:orange', 'attentive': 'tab:green'}
NAMES = {'linear': 'linear', 'knn': 'kNN', 'attentive': 'attentive'}


def standard_error(percent: float, count: int) -> float:
    """Of an accuracy in percent that was measured on so many images, in points.

    It is that of one image more that is right and one that is wrong (Laplace): with few images, all of which are
    right, it is not 0.
    """
    share = (percent / 100 * count + 1) / (count + 2)
    return 100 * sqrt(share * (1 - share) / (count + 3))


def to_dict(probed: Probed) -> dict:
    """All of it, for a file."""
    content = asdict(probed)
    content['measured'] = {one.probe: asdict(one) for one in probed.measured}
    return content


def by_setting(one: Measured) -> Table:
    """Accuracy on the held-out images of every block and setting; a star marks what is chosen for a block."""
    table = Table(title=f'{NAMES[one.probe]}: accuracy (%) on held-out training images', title_justify='left')
    table.add_column(f'{one.setting}\nblock', justify='right')
    for setting in one.settings:
        table.add_column(f'{setting:g}', justify='right')
    for block, accuracies, chosen in zip(one.blocks, one.held_out, one.chosen, strict=True):
        marks = ['*' if setting == chosen else ' ' for setting in one.settings]
        table.add_row(str(block), *(f'{value:.1f}{mark}' for value, mark in zip(accuracies, marks, strict=True)))
    return table


def by_block(probed: Probed, title: str) -> Table:
    """Accuracy of every block by every probe; a star marks the best block."""
    table = Table(title=title, title_justify='left')
    table.add_column('block', justify='right')
    for one in probed.measured:
        table.add_column(f'{NAMES[one.probe]}\n{one.setting}', justify='right')
        table.add_column(f'{NAMES[one.probe]}\nval (%)', justify='right')
    for block in range(probed.num_blocks):
        cells = []
        for one in probed.measured:
            found = one.of_block(block) if block in one.blocks else None
            mark = '*' if block == one.best else ' '
            cells += [f'{found.setting:g}', f'{found.val:.1f}{mark}'] if found else ['', '']
        table.add_row(str(block), *cells)
    return table


def sentences(probed: Probed) -> list[str]:
    """What was measured on what, and a line for each probe: its best block, and what one should know of it."""
    lines = [
        f'{probed.num_train:,} images of {probed.num_classes} classes to train on; {probed.num_held_out:,} of them, '
        f'held out at first, choose what has a star. Then all are trained on, and {probed.num_val:,} others give val.'
    ]
    for one in probed.measured:
        setting, held_out, val = one.of_block(one.best)
        errors = standard_error(held_out, probed.num_held_out), standard_error(val, probed.num_val)
        line = (
            f'{NAMES[one.probe]}: block {one.best}, {one.setting} {setting:g}: {val:.1f} % of val '
            f'(standard errors {errors[1]:.1f}, of the choice {errors[0]:.1f})'
        )
        if one.setting == 'rate' and len(one.settings) > 1 and setting in (min(one.settings), max(one.settings)):
            end = 'smallest' if setting == min(one.settings) else 'largest'
            line += f'; that is the {end} rate of the sweep, so try others'
        lines.append(line)
    if probed.skipped:
        lines.append(f'images that could not be read, and are left out: {len(probed.skipped)}')
    return lines


def draw(probed: Probed, title: str) -> matplotlib.figure.Figure:
    """Accuracy by block: a line for each probe, dashed on held-out images, with a ring around its best block."""
    figure = matplotlib.figure.Figure(figsize=(max(8, 0.35 * probed.num_blocks + 4), 4), layout='constrained')
    axes = figure.subplots()
    for one in probed.measured:
        best = one.of_block(one.best)
        style = dict(color=COLORS[one.probe], marker='o', markersize=4)
        label = f'{NAMES[one.probe]}: {best.val:.1f} at block {one.best}'
        axes.plot(one.blocks, one.val, **style, label=label)
        held_out = [one.of_block(block).held_out for block in one.blocks]
        axes.plot(one.blocks, held_out, **style, linestyle='--', alpha=0.4)
        axes.plot([one.best], [best.val], 'o', color=COLORS[one.probe], markersize=12, fillstyle='none')
    axes.set_xlabel('block')
    axes.set_ylabel('top-1 accuracy (%)')
    axes.set_xticks(range(0, probed.num_blocks, max(1, probed.num_blocks // 12)))
    axes.margins(y=0.1)
    axes.grid(alpha=0.3)
    figure.suptitle(title, fontsize=10)
    figure.legend(loc='outside right center', fontsize=9, title='val (dashed: held out)', title_fontsize=9)
    return figure
