"""What the visual tokens of a pretraining recipe depend on, and the same recipe on stored tokens."""

import hashlib
import inspect
import json
import os
from collections.abc import Iterator
from importlib.metadata import version

from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.registry import MODELS, DefaultScope

from mmbeit.datasets.samplers import seeded
from mmbeit.datasets.tokens import TokenFolder
from mmbeit.datasets.transforms.fast import on_the_way
from mmbeit.datasets.transforms.seed import generators_kept
from mmbeit.models.target_generators.base import TargetGenerator

Steps = list[dict]
LIBRARIES = ('numpy', 'Pillow', 'torch', 'torchvision')
CROP = 'mmbeit.RandomResizedCropTwoViews'
CROPPING_LOADER = 'mmbeit.LoadTwoViews'
CENTER = 0.875  # of the short side, officially (unilm:beit2/test_get_code.py)
NUM_REPLAYED = 4


def build_tokenizer(cfg: Config) -> TargetGenerator:
    """The tokenizer that a recipe names, with its weights, on the CPU.

    Raises:
        ValueError: It names none, or one that gives features and no ids.
    """
    generator = cfg.model.get('target_generator')
    if not generator:
        raise ValueError('the config has no model.target_generator: expected a recipe of masked image modeling')
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope', 'mmengine')):
        tokenizer = MODELS.build(generator)
    if not hasattr(tokenizer, 'num_codes'):
        raise ValueError(f'model.target_generator is {generator.type}, which gives no ids')
    tokenizer.init_weights()
    return tokenizer


def identify(tokenizer: TargetGenerator, cfg: dict) -> dict:
    """What tells a tokenizer from another: its type, its arguments and the sha256 of its weights.

    A decoder only draws pictures, and does not count.
    """
    parameters = inspect.signature(type(tokenizer)).parameters.values()
    arguments = {p.name: cfg.get(p.name, p.default) for p in parameters if p.name not in ('init_cfg', 'decoder')}
    digest = hashlib.sha256()
    for key, tensor in sorted(tokenizer.state_dict().items()):
        if not key.startswith('decoder.'):
            digest.update(f'{key} {tensor.dtype} {tuple(tensor.shape)}\n'.encode())
            digest.update(tensor.cpu().contiguous().numpy().tobytes())
    return json.loads(json.dumps({'type': cfg['type'], **arguments, 'sha256': digest.hexdigest()}))


def split_pipeline(cfg: Config) -> tuple[Steps, Steps]:
    """The steps of a recipe's pipeline that make views of an image, and those after them, which draw and pack a mask.

    Raises:
        ValueError: The pipeline has another form.
    """
    pipeline = cfg.train_dataloader.dataset.get('pipeline') or []
    names = [step['type'].rpartition('.')[2] for step in pipeline]
    if len(names) < 4 or names[0] != 'SeedTransforms' or names[-2:] != ['BlockwiseMask', 'PackInputs']:
        raise ValueError(
            'expected a train_dataloader.dataset.pipeline that starts with mmbeit.SeedTransforms and ends with '
            f'mmbeit.BlockwiseMask and PackInputs, not {", ".join(step["type"] for step in pipeline) or "none"}'
        )
    return on_the_way(pipeline[1:-2]), pipeline[-2:]


def center_view(steps: Steps, size: int | None = None) -> Steps:
    """Steps to the centre of an image instead: the short side is resized, and a square of 7/8 of it is cut out.

    Args:
        steps: To the views of a recipe, of which the loader is kept, and the target view's size and interpolation.
        size: Side of the square in pixels, instead of that of the target view.

    Raises:
        ValueError: There is no crop that says the size.
    """
    crop = next((step for step in steps if step['type'] in (CROP, CROPPING_LOADER)), {})
    size = size or crop.get('target_size')
    if size is None:
        raise ValueError(f'the pipeline has no {CROP}, which says how large target views are: give the size')
    loader = steps[0]
    if loader['type'] == CROPPING_LOADER:
        loader = {k: v for k, v in loader.items() if k in ('on_error', 'backend_args')} | {'type': 'mmbeit.LoadImage'}
    longest = size if isinstance(size, int) else max(size)
    return [
        loader,
        dict(
            type='torchvision/Resize',
            size=round(longest / CENTER),
            interpolation=crop.get('target_interpolation', 'lanczos'),
        ),
        dict(type='torchvision/CenterCrop', size=size),
    ]


def versions() -> dict[str, str]:
    """Of the libraries that views and tokens depend on."""
    return {name: version(name) for name in LIBRARIES}


def image_paths(dataset: BaseDataset) -> Iterator[str]:
    """Paths of the images of a data set, relative to its folder, in order."""
    root = os.path.join(dataset.img_prefix, '')  # noqa: PTH118  also of a bucket
    for i in range(len(dataset)):
        yield dataset.get_data_info(i)['img_path'].removeprefix(root)


def use_tokens(cfg: Config, folder: str | os.PathLike) -> TokenFolder:
    """Let a recipe of masked image modeling take stored tokens instead of running its tokenizer.

    The tokenizer that it names is built once more, to be compared; where it names none (None), the tokens are taken
    for what they are. Then the target generator becomes :class:`mmbeit.StoredTokens`, and the steps to the views are
    put into a :class:`mmbeit.ReplayView`. Call :func:`check_images` when the data set is built.

    Args:
        cfg: The recipe; it is changed.
        folder: What :class:`mmbeit.apis.extraction.TokenExtractor` has written for this recipe.

    Returns:
        The tokens.

    Raises:
        FileNotFoundError: There are no tokens.
        ValueError: They are not complete, or of another tokenizer or pipeline; the message says what differs.
    """
    tokens = TokenFolder(folder)
    tokens.check_whole()
    view, rest = split_pipeline(cfg)
    tokens.check({'pipeline': view})
    if generator := cfg.model.get('target_generator'):
        tokens.check({'tokenizer': identify(build_tokenizer(cfg), generator)})
    cfg.model.target_generator = dict(type='mmbeit.StoredTokens', num_codes=tokens.contents.num_codes)
    # The target view is not needed, and nothing is drawn to make it.
    steps = [{**step, 'target_size': None} if step['type'] == CROP else step for step in view]
    replay = dict(type='mmbeit.ReplayView', tokens=str(folder), transforms=steps)
    cfg.train_dataloader.dataset.pipeline = [replay, *rest]
    return tokens


def check_images(dataset: BaseDataset, tokens: TokenFolder) -> None:
    """Compare the images of a data set that replays views with those that were extracted, and the views of some.

    Raises:
        ValueError: They differ.
    """
    tokens.check_paths(image_paths(dataset))
    with generators_kept():
        for i in range(0, len(dataset), -(-len(dataset) // NUM_REPLAYED)):
            dataset.prepare_data(seeded(i, 0))
