"""Draw what a pretrained model predicts at masked patches.

`python tools/visualize_tokens.py CONFIG CHECKPOINT IMAGE ... --out FILE.png`
"""

import argparse
import random

import numpy as np
import torch
from mmengine.config import Config, DictAction
from mmengine.registry import init_default_scope
from mmengine.runner import load_checkpoint

from mmbeit.apis.reconstruction import draw, load_views, reconstruct
from mmbeit.engine.config import find_config
from mmbeit.engine.errors import readable_errors
from mmbeit.registry import MODELS, TRANSFORMS


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description='Draw what a pretrained model predicts at masked patches')
    parser.add_argument('config', help='path or name of a pretraining config')
    parser.add_argument('checkpoint', help='of that config')
    parser.add_argument('images', nargs='+', help='image files')
    parser.add_argument('--out', default='tokens.png', help='picture to write')
    parser.add_argument('--seed', type=int, default=0, help='of the masks')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, default={}, metavar='KEY=VALUE')
    args = parser.parse_args(argv)
    with readable_errors():
        cfg = Config.fromfile(find_config(args.config))
        cfg.merge_from_dict(args.cfg_options)
        init_default_scope(cfg.default_scope)
        cfg.model.target_generator.decoder = True
        model = MODELS.build(cfg.model).eval()
        load_checkpoint(model, args.checkpoint, map_location='cpu', strict=True, logger='silent')
        view, target_view = load_views(model, args.images)
        steps = [step for step in cfg.train_dataloader.dataset.pipeline if step.type == 'mmbeit.BlockwiseMask']
        if not steps:
            raise ValueError(f'{args.config} draws no masks: its pipeline has no mmbeit.BlockwiseMask')
        draw_mask = TRANSFORMS.build(steps[0])
        random.seed(args.seed)
        np.random.seed(args.seed)
        mask = torch.tensor(np.stack([draw_mask({})['mask'] for _ in args.images])).bool()
        result = reconstruct(model, view, target_view, mask)
    draw(target_view, result).savefig(args.out, dpi=120)
    accuracy = (result.ids == result.predicted_ids)[mask].float().mean()
    print(f'{args.out}: {len(args.images)} images, {100 * accuracy:.1f} % of {int(mask.sum())} masked tokens predicted')


if __name__ == '__main__':
    main()
