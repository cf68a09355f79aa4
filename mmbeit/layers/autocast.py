"""What precision arithmetic has."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor


def no_autocast(x: Tensor) -> AbstractContextManager:
    """Where operations on `x` and its like run in the dtype that they have. There is no autocast for 'meta' anyway."""
    device = x.device.type
    return torch.autocast(device, enabled=False) if torch.amp.is_autocast_available(device) else nullcontext()


@contextmanager
def tf32_products(x: Tensor) -> Iterator[None]:
    """Where products of float32 matrices on the GPU of `x` may round their factors to TF32, with 10 bits of mantissa.

    Sums stay in float32. Elsewhere, and on GPUs without TF32, nothing changes.
    """
    if x.device.type != 'cuda':
        yield
        return
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision('high')
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def multiplies_bfloat16() -> bool:
    """Whether the processor multiplies bfloat16 matrices by itself; emulation is slower than float32."""
    return bool(bfloat16_instructions())


def bfloat16_instructions() -> list[str]:
    """By which sets of instructions it does."""
    capabilities = getattr(torch.cpu, 'get_capabilities', dict)()
    return [name for name in ('avx512_bf16', 'amx_bf16', 'bf16') if capabilities.get(name)]
