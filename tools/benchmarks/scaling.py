"""Cases of growth: how time and memory grow with the image, the batch and the depth."""

from functools import partial

import torch
from measure import Case, Contender, Setting, UnableError
from models import classifier, logits_of

from mmbeit.archs import resolve_arch

SIDES = (224, 384, 512, 768, 1024, 1536, 2048)
LARGEST = {'cpu': 1024, 'cuda': 2048}
BATCHES = (1, 2, 4, 8)
DEPTHS = (3, 6, 12, 24)


def inference(setting: Setting, side: int = 224, batch: int = 1, depth: int = 12) -> Contender:
    """Base, but for the depth.

    Raises:
        UnableError: The image is so large that a forward pass takes minutes.
    """
    if side > LARGEST[setting.device]:
        raise UnableError(f'not tried on {setting.device}')
    arch = {**resolve_arch(setting.arch('base'))._asdict(), 'num_layers': depth}
    model = classifier(arch, side).to(setting.device).eval()
    images = torch.randn(batch, 3, side, side, device=setting.device)

    @torch.inference_mode()
    def step() -> torch.Tensor:
        with setting.autocast():
            return logits_of(model, images)

    return Contender(step, batch)


CASES = [
    Case(
        f'scaling-{name}',
        f'Classification by BEiT base: {title}',
        {f'{value}{unit}': partial(inference, **{argument: value}) for value in values},
        growth=True,
        quick=argument == 'depth',
    )
    for name, title, argument, values, unit in (
        ('tokens', 'one image of so many pixels on a side', 'side', SIDES, ' px'),
        ('batch', 'so many images', 'batch', BATCHES, ''),
        ('depth', 'one image, so many blocks', 'depth', DEPTHS, ' blocks'),
    )
]
