"""What people read."""

import json
from io import StringIO

import pytest
from rich.console import Console
from scipy.stats import beta

from mmbeit.apis.data import DataConfig
from mmbeit.probing.report import by_block, by_setting, draw, sentences, standard_error, to_dict
from mmbeit.probing.run import Probed
from mmbeit.probing.task import Measured

LINEAR = Measured(
    'linear', [0, 1, 2], 'rate', [1e-3, 1e-2], [[10.0, 20.0], [31.5, 30.0], [50.0, 40.0]], [1e-2, 1e-3, 1e-3],
    [21.0, 33.0, 44.0], 2,
)  # fmt: skip
KNN = Measured('knn', [0, 1, 2], 'k', [5, 20], [[1.0, 2.0], [3.0, 4.5], [2.0, 0.0]], [20, 20, 5], [6.0, 7.0, 8.0], 1)
ATTENTIVE = Measured('attentive', [2], 'rate', [1e-3, 3e-3, 1e-2], [[60.0, 70.0, 65.0]], [3e-3], [66.0], 2)
PROBED = Probed(
    [LINEAR, KNN, ATTENTIVE], 3, 10, 1437, 287, 360, ['x.png'], DataConfig((0,) * 3, (1,) * 3, 32), seed=0
)  # fmt: skip


def text_of(table):
    console = Console(width=120, record=True, file=StringIO())
    console.print(table)
    return [line.replace('│', ' ').split() for line in console.export_text().splitlines()]


def test_tables_have_all_numbers_and_mark_what_is_chosen():
    lines = text_of(by_block(PROBED, 'a model'))
    assert ['a', 'model'] in lines
    assert ['0', '0.01', '21.0', '20', '6.0'] in lines
    assert ['1', '0.001', '33.0', '20', '7.0*'] in lines
    assert ['2', '0.001', '44.0*', '5', '8.0', '0.003', '66.0*'] in lines
    lines = text_of(by_setting(LINEAR))
    assert ['0', '10.0', '20.0*'] in lines and ['1', '31.5*', '30.0'] in lines


def test_sentences_say_what_was_measured_on_how_many_images():
    first, linear, knn, attentive, skipped = sentences(PROBED)
    assert first.startswith('1,437 images of 10 classes to train on; 287 of them, held out')
    assert '360 others give val' in first
    assert linear.startswith('linear: block 2, rate 0.001: 44.0 % of val (standard errors 2.6, of the choice 2.9)')
    assert linear.endswith('that is the smallest rate of the sweep, so try others')
    assert knn.startswith('kNN: block 1, k 20: 7.0 % of val (standard errors 1.4') and 'sweep' not in knn
    assert attentive.startswith('attentive: block 2, rate 0.003: 66.0 %') and 'sweep' not in attentive
    assert skipped == 'images that could not be read, and are left out: 1'


def test_standard_error():
    for accuracy, count in ((50, 100), (93.1, 360), (100, 6), (0, 6)):
        right = accuracy / 100 * count
        # The standard deviation of a beta distribution, which is what is known of a share after so many draws.
        assert standard_error(accuracy, count) == pytest.approx(100 * beta(right + 1, count - right + 1).std())
    assert standard_error(50, 10**6) == pytest.approx(0.05, rel=1e-3), 'as in the textbook where there are many'


def test_everything_is_in_the_file():
    content = json.loads(json.dumps(to_dict(PROBED)))
    assert content['measured']['linear']['held_out'] == LINEAR.held_out
    assert content['measured']['knn']['best'] == 1 and content['data']['size'] == [32, 32]
    assert content['num_val'] == 360 and content['skipped'] == ['x.png']


def test_picture_has_a_line_for_each_probe_and_a_ring_around_its_best_block():
    figure = draw(PROBED, 'a model')
    (axes,) = figure.axes
    lines = [(line.get_xdata(), line.get_ydata(), line.get_markersize()) for line in axes.lines]
    assert [list(map(float, y)) for _, y, _ in lines[0::3]] == [LINEAR.val, KNN.val, ATTENTIVE.val]
    assert [float(v) for v in lines[1][1]] == [20.0, 31.5, 50.0], 'held out'
    rings = lines[2::3]
    assert [(int(x[0]), float(y[0])) for x, y, _ in rings] == [(2, 44.0), (1, 7.0), (2, 66.0)]
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ['linear: 44.0 at block 2', 'kNN: 7.0 at block 1', 'attentive: 66.0 at block 2']
    assert figure.get_suptitle() == 'a model'
