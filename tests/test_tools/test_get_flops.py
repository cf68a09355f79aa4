import importlib.util

import pytest

from mmbeit.resources import resource_root

BASE = 'beit-base-p16_beit-pre_8xb128-coslr-100e_in1k'


@pytest.fixture(scope='module')
def main():
    path = resource_root() / 'tools' / 'get_flops.py'
    spec = importlib.util.spec_from_file_location('get_flops', path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


def test_prints_the_published_figures_of_base(main, capsys):
    main([BASE])
    out = capsys.readouterr().out
    for figure in ('224 x 224', '86,530,984', '86.53 M', '17,581,219,584', '17.58 G'):
        assert figure in out


def test_shape_and_overrides(main, capsys):
    main(
        [
            BASE,
            '--shape',
            '384',
            '--cfg-options',
            'model.head.num_classes=10',
        ]
    )
    out = capsys.readouterr().out
    assert '384 x 384' in out
    assert '7,690' in out
    main([BASE, '--shape', '32', '48'])
    assert '32 x 48' in capsys.readouterr().out


@pytest.mark.parametrize(
    ('argv', 'message'),
    [
        (['dvae_dalle-8192_8xb64-amp-coslr-100e_in1k'], '--shape'),
        ([BASE, '--shape', '200'], '200 x 200 pixels'),
        ([BASE, '--shape', '1', '2', '3'], 'one or two numbers'),
        (['beit-base-p16'], 'no config'),
        (['dvae_dalle-8192_8xb64-amp-coslr-100e_in1k', '--cfg-options', 'modle.width=2'], 'unknown key'),
    ],
)
def test_mistakes_are_one_line(main, capsys, argv, message):
    with pytest.raises(SystemExit) as stop:
        main(argv)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err
