"""The one table of model sizes."""

from typing import NamedTuple


class Arch(NamedTuple):
    """Size of a transformer. The field names are the keys of a custom `arch` dict in a config."""

    embed_dims: int
    num_layers: int
    num_heads: int
    feedforward_channels: int


ARCHS = {
    'tiny': Arch(192, 12, 3, 768),  # ours, the sizes of DeiT: there is no official BEiT of this size
    'small': Arch(384, 12, 6, 1536),  # ours
    'base': Arch(768, 12, 12, 3072),
    '24x544': Arch(544, 24, 16, 2176),  # unilm:beit2/modeling_finetune.py, base's parameters in twice the depth
    'large': Arch(1024, 24, 16, 4096),
    'huge': Arch(1280, 32, 16, 5120),
    'giant': Arch(1408, 40, 16, 6144),
}


def resolve_arch(arch: str | dict) -> Arch:
    """Look a size up by name, or read it from a dict with exactly the fields of :class:`Arch`.

    Raises:
        ValueError: An unknown name, a wrong set of keys, or a width that the number of heads does not divide.
    """
    if isinstance(arch, str):
        if arch not in ARCHS:
            raise ValueError(f'unknown arch {arch!r}: expected one of {", ".join(ARCHS)}, or a dict')
        return ARCHS[arch]
    if set(arch) != set(Arch._fields):
        raise ValueError(f'arch has keys {sorted(arch)}, expected {sorted(Arch._fields)}')
    size = Arch(**arch)
    if size.embed_dims % size.num_heads:
        raise ValueError(f'embed_dims ({size.embed_dims}) must be divisible by num_heads ({size.num_heads})')
    return size
