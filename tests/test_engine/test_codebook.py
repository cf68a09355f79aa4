from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.logging import MessageHub
from torch import nn

from mmbeit.engine.codebook import CodebookHook, draw_usage, picture
from mmbeit.engine.errors import StoppedRunError
from mmbeit.layers.quantizer import NormEMAQuantizer, code_usage, perplexity

NUM_CODES = 8


class Run:
    """What the hook needs of a runner: a model with a quantizer, a log, a visualizer."""

    def __init__(self, hook, name, length=10, wrap=lambda model: model):
        self.hook = hook
        self.quantizer = NormEMAQuantizer(NUM_CODES, 4, kmeans_init=False)
        self.quantizer.codebook.copy_(torch.cat([torch.eye(4), -torch.eye(4)]))
        tokenizer = nn.Module()
        tokenizer.quantizer = self.quantizer
        model = nn.Module()
        model.tokenizer = tokenizer
        self.images = []
        self.runner = SimpleNamespace(
            model=wrap(model),
            message_hub=MessageHub(name),
            train_dataloader=[None] * length,
            visualizer=SimpleNamespace(add_image=lambda *args, **kwargs: self.images.append((*args, kwargs))),
            iter=0,
            epoch=3,
        )
        hook.before_train(self.runner)

    def codes(self, *ids):
        """A batch of exactly these codes."""
        self.quantizer(self.quantizer.codebook[list(ids)][None])

    def step(self, batch_idx, *ids):
        self.codes(*ids)
        self.hook.after_train_iter(self.runner, batch_idx)
        self.runner.iter += 1

    def logged(self):
        names = ('codebook_usage', 'dead_codes', 'codebook_perplexity')
        return [self.runner.message_hub.get_scalar(f'train/{name}').current() for name in names]


@pytest.mark.parametrize('wrap', [lambda model: model, nn.DataParallel])
def test_training_is_counted_between_logs(wrap, request):
    run = Run(CodebookHook(interval=2), request.node.name, wrap=wrap)
    run.hook.before_train_epoch(run.runner)
    run.step(0, 0, 1)
    assert 'train/codebook_usage' not in run.runner.message_hub.log_scalars
    run.step(1, 1, 2)
    counts = torch.tensor([1, 2, 1, 0, 0, 0, 0, 0])
    assert run.logged() == pytest.approx([37.5, 5, perplexity(counts).item()])
    run.step(2, 5)
    run.step(3, 5)
    assert run.logged() == pytest.approx([12.5, 7, 1])


def test_a_rest_of_an_epoch_is_not_logged_unless_it_is_all(request):
    run = Run(CodebookHook(interval=4), request.node.name, length=5)
    for i in range(5):
        run.step(i, i)
    assert run.logged()[0] == 50
    run.hook.before_train_epoch(run.runner)
    for i in range(4):
        run.step(i, 7)
    assert run.logged()[0] == 12.5, 'without the rest of the epoch before'
    short = Run(CodebookHook(interval=4), f'{request.node.name} short', length=2)
    for i in range(2):
        short.step(i, i)
    assert short.logged()[0] == 25


def test_validation_is_counted_apart_and_drawn(request, monkeypatch):
    run, drawn = Run(CodebookHook(interval=2), request.node.name), []
    monkeypatch.setattr('mmbeit.engine.codebook.draw_usage', lambda counts: drawn.append(counts) or draw_usage(counts))
    run.step(0, 6)
    for _ in range(2):  # the second one starts anew
        run.quantizer.eval()
        run.hook.before_val_epoch(run.runner)
        run.codes(3, 3, 4)
        run.hook.after_val_epoch(run.runner)
        run.quantizer.train()
    assert [counts.tolist() for counts in drawn] == [[0, 0, 0, 2, 1, 0, 0, 0]] * 2
    name, pixels, step = run.images[0]
    assert (name, step) == ('codebook', dict(step=3))
    assert pixels.dtype == np.uint8 and pixels.ndim == 3 and pixels.std() > 10
    run.step(1, 7)
    assert run.logged()[0] == 25


def test_evaluation_without_training_draws_nothing():
    hook = CodebookHook()
    hook.before_val_epoch(None)
    hook.after_val_epoch(None)


def test_run_stops_when_usage_stays_low_and_says_what_to_change(request):
    run = Run(CodebookHook(interval=1, min_usage=20, patience=2), request.node.name)
    run.step(0, 3)
    run.step(1, 3, 4)  # recovers
    run.step(2, 3)
    message = r'iteration 4 12\.5 % of its 8 codes.*min_usage=20, 2 times in a row.*revive_below=0\.1'
    with pytest.raises(StoppedRunError, match=message) as error:
        run.step(3, 3)
    assert '\n' not in str(error.value)


def test_nothing_is_stopped_by_default(request):
    run = Run(CodebookHook(interval=1), request.node.name)
    for i in range(10):
        run.step(i, 3)


def test_share_that_is_no_percentage_is_refused():
    with pytest.raises(ValueError, match=r'min_usage \(100\)'):
        CodebookHook(min_usage=100)


def test_counting_ends_with_the_training(request):
    run = Run(CodebookHook(), request.node.name)
    run.hook.after_train(run.runner)
    assert not run.quantizer._forward_hooks


def test_picture_says_what_it_shows():
    figure = draw_usage(np.array([5, 0, 3, 0, 1, 1]))
    axes = figure.axes[0]
    usage, varied = code_usage(torch.tensor([4, 4, 4, 4, 0, 0])), perplexity(torch.tensor([5.0, 3, 1, 1]))
    assert axes.get_title() == f'{usage:.1f} % of 6 codes, perplexity {varied:.0f}'
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert '2 codes never' in labels
    assert picture(draw_usage(np.zeros(4))).shape == picture(figure).shape
