"""Cases of training: a forward pass, a backward pass, and a step of AdamW."""

from collections.abc import Callable
from functools import partial

import torch
from measure import COMPILED, Case, Contender, Setting
from mmpretrain.structures import DataSample
from models import CLASSIFIERS, NUM_ANSWERS, PRETRAINING, V2_PEERS, answerer, logits_of, tokenizer
from segmentors import NUM_CLASSES, SEGMENTORS
from torch import Tensor, nn

from mmbeit.engine.compiling import compile_blocks

NUM_MASKED = 75  # of 196, in the papers
DROP_PATH = 0.1  # of the last block: in pretraining (of v2 base, that of 1600 epochs), and of base in fine-tuning
BATCH = {'cpu': {'base': 4, 'large': 2}, 'cuda': {'base': 128, 'large': 64}}


def batch_size(setting: Setting, arch: str) -> int:
    return setting.batch_of(BATCH[setting.device][arch])


def training_step(model: nn.Module, loss: Callable[[], Tensor], setting: Setting) -> Callable[[], None]:
    """What `Runner` does in a step, for any model: gradients are set to None, parameters are of float32."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6, fused=True)

    def step() -> None:
        with setting.autocast():
            value = loss()
        value.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def training(model: nn.Module, loss: Callable[[], Tensor], items: int, setting: Setting) -> Contender:
    @torch.no_grad()
    def output() -> Tensor:
        model.eval()  # what drop path leaves out is drawn in another order by everybody
        with setting.autocast():
            value = loss()
        model.train()
        return value

    return Contender(training_step(model, loss, setting), items, output)


def masks(count: int, patches: int = 196, device: str = 'cpu') -> Tensor:
    """Random masks (count, patches) bool of as many patches each: where they are does not change the time."""
    order = torch.rand(count, patches).argsort(dim=1)
    return (order < NUM_MASKED).to(device)


def pretraining(arch: str, version: int, peer: str, setting: Setting) -> Contender:
    model = PRETRAINING[peer.removesuffix(COMPILED)](setting.arch(arch), version, DROP_PATH).to(setting.device).train()
    if peer == 'mmbeit' + COMPILED:
        compile_blocks(model)
    elif peer.endswith(COMPILED):
        model = torch.compile(model)
    torch.manual_seed(0)
    count = batch_size(setting, arch)
    view = torch.randn(count, 3, 224, 224, device=setting.device)
    mask, ids = masks(count, device=setting.device), torch.randint(0, 8192, (count, 196), device=setting.device)
    return training(model, lambda: model(view, mask, ids), count, setting)


def finetuning(arch: str, peer: str, setting: Setting) -> Contender:
    model = CLASSIFIERS[peer](setting.arch(arch), 224, DROP_PATH).to(setting.device).train()
    torch.manual_seed(0)
    count = batch_size(setting, arch)
    images = torch.randn(count, 3, 224, 224, device=setting.device)
    labels = torch.randint(0, 1000, (count,), device=setting.device)
    loss = lambda: nn.functional.cross_entropy(logits_of(model, images), labels)  # noqa: E731
    return training(model, loss, count, setting)


def segmenting(peer: str, setting: Setting) -> Contender:
    from mmengine.structures import PixelData
    from mmseg.structures import SegDataSample

    side = 64 if setting.quick else 512
    model = SEGMENTORS[peer](setting.arch('base'), side).to(setting.device)
    model.train()  # of which mmseg's returns nothing
    torch.manual_seed(0)
    count = setting.batch_of(2)  # of a GPU, officially
    images = torch.randn(count, 3, side, side, device=setting.device)
    labels = torch.randint(0, NUM_CLASSES, (count, 1, side, side), device=setting.device)
    samples = [SegDataSample(gt_sem_seg=PixelData(data=label)) for label in labels]
    return training(model, lambda: total(model.loss(images, samples)), count, setting)


def distilling(setting: Setting) -> Contender:
    model = tokenizer(setting.arch('base')).to(setting.device).train()
    count = batch_size(setting, 'base')
    images = torch.rand(count, 3, 224, 224, device=setting.device)
    return training(model, lambda: total(model(images, mode='loss')), count, setting)


def answering(setting: Setting) -> Contender:
    side, num_words = (64, 8) if setting.quick else (480, 16)
    model = answerer(setting.arch('base'), side).to(setting.device).train()
    count = batch_size(setting, 'base') if setting.device == 'cpu' else setting.batch_of(16)
    images = torch.randn(count, 3, side, side, device=setting.device)
    samples = []
    for _ in range(count):
        samples.append(DataSample())
        samples[-1].set_field(torch.randint(4, 64001, (num_words,)), 'text_ids')
        samples[-1].set_field(torch.rand(NUM_ANSWERS).round(), 'gt_score')
    return training(model, lambda: total(model(images, samples, mode='loss')), count, setting)


def total(losses: dict[str, Tensor]) -> Tensor:
    return sum(value.mean() for name, value in losses.items() if 'loss' in name)


def pretraining_case(arch: str, version: int, compiled: bool = False) -> Case:
    peers = V2_PEERS if version == 2 else PRETRAINING
    if compiled:
        peers = [peer + COMPILED for peer in ('mmbeit', 'timm', 'transformers')]
    return Case(
        f'pretraining-v{version}-{arch}' + ('-compiled' if compiled else ''),
        f'A step of pretraining BEiT v{version} {arch}, drop path {DROP_PATH}, visual tokens given'
        + (', all compiled' if compiled else ''),
        {peer: partial(pretraining, arch, version, peer) for peer in peers},
        quick=arch == 'base' and not compiled,
    )


CASES = [
    *(pretraining_case(arch, version) for arch in ('base', 'large') for version in (1, 2)),
    pretraining_case('base', 1, compiled=True),
    Case(
        'finetuning-base',
        f'A step of fine-tuning BEiT base on ImageNet, drop path {DROP_PATH}',
        {peer: partial(finetuning, 'base', peer) for peer in CLASSIFIERS},
    ),
    Case(
        'segmentation-512',
        'A step of training UPerNet on BEiT base, two crops of 512',
        {peer: partial(segmenting, peer) for peer in SEGMENTORS},
    ),
    Case(
        'vqkd-base',
        'A step of training VQ-KD base on a teacher of its size, which no peer can',
        {'mmbeit': distilling},
    ),
    Case('vqa-base', 'A step of BEiT-3 base on VQA at 480, which no peer can', {'mmbeit': answering}),
]
