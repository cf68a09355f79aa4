"""What is printed, warned of and logged inside of `quiet`, and after it."""

import warnings

import pytest
from mmengine.logging import MMLogger, print_log

from mmbeit.engine.quiet import quiet


def test_quiet_hides_everything_below_an_error_until_it_ends(capfd):
    logger = MMLogger.get_instance('quiet')  # a new one prints where this test looks
    level = logger.level

    def speak(word: str) -> None:
        print(word, 'printed')
        print_log(f'{word} logged', logger='current')
        warnings.warn(f'{word} warned', stacklevel=1)

    with warnings.catch_warnings():
        warnings.simplefilter('always')
        with quiet():
            speak('inside')
        with pytest.warns(UserWarning, match='outside warned'):
            speak('outside')
    said = ''.join(capfd.readouterr())
    assert 'inside' not in said
    assert 'outside printed' in said and 'outside logged' in said
    assert logger.level == level


def test_quiet_lets_errors_pass_and_ends_with_them():
    logger = MMLogger.get_current_instance()
    level = logger.level
    with pytest.raises(ZeroDivisionError), quiet():
        1 / 0  # noqa: B018
    assert logger.level == level
