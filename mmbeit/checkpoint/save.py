"""Write weights in any format, and look whether they can be read back."""

import hashlib
import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from mmbeit.checkpoint.formats import from_ours, to_ours, unwrap, vqkd_encoder
from mmbeit.checkpoint.keymap import Drop, Reform, Table, invert
from mmbeit.checkpoint.load import CheckpointError, StateDict, read_weights
from mmbeit.layers.position import grid_of_table, square_grid

# Under which key each project keeps the weights in a file of torch.
CONTAINER = {'official': 'model', 'mmpretrain': 'state_dict', 'mmseg': 'state_dict', 'mmbeit': 'state_dict'}
HALF = (0.5, 0.5, 0.5)
TRANSFORMERS = {
    'classifier': 'BeitForImageClassification',
    'backbone': 'BeitModel',
    'mim': 'BeitForMaskedImageModeling',
    'segmentor': 'BeitForSemanticSegmentation',
    'dvae_encoder': 'FlavaImageCodebook',
}
TAPS = {12: (3, 5, 7, 11), 24: (7, 11, 15, 23)}


def save_state(
    state: StateDict,
    kind: str,
    path: str | os.PathLike,
    target: str,
    publish: bool = False,
    num_heads: int | None = None,
    mean: Sequence[float] = HALF,
    std: Sequence[float] = HALF,
) -> Path:
    """Write weights in a project's format, complete or not at all, and compare what can be read back with them.

    Args:
        state: Weights under our names.
        kind: What they are, such as 'classifier'.
        path: File to write: of safetensors if it ends so, else of torch. For 'hf' a new folder.
        target: Name of the format.
        publish: Whether to add the first 8 digits of the file's sha256 to its name.
        num_heads, mean, std: For the config of 'hf', as far as the weights do not say it: heads of a model without
            relative positions (by default of 64 channels), and how it wants its images normalised.

    Returns:
        What was written.

    Raises:
        CheckpointError: The format has no such model, or what was written cannot be read back as it was.
        FileExistsError: The folder is there already.
        FileNotFoundError: The folder to write into does not exist.
    """
    path = Path(path).expanduser()
    theirs, table = from_ours(state, target, kind)
    if not path.parent.is_dir():
        raise FileNotFoundError(f'no such folder: {path.parent}')
    if target == 'hf' and path.exists():
        raise FileExistsError(f'{path} exists already: expected the name of a new folder')
    if target != 'hf' and path.is_dir():
        raise FileExistsError(f'{path} is a folder: expected the name of a file')
    draft = path.with_name(f'.{os.getpid()}.{path.name}')
    try:
        if target == 'hf':
            draft.mkdir()
            weights = draft / 'model.safetensors'
            _write(theirs, weights, target)
            _write_json(draft / 'config.json', transformers_config(state, table.kind, num_heads))
            _write_json(draft / 'preprocessor_config.json', transformers_processor(state, table.kind, mean, std))
        else:
            weights = draft
            _write(theirs, draft, target)
        verify(draft, state, table)
        if publish:
            digest = hashlib.sha256(weights.read_bytes()).hexdigest()
            path = path.with_name(f'{path.stem}-{digest[:8]}{path.suffix}')
        draft.replace(path)
    finally:
        if draft.is_dir():
            shutil.rmtree(draft)
        else:
            draft.unlink(missing_ok=True)
    return path


def verify(path: Path, state: StateDict, table: Table) -> None:
    """Read a file and compare it with what it was made from.

    Args:
        path: What was written.
        state: Weights under our names.
        table: From the format that was written to ours.

    Raises:
        CheckpointError: A tensor is missing, or has another value.
    """
    back, _ = to_ours(unwrap(read_weights(path)), table.format)
    if table.kind == 'vqkd_encoder':
        state = vqkd_encoder(state) or state
    outward, wanted = invert(table), {}
    for key, tensor in state.items():
        row = outward.find(key, state)[0]
        match row:
            case Drop():  # that format has no name for it
                continue
            case Reform(there=there, back=again):
                tensor = again(there(tensor))
        wanted[key] = tensor
    differing = sorted(wanted.keys() ^ back.keys()) + [
        key for key in wanted.keys() & back.keys() if not torch.equal(wanted[key], back[key])
    ]
    if differing:
        raise CheckpointError(f'what was written differs from what it was made from in {", ".join(differing[:4])}')


def _write(state: StateDict, path: Path, target: str) -> None:
    if path.suffix == '.safetensors':
        try:
            from safetensors.torch import save_file
        except ImportError as error:
            raise CheckpointError(f'writing {path.name} needs safetensors: pip install safetensors') from error
        save_file({key: tensor.clone() for key, tensor in state.items()}, path, metadata={'format': 'pt'})
        return
    state = {key: tensor.clone() for key, tensor in state.items()}  # a view would bring all of its storage along
    torch.save({CONTAINER[target]: state} if target in CONTAINER else state, path)


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + '\n')


