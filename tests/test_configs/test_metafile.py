"""That metafile.yml agrees with the recipes, and the table of their README with both."""

import re
from pathlib import Path

import mmengine
import pytest
from test_configs.recipes import PATHS, ROOT, cost_of, parse, recipes_of

V1 = recipes_of('beit')
METAFILE = mmengine.load(ROOT / 'metafile.yml')
MODELS = {model['Name']: model for model in METAFILE['Models']}


def test_index_lists_the_metafile():
    imports = mmengine.load(ROOT / 'model-index.yml')['Import']
    assert 'metafile.yml' in imports
    assert all((ROOT / path).is_file() for path in imports)
    collections = {collection['Name']: collection for collection in METAFILE['Collections']}
    assert all((ROOT / collection['README']).is_file() for collection in collections.values())
    assert {model['In Collection'] for model in MODELS.values()} <= set(collections)


def test_model_names_are_unique_and_lower_case():
    assert len(MODELS) == len(METAFILE['Models'])
    assert all(name == name.lower() for name in MODELS), "mmpretrain's hub looks names up in lower case"


def test_published_names_are_there():
    for name, config in {
        'beit_beit-base-p16_8xb256-amp-coslr-300e_in1k': 'beit_beit-base-p16_8xb256-amp-coslr-300e_in1k',
        'beit-base-p16_beit-pre_8xb128-coslr-100e_in1k': 'beit-base-p16_beit-pre_8xb128-coslr-100e_in1k',
        'beit-base-p16_beit-in21k-pre_3rdparty_in1k': 'beit-base-p16_beit-in21k-pre_8xb64-coslr-30e_in1k',
    }.items():
        assert Path(MODELS[name]['Config']).stem == config


@pytest.mark.parametrize('name', V1)
def test_every_recipe_is_in_the_metafile_and_in_the_readme(name):
    assert ROOT / MODELS[name]['Config'] == PATHS[name]
    assert PATHS[name].relative_to(ROOT / 'configs/beit').as_posix() in (ROOT / 'configs/beit/README.md').read_text()


@pytest.mark.parametrize('name', MODELS)
def test_metafile_agrees_with_the_recipe(name):
    model = MODELS[name]
    assert (ROOT / model['Config']).is_file()
    recipe = Path(model['Config']).stem
    metadata, said, cost = model['Metadata'], parse(recipe), cost_of(recipe)
    assert metadata['Parameters'] == cost.num_parameters
    assert metadata['FLOPs'] == cost.num_flops
    assert metadata['Epochs'] == said['epochs']
    assert metadata['Batch Size'] == said['gpus'] * said['batch'] * said['accumulate']
    assert 3 <= len(name.split('_')) <= 5
    assert set(model.get('Downstream', [])) <= set(MODELS)
    released = '3rdparty' in name
    by_mmpretrain = 'open-mmlab/mmpretrain' in model.get('Converted From', {}).get('Code', '')
    trained = released or by_mmpretrain
    assert ('Converted From' in model) == ('Weights' in model) == trained, 'nobody trained the others'
    assert released or name == recipe


def test_readme_has_the_counts_of_the_metafile():
    rows = re.findall(r'\]\(([\w/.-]+\.py)\) \|(.*)', (ROOT / 'configs/beit/README.md').read_text())
    assert len(rows) == 19
    for config, row in rows:
        cost = cost_of(Path(config).stem)
        assert f'| {cost.num_parameters / 1e6:.2f} | {cost.num_flops / 1e9:.2f} |' in f'|{row}'


def test_readme_has_the_accuracies_and_weights_of_the_metafile():
    rows = dict(
        re.findall(r'\]\((benchmarks/[\w.-]+in1k[\w.-]*\.py)\) \|(.*)', (ROOT / 'configs/beit/README.md').read_text())
    )
    for model in MODELS.values():
        row = rows.get(model['Config'].removeprefix('configs/beit/'))
        if row is not None:
            metrics = model['Results'][0]['Metrics'] or {}
            cells = [cell.strip() for cell in row.split('|')]
            assert [float(cell) for cell in cells[4:6] if cell] == list(metrics.values())
            assert model.get('Weights', '') in cells[3]


def test_hub_reads_the_index():
    from modelindex.load_model_index import load

    index = load(str(ROOT / 'model-index.yml'))
    index.build_models_with_collections()
    assert {model.name for model in index.models} == set(MODELS)
