"""Cases of inference."""

from collections.abc import Callable
from functools import partial

import torch
from measure import COMPILED, Case, Contender, Setting
from models import CLASSIFIERS, logits_of
from segmentors import SEGMENTORS
from torch import Tensor

from mmbeit.layers.kernels import AUTO, set_attention_kernel

SIZES = (224, 384, 512, 1024)  # of the images
LARGE_BATCH = {'cpu': {224: 8, 384: 4, 512: 2}, 'cuda': {224: 256, 384: 64, 512: 32, 1024: 8}}
DEVICES = tuple(LARGE_BATCH)


def contender(run: Callable[[Tensor], Tensor], img_size: int, count: int, setting: Setting) -> Contender:
    """What `run` makes of so many random images."""
    torch.manual_seed(0)
    images = torch.randn(count, 3, img_size, img_size, device=setting.device)

    @torch.inference_mode()
    def step() -> Tensor:
        with setting.autocast():
            return run(images)

    return Contender(step, count, lambda: step().float())


def classification(img_size: int, large_batch: bool, peer: str, setting: Setting) -> Contender:
    name = peer.removesuffix(COMPILED)
    model = CLASSIFIERS[name](setting.arch('base'), img_size).to(setting.device).eval()
    run = torch.compile(model) if peer.endswith(COMPILED) else model
    count = setting.batch_of(LARGE_BATCH[setting.device][img_size]) if large_batch else 1
    return contender(lambda images: logits_of(run, images), img_size, count, setting)


def segmentation(img_size: int, peer: str, setting: Setting) -> Contender:
    side = 64 if setting.quick else img_size
    model = SEGMENTORS[peer](setting.arch('base'), side).to(setting.device).eval()
    return contender(model, side, 1, setting)


def by_kernel(img_size: int, kernel: str, setting: Setting) -> Contender:
    chosen = classification(img_size, False, 'mmbeit', setting)

    def step() -> Tensor:
        set_attention_kernel(kernel)
        try:
            return chosen.step()
        finally:
            set_attention_kernel(AUTO)

    return Contender(step, chosen.items, lambda: step().float())


def kernels_case(img_size: int) -> Case:
    names = {'mmbeit': AUTO, **{f'mmbeit, {kernel}': kernel for kernel in ('whole', 'rows', 'flex')}}
    return Case(
        f'kernels-{img_size}',
        f'Classification by BEiT base at {img_size}, one image, by each kernel of attention',
        {name: partial(by_kernel, img_size, kernel) for name, kernel in names.items()},
        quick=False,
    )


def case(img_size: int, large_batch: bool, compiled: bool = False) -> Case:
    peers = list(CLASSIFIERS)
    if compiled:
        peers = [peer + COMPILED for peer in ('mmbeit', 'timm', 'transformers')]
    return Case(
        f'inference-{img_size}' + ('-batch' if large_batch else '') + ('-compiled' if compiled else ''),
        f'Classification by BEiT base at {img_size}, '
        + ('a batch' if large_batch else 'one image')
        + (', all compiled' if compiled else ''),
        {peer: partial(classification, img_size, large_batch, peer) for peer in peers},
        devices=tuple(device for device in DEVICES if not large_batch or img_size in LARGE_BATCH[device]),
        quick=img_size == 224 and not compiled,
    )


def segmentation_case(img_size: int) -> Case:
    return Case(
        f'inference-{img_size}-segmentation',
        f'Segmentation by UPerNet on BEiT base at {img_size}, one image',
        {peer: partial(segmentation, img_size, peer) for peer in SEGMENTORS},
        devices=DEVICES if img_size < 1024 else ('cuda',),  # on a CPU a few turns would take minutes
        quick=img_size == 512,
    )


CASES = [case(size, large) for size in SIZES for large in (False, True)]
CASES += [case(size, large, compiled=True) for size, large in ((224, False), (224, True), (1024, True))]
CASES += [segmentation_case(size) for size in (512, 1024)]
CASES += [kernels_case(size) for size in SIZES]
