"""BEiT-3 on real pictures and texts in some minutes: `make quickstart-v3`.

Everything runs through the ordinary configs and tools; this file only starts them, follows their logs, and prints what
they measured. VQ-KD turns pictures of digits into visual tokens, masked data modeling learns from pictures, texts and
pairs of both, and then questions are answered, captions written and pictures found: from scratch, and from what was
learned.
"""

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path
from textwrap import fill

import torch
from matplotlib.figure import Figure
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmengine.runner import Runner, load_checkpoint
from PIL import Image
from rich.console import Console
from rich.table import Table

from mmbeit.answers import read_answers
from mmbeit.engine.config import move, read_config
from mmbeit.engine.processes import Run, last_checkpoint, last_metrics, precision_options, train_stages
from mmbeit.engine.quiet import quiet
from mmbeit.registry import MODELS
from mmbeit.resources import resource_root

CONFIGS = resource_root() / 'configs/beit3/quickstart'
VQKD = CONFIGS / 'vqkd_digit-pairs.py'
PRETRAIN = CONFIGS / 'beit3_beit3-mini-p16_1xb64-coslr-2500_digit-image-text.py'
VQA = CONFIGS / 'beit3-mini-p16_beit3-pre_1xb128-coslr-20e_digit-vqa.py'
CAPTION = CONFIGS / 'beit3-mini-p16_beit3-pre_1xb32-coslr-10e_digit-caption.py'
RETRIEVAL = CONFIGS / 'beit3-mini-p16_beit3-pre_1xb128-coslr-30e_digit-retrieval.py'
DATA = 'data/digit_pairs'  # where the configs look for it
TASKS = {'vqa': VQA, 'vqa-few': VQA, 'caption': CAPTION, 'retrieval': RETRIEVAL}
WEIGHTS = {VQA: 'model.backbone.init_cfg', CAPTION: 'model.init_cfg', RETRIEVAL: 'model.init_cfg'}
STARTS = {'scratch': 'from scratch', 'mdm': 'from masked data modeling'}
# A column of the table, and where the number is: which task, under which name.
COLUMNS = {
    'questions': ('vqa', 'vqa/accuracy'),
    'of few questions': ('vqa-few', 'vqa/accuracy'),
    'captions': ('caption', 'caption/exact'),
    'captions found': ('retrieval', 'i2t/retrieval/Recall@1'),
    'pictures found': ('retrieval', 't2i/retrieval/Recall@1'),
}
FEW_EPOCHS = 250  # of fine-tuning on few questions
SECONDS = {'vqkd': 40, 'pretrain': 350, 'vqa': 250, 'vqa-few': 80, 'caption': 80, 'retrieval': 60}  # roughly
NUM_SHOWN = 8


def runs(args: argparse.Namespace) -> Iterator[list[Run]]:
    """The runs, stage by stage; those of one stage may happen side by side, the stages need what came before."""
    root = args.work_dir
    data = (*precision_options(), f'data_root={args.data}')
    short = (
        () if args.epochs is None else (f'train_cfg.max_epochs={args.epochs}', f'train_cfg.val_interval={args.epochs}')
    )
    yield [Run('distilling visual tokens', VQKD, root / 'vqkd', (*data, *short), SECONDS['vqkd'])]
    tokens = f'model.target_generator.init_cfg.checkpoint={last_checkpoint(root / "vqkd")}'
    short = () if args.epochs is None else (f'train_cfg.max_iters={10 * args.epochs}',)
    pretraining = Run('masked data modeling', PRETRAIN, root / 'pretrain', (*data, *short, tokens), SECONDS['pretrain'])
    yield [pretraining, *finetuning(args, 'scratch')]
    yield list(finetuning(args, 'mdm'))


