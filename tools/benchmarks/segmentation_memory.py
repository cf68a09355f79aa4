"""Memory of a forward pass of the base segmentation model, and of its peers: `segmentation_memory.py --out TABLE`.

Models have random weights, 12 blocks of width 768, patches of 16 pixels and tables for 640 pixels; a batch is one
image, in float32, in eval mode, without gradients. Every measurement is a process of its own. It builds the model,
sends an image of 64 pixels through it where the model takes that, so that libraries are loaded, and resets Linux's
record of the peak (`/proc/self/clear_refs`). The peak is how far the resident set rises during the forward pass above
what it was just before, weights included in the latter; kept is what remains of that without the output.

The address space is limited to --limit above what a process has before the model is built, and again before the forward
pass; what needs more ends with an error of the allocator, and is in the table as such. Larger images of that model are
not tried then.
"""

import argparse
import gc
import json
import resource
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path

import torch
from torch import Tensor

from mmbeit import get_model  # first: torchvision may need its help to be imported by the others

GIB = 1 << 30
WARM_UP = 64  # pixels
SIZES = (512, 768, 1024, 1280, 1536, 2048)
RECIPE = 'beit-base-p16_beit-in21k-pre_upernet_8xb2-160k_ade20k-640x640'
PEER_RECIPE = 'beit-base_upernet_8xb2-160k_ade20k-640x640.py'
Forward = Callable[[Tensor], object]


# ---- the models: of a size in pixels, whole or the backbone alone ----


def build_mmbeit(size: int, whole: bool) -> Forward:
    """Ours, with tables for 640 pixels at any size."""
    model = get_model(RECIPE)
    return model if whole else model.backbone


def build_mmseg_at_640(size: int, whole: bool) -> Forward:
    """mmseg's, with tables for 640 pixels at any size."""
    return build_mmseg(640, whole)


def build_mmseg(size: int, whole: bool) -> Forward:
    """mmseg's, built for the size of the image."""
    import mmseg.models  # noqa: F401  registers them
    from mmengine.config import Config
    from mmengine.registry import DefaultScope
    from mmengine.utils import get_installed_path
    from mmseg.registry import MODELS

    cfg = Config.fromfile(Path(get_installed_path('mmseg')) / '.mim' / 'configs' / 'beit' / PEER_RECIPE).model
    cfg.pretrained = None
    cfg.backbone.img_size = (size, size)
    for part in (cfg.neck, cfg.decode_head, cfg.auxiliary_head):
        part.norm_cfg = dict(type='BN')  # in eval mode what SyncBN does, which refuses CPUs
    with DefaultScope.overwrite_default_scope('mmseg'):
        model = MODELS.build(cfg)
    model.eval()  # of which theirs returns nothing
    return model if whole else model.backbone


def build_transformers(size: int, whole: bool) -> Forward:
    """transformers', with tables for 640 pixels at any size; its default attention, torch's fused one."""
    from transformers import BeitBackbone, BeitConfig, BeitForSemanticSegmentation

    config = BeitConfig(
        image_size=640, num_labels=150, use_relative_position_bias=True, out_indices=[4, 6, 8, 12], layer_norm_eps=1e-6
    )
    return (BeitForSemanticSegmentation if whole else BeitBackbone)(config).eval()


BUILDERS = {
    'mmbeit': build_mmbeit,
    'mmseg at 640': build_mmseg_at_640,
    'mmseg rebuilt': build_mmseg,
    'transformers': build_transformers,
}


# ---- one measurement, in a process of its own ----


def status(name: str) -> int:
    """A line of /proc/self/status in bytes."""
    for line in Path('/proc/self/status').read_text().splitlines():
        if line.startswith(f'{name}:'):
            return int(line.split()[1]) * 1024
    raise KeyError(name)


def limit_memory(limit: float) -> None:
    """Let this process allocate so many GiB more than it has now."""
    resource.setrlimit(resource.RLIMIT_AS, (status('VmSize') + round(limit * GIB), resource.RLIM_INFINITY))


def first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


@torch.no_grad()
def measure(name: str, whole: bool, size: int, limit: float) -> dict:
    """Peak and remainder in bytes over the baseline, and seconds; or the first line of what went wrong."""
    torch.manual_seed(0)
    try:
        limit_memory(limit)
        forward = BUILDERS[name](size, whole)
    except (RuntimeError, MemoryError) as error:
        return dict(error=f'building it: {first_line(error)}')
    with suppress(RuntimeError):  # of a model built for one size
        forward(torch.randn(1, 3, WARM_UP, WARM_UP))
    image = torch.randn(1, 3, size, size)
    gc.collect()
    limit_memory(limit)
    Path('/proc/self/clear_refs').write_text('5')  # VmHWM starts again from what is resident
    before, start = status('VmRSS'), time.monotonic()
    try:
        output = forward(image)
    except (RuntimeError, MemoryError) as error:
        return dict(error=first_line(error))
    seconds, peak = time.monotonic() - start, status('VmHWM') - before
    del output
    gc.collect()
    return dict(peak=peak, kept=status('VmRSS') - before, seconds=seconds)


def in_own_process(name: str, whole: bool, size: int, limit: float) -> dict:
    command = [sys.executable, __file__, '--only', name, '--sizes', str(size), '--limit', str(limit)]
    done = subprocess.run([*command, *(['--whole'] if whole else [])], capture_output=True, text=True)
    if done.returncode:
        return dict(error=f'ended with status {done.returncode}: {(done.stderr.splitlines() or [""])[-1]}')
    return json.loads(done.stdout.splitlines()[-1])


# ---- the table ----


def cells(result: dict) -> str:
    if 'error' in result:
        return f'{result["error"]} | | '
    return f'{result["peak"] / GIB:.2f} | {max(result["kept"], 0) / GIB:.2f} | {result["seconds"]:.0f}'


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--only', choices=BUILDERS, help='measure one of them here and print a line of JSON')
    parser.add_argument('--models', nargs='+', choices=BUILDERS, default=list(BUILDERS))
    parser.add_argument('--sizes', nargs='+', type=int, default=SIZES, help='sides of the images in pixels')
    parser.add_argument('--whole', action='store_true', help='with neck and decoder, not the backbone alone')
    parser.add_argument('--limit', type=float, default=12, help='GiB that a forward pass may need')
    parser.add_argument('--out', type=Path, help='file to write the table to')
    args = parser.parse_args(argv)
    if args.only:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            print(json.dumps(measure(args.only, args.whole, args.sizes[0], args.limit)))
        return
    lines = ['| Model | Pixels | Tokens | Peak (GiB) | Kept (GiB) | s |', '|---|---|---|---|---|---|']
    print(*lines, sep='\n', flush=True)
    for name in args.models:
        for size in args.sizes:
            result = in_own_process(name, args.whole, size, args.limit)
            lines.append(f'| {name} | {size} | {(size // 16) ** 2 + 1} | {cells(result)} |')
            print(lines[-1], flush=True)
            if 'error' in result:
                break
    packages = ('torch', 'onedl-mmsegmentation', 'transformers')
    lines += ['', ', '.join(f'{package} {version(package)}' for package in packages)]
    print(lines[-1])
    if args.out:
        args.out.write_text('\n'.join(lines) + '\n')


if __name__ == '__main__':
    main()