def _size(state: StateDict) -> tuple[int, int]:
    """Side of a patch, and of the image that positions are stored for (224 where there are none)."""
    patch = state['backbone.patch_embed.proj.weight'].shape[-1]
    if 'backbone.rel_pos_bias.0.table' in state:
        return patch, patch * grid_of_table(len(state['backbone.rel_pos_bias.0.table']))[0]
    if 'backbone.pos_embed' in state:
        return patch, patch * square_grid(state['backbone.pos_embed'].shape[1] - 1, 'backbone.pos_embed')[0]
    return patch, 224


def transformers_config(state: StateDict, kind: str, num_heads: int | None = None) -> dict[str, Any]:
    """`config.json` of transformers for weights under our names.

    Segmentation: transformers taps the tokens two blocks before those that `out_indices` names (0-based), and cannot
    be told to tap the last block; the official indices are written all the same, as its own files have them.
    """
    config: dict[str, Any] = {'architectures': [TRANSFORMERS[kind]], 'dtype': 'float32'}
    if kind == 'dvae_encoder':
        width, codes = state['encoder.blocks.input.w'].shape[0], state['encoder.blocks.output.conv.w'].shape[0]
        return {**config, 'model_type': 'flava_image_codebook', 'hidden_size': width, 'vocab_size': codes}
    dim = state['backbone.cls_token'].shape[-1]
    depth = 1 + max(int(key.split('.')[2]) for key in state if key.startswith('backbone.blocks.'))
    tables = sum(key.endswith('.table') for key in state)
    if tables:
        num_heads = state['backbone.rel_pos_bias.0.table'].shape[1]
    if num_heads is None and dim % 64:
        raise CheckpointError(f'the weights do not say how many heads share their width of {dim}: give num_heads')
    patch, size = _size(state)
    scaled = 'backbone.blocks.0.scale1.gamma' in state
    config |= {
        'model_type': 'beit',
        'hidden_size': dim,
        'num_hidden_layers': depth,
        'num_attention_heads': num_heads or dim // 64,
        'intermediate_size': state['backbone.blocks.0.mlp.fc1.weight'].shape[0],
        'num_channels': state['backbone.patch_embed.proj.weight'].shape[1],
        'image_size': size,
        'patch_size': patch,
        'hidden_act': 'gelu',
        'layer_norm_eps': 1e-6,  # the official one; the default of transformers is another
        'layer_scale_init_value': (0.1 if depth <= 12 else 1e-5) if scaled else 0.0,
        'use_mask_token': 'backbone.mask_token' in state,
        'use_absolute_position_embeddings': 'backbone.pos_embed' in state,
        'use_relative_position_bias': tables == depth and depth > 1,
        'use_shared_relative_position_bias': tables == 1,
        # Of pretraining and segmentation: without it there would be a second norm.
        'use_mean_pooling': 'backbone.norm.weight' not in state,
    }
    if kind == 'mim':
        config['vocab_size'] = state['head.fc.weight'].shape[0]
    else:
        logits = state.get('head.fc.weight', state.get('decode_head.conv_seg.weight'))
        labels = {i: f'LABEL_{i}' for i in range(0 if logits is None else len(logits))}
        if labels:
            config |= {'id2label': labels, 'label2id': {name: i for i, name in labels.items()}}
    if kind == 'segmentor':
        config['out_indices'] = list(TAPS.get(depth, [depth * i // 4 for i in (1, 2, 3, 4)]))
        config['use_auxiliary_head'] = 'auxiliary_head.conv_seg.weight' in state
        if config['use_auxiliary_head']:
            config['auxiliary_channels'] = state['auxiliary_head.conv_seg.weight'].shape[1]
    return config


def transformers_processor(state: StateDict, kind: str, mean: Sequence[float], std: Sequence[float]) -> dict[str, Any]:
    """`preprocessor_config.json` of transformers: an image of the size of the model, in [0, 1], then normalised."""
    if kind == 'dvae_encoder':
        return {'image_processor_type': 'FlavaImageProcessor', 'return_codebook_pixels': True}
    _, size = _size(state)
    return {
        'image_processor_type': 'BeitImageProcessor',
        'do_resize': True,
        'size': {'height': size, 'width': size},
        'resample': 3,  # bicubic
        'do_center_crop': False,
        'do_rescale': True,
        'rescale_factor': 1 / 255,
        'do_normalize': True,
        'image_mean': list(mean),
        'image_std': list(std),
        'do_reduce_labels': kind == 'segmentor',
    }