def finetuning(args: argparse.Namespace, start: str) -> Iterator[Run]:
    """The runs of all tasks, from one of `STARTS`."""
    for task, config in TASKS.items():
        options = [*precision_options(), f'data_root={args.data}']
        if config == VQA:
            options.append(f'model.head.num_classes={len(read_answers(args.data / "answer2label.txt"))}')
        epochs = args.epochs
        if task == 'vqa-few':
            options.append(f'train_dataloader.dataset.indices={args.few}')
            epochs = epochs or FEW_EPOCHS
            options.append(f'param_scheduler.1.end={max(epochs, FEW_EPOCHS)}')
        if epochs is not None:
            options += [f'train_cfg.{key}={epochs}' for key in ('max_epochs', 'val_interval')]
        key = WEIGHTS[config]
        if start == 'scratch':
            options.append(f'{key}=None')
        else:
            options.append(f'{key}.checkpoint={last_checkpoint(args.work_dir / "pretrain")}')
        yield Run(f'{task} {STARTS[start]}', config, args.work_dir / f'{task}-{start}', tuple(options), SECONDS[task])


@torch.no_grad()
def predict(config: Path, checkpoint: Path, data: Path) -> list:
    """What a trained model says of the pictures that it is evaluated on, in their order."""
    cfg = Config(move(read_config(config).to_dict(), DATA, str(data)))
    cfg.model.init_cfg = None
    cfg.model.backbone.init_cfg = None
    if config == VQA:
        cfg.model.head.num_classes = len(read_answers(data / 'answer2label.txt'))
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        loader = Runner.build_dataloader(cfg.val_dataloader)
        model = MODELS.build(cfg.model).eval()
        load_checkpoint(model, str(checkpoint), map_location='cpu')
        return [sample for batch in loader for sample in model.val_step(batch)]


def draw_answers(args: argparse.Namespace, path: Path) -> None:
    """A picture of some held-out pictures, with the caption and the answer to a question that the models give."""
    captions = predict(CAPTION, last_checkpoint(args.work_dir / 'caption-mdm'), args.data)
    answers: dict[str, list] = {}
    for sample in predict(VQA, last_checkpoint(args.work_dir / 'vqa-mdm'), args.data):
        answers.setdefault(sample.img_path, []).append(sample)
    figure = Figure(figsize=(12, 3.6), layout='constrained')
    for i, (axes, caption) in enumerate(zip(figure.subplots(2, NUM_SHOWN // 2).flat, captions, strict=False)):
        asked = answers[caption.img_path][i % len(answers[caption.img_path])]
        right = caption.pred_caption in caption.gt_caption and asked.pred_answer in asked.gt_answer
        axes.imshow(Image.open(caption.img_path))
        axes.set_axis_off()
        said = f'{fill(caption.pred_caption, 32)}\n{asked.question} {asked.pred_answer}'
        axes.set_title(said, fontsize=9, color='black' if right else 'red')
    figure.savefig(path, dpi=120)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--data', type=Path, default=Path(DATA), help='written by dataset_converters/digit_pairs.py')
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/quickstart-v3'))
    parser.add_argument('--few', type=int, default=500, help='questions where there are few (%(default)s)')
    parser.add_argument('--epochs', type=int, help='of every run, for a trial')
    args = parser.parse_args(argv)
    console = Console()
    start = time.monotonic()
    finetuned = sum(SECONDS[task] for task in TASKS)
    train_stages(runs(args), SECONDS['vqkd'] + SECONDS['pretrain'] + len(STARTS) * finetuned, console)
    report(args, console)
    console.print(f'{time.monotonic() - start:.0f} s in all')


def report(args: argparse.Namespace, console: Console) -> None:
    """Print the table from what was logged, and draw the answers."""
    root = args.work_dir
    table = Table('on held-out pictures', *COLUMNS)
    results = {}
    for start, title in STARTS.items():
        metrics = {task: last_metrics(root / f'{task}-{start}') for task in TASKS}
        results[start] = {column: metrics[task][name] for column, (task, name) in COLUMNS.items()}
        table.add_row(title, *(f'{value:.1f}' for value in results[start].values()))
    table.title = 'percent right'
    console.print(table)
    gains = {column: results['mdm'][column] - results['scratch'][column] for column in COLUMNS}
    console.print('Masked data modeling: ' + ', '.join(f'{gain:+.1f} {column}' for column, gain in gains.items()) + '.')
    with quiet():
        draw_answers(args, root / 'answers.png')
    console.print(f'{root / "answers.png"}')
    codebook = last_metrics(root / 'vqkd')
    (root / 'results.json').write_text(json.dumps({**results, 'gains': gains, 'codebook': codebook}, indent=2) + '\n')


if __name__ == '__main__':
    main()
