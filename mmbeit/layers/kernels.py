"""By which kernel attention with a learned position bias is computed. The outcome is the same but for rounding."""

MAX_KEPT = 2**24  # bytes of whole biases that a table keeps: one of 384 pixels at base size in float32
KERNELS = {
    'whole': "PyTorch's attention, the bias a tensor of all pairs of tokens",
    'own': 'likewise, with the gradient of the bias by ourselves',
    'rows': "PyTorch's attention, the bias made some rows at a time",
    'flex': 'FlexAttention, compiled, which looks up the bias of each pair in its table',
}
LEARNING = ('whole', 'own')  # those that give the bias a gradient
AUTO = 'auto'

_wanted = AUTO


def set_attention_kernel(name: str) -> None:
    """Have attention with a position bias computed by one kernel, wherever that is possible.

    'rows' and 'flex' need nothing of the size of all pairs, and give the bias no gradient: in training they are of no
    avail. 'own' is for training. By 'auto', which is the default, a bias that learns has 'own' on CPUs and 'whole'
    on GPUs; another one has 'whole' up to `MAX_KEPT` bytes, and 'rows' beyond.

    Args:
        name: 'auto', or one of `KERNELS`.

    Raises:
        ValueError: There is no such kernel.
    """
    global _wanted
    if name != AUTO and name not in KERNELS:
        raise ValueError(f'attention kernel {name!r} is not one of {(AUTO, *KERNELS)}')
    _wanted = name


def kernel_that_learns(device: str) -> str:
    """The kernel for a bias that a gradient is to reach, on a type of device, such as 'cuda'."""
    return _wanted if _wanted in LEARNING else ('own' if device == 'cpu' else 'whole')


def kernel_that_does_not(num_bytes: int) -> str:
    """The kernel for another bias, of so many bytes if it were whole."""
    if _wanted in KERNELS and _wanted != 'own':
        return _wanted
    return 'whole' if num_bytes <= MAX_KEPT else 'rows'
