"""What is chosen, and what is remembered of it."""

import torch

from mmbeit.probing.task import Measured, Score, choose


def test_the_most_accurate_is_chosen_and_of_those_the_one_of_the_smallest_loss():
    accuracy = torch.tensor([[50.0, 70.0, 70.0], [80.0, 10.0, 20.0], [80.0, 80.0, 80.0]])
    loss = torch.tensor([[0.1, 0.5, 0.4], [0.3, 0.0, 0.0], [0.3, 0.2, 0.2]])
    choice = choose(Score(accuracy, loss))
    assert choice.settings == [2, 0, 1] and choice.block == 2
    measured = Measured.of('linear', [3, 5, 7], 'rate', (0.1, 0.2, 0.3), Score(accuracy, loss), choice, [1.0, 2.0, 3.0])
    assert measured.chosen == [0.3, 0.1, 0.2] and measured.best == 7
    assert measured.of_block(3) == (0.3, 70.0, 1.0)
    assert measured.of_block(5) == (0.1, 80.0, 2.0)
