"""Cases of inference."""

from functools import partial

import torch
from measure import COMPILED, Case, Contender, Setting
from models import CLASSIFIERS, logits_of

from mmbeit.layers.kernels import AUTO, set_attention_kernel

SIZES = {224: (1, 8), 384: (1, 4), 512: (1, 2), 1024: (1,)}  # of the images: batches
CUDA_BATCH = {224: 256, 384: 64, 512: 32, 1024: 8}


def classification(img_size: int, large_batch: bool, peer: str, setting: Setting) -> Contender:
    name = peer.removesuffix(COMPILED)
    model = CLASSIFIERS[name](setting.arch('base'), img_size).to(setting.device).eval()
    run = torch.compile(model) if peer.endswith(COMPILED) else model
    count = (CUDA_BATCH[img_size] if setting.device == 'cuda' else SIZES[img_size][-1]) if large_batch else 1
    torch.manual_seed(0)
    images = torch.randn(count, 3, img_size, img_size, device=setting.device)

    @torch.inference_mode()
    def step():
        with setting.autocast():
            return logits_of(run, images)

    return Contender(step, count, lambda: step().float())


def by_kernel(img_size: int, kernel: str, setting: Setting) -> Contender:
    contender = classification(img_size, False, 'mmbeit', setting)

    def step():
        set_attention_kernel(kernel)
        try:
            return contender.step()
        finally:
            set_attention_kernel(AUTO)

    return Contender(step, contender.items, lambda: step().float())


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
        quick=img_size == 224 and not compiled,
    )


CASES = [case(size, large) for size, batches in SIZES.items() for large in (False, True)[: len(batches)]]
CASES += [case(224, large, compiled=True) for large in (False, True)]
CASES += [kernels_case(size) for size in SIZES]
