"""That metafile.yml agrees with the recipes, and the tables of their READMEs with both."""

import re
from collections.abc import Iterator
from pathlib import Path

import mmengine
import pytest
from test_configs.recipes import EVALUATIONS, FAMILIES, MIXTURES, PATHS, RECIPES, ROOT, cost_of, parse, recipes_of

METAFILE = mmengine.load(ROOT / 'metafile.yml')
MODELS = {model['Name']: model for model in METAFILE['Models']}
ROWS_WITH_COUNTS = {'beit': 26, 'beitv2': 19, 'beit3': 29}


# What the official releases hold (unilm:beit/README.md, beit2/README.md, beit2/TOKENIZER.md and their guides).
RELEASED = {
    'v1.0': """
        beit_{base,large}_patch16_224_pt22k beit_{base,large}_patch16_224_pt22k_ft22k
        beit_{base,large}_patch16_224_pt22k_ft1k beit_{base,large}_patch16_224_pt22k_ft22kto1k
        beit_{base,large}_patch16_384_pt22k_ft22kto1k beit_large_patch16_512_pt22k_ft22kto1k
        beit_{base,large}_patch16_640_pt22k_ft22ktoade20k
    """,
    'BEiT-v2': """
        beitv2_{base,large}_patch16_224_pt1k beitv2_{base,large}_patch16_224_pt1k_300e
        beitv2_{base,large}_patch16_224_pt1k_ft1k beitv2_{base,large}_patch16_224_pt1k_300e_ft1k
        beitv2_{base,large}_patch16_224_pt1k_ft21k beitv2_{base,large}_patch16_224_pt1k_ft21kto1k
        beitv2_{base,large}_patch16_224_pt1k_ftade20k beitv2_{base,large}_patch16_224_pt1k_ft21ktoade20k
        vqkd_encoder_base_decoder_1x768x12_clip-d93179da vqkd_encoder_base_decoder_3x768x12_clip-d5036aa7
        vqkd_encoder_base_decoder_1x768x12_dino-663c55d7
    """,
    'beit3': """
        beit3_{base,large}_patch16_224 beit3_{base,large}_indomain_patch16_224
        beit3_{base,large}_itc_patch16_224 beit3_{base,large}_patch16_224_in1k
        beit3_{base,large}_indomain_patch16_224_in1k beit3_{base,large}_patch16_480_vqa
        beit3_{base,large}_indomain_patch16_480_vqa
        beit3_large_indomain_patch16_768_vgqaaug_vqa beit3_{base,large}_patch16_224_nlvr2
        beit3_{base,large}_indomain_patch16_224_nlvr2 beit3_{base,large}_patch16_480_coco_captioning
        beit3_base_indomain_patch16_480_coco_captioning beit3_{base,large}_patch16_480_nocaps
        beit3_base_indomain_patch16_480_nocaps beit3_{base,large}_patch16_384_coco_retrieval
        beit3_{base,large}_patch16_384_f30k_retrieval
    """,
}


def readme_of(family: str) -> str:
    return (ROOT / 'configs' / family / 'README.md').read_text()


def table_rows(family: str) -> Iterator[tuple[str, dict[str, str]]]:
    """Name of the recipe, and cells by the names of their columns, of every row of a table that links to a recipe."""
    for table in re.findall(r'(?m)(?:^\|.*\n)+', readme_of(family)):
        header, _, *rows = [[cell.strip() for cell in line.strip('|\n').split('|')] for line in table.splitlines()]
        for row in rows:
            config = re.search(r'\]\(([\w/.-]+)\.py\)', row[0])
            if config:
                yield Path(config[1]).name, dict(zip(header, row, strict=True))


def test_index_lists_the_metafile():
    imports = mmengine.load(ROOT / 'model-index.yml')['Import']
    assert 'metafile.yml' in imports
    assert all((ROOT / path).is_file() for path in imports)
    collections = {collection['Name']: collection for collection in METAFILE['Collections']}
    assert {collection['README'] for collection in collections.values()} == {
        f'configs/{family}/README.md' for family in FAMILIES
    }
    for model in MODELS.values():
        family = Path(collections[model['In Collection']]['README']).parent
        assert (ROOT / model['Config']).is_relative_to(ROOT / family)
    for collection in collections.values():
        assert (ROOT / collection['README']).is_file() and (ROOT / collection['Code']['URL']).is_file()


def test_model_names_are_unique_and_lower_case():
    assert len(MODELS) == len(METAFILE['Models'])
    assert all(name == name.lower() for name in MODELS), "mmpretrain's hub looks names up in lower case"


def test_every_official_file_is_there():
    files = set()
    for release, names in RELEASED.items():
        for name in names.split():
            sizes = ('base', 'large') if '{base,large}' in name else ('',)
            url = f'https://github.com/addf400/files/releases/download/{release}/{name}.pth'
            files |= {url.replace('{base,large}', size) for size in sizes}
    official = 'https://github.com/addf400/'
    weights = [model['Weights'] for model in MODELS.values() if model.get('Weights', '').startswith(official)]
    assert sorted(weights) == sorted(files)


def test_published_names_are_there():
    for name, config in {
        'beit_beit-base-p16_8xb256-amp-coslr-300e_in1k': 'beit_beit-base-p16_8xb256-amp-coslr-300e_in1k',
        'beit-base-p16_beit-pre_8xb128-coslr-100e_in1k': 'beit-base-p16_beit-pre_8xb128-coslr-100e_in1k',
        'beit-base-p16_beit-in21k-pre_3rdparty_in1k': 'beit-base-p16_beit-in21k-pre_8xb64-coslr-30e_in1k',
        'beitv2_beit-base-p16_8xb256-amp-coslr-300e_in1k': 'beitv2_beit-base-p16_8xb256-amp-coslr-300e_in1k',
        'beit-base-p16_beitv2-pre_8xb128-coslr-100e_in1k': 'beit-base-p16_beitv2-pre_8xb128-coslr-100e_in1k',
        'beit-base-p16_beitv2-in21k-pre_3rdparty_in1k': 'beit-base-p16_beitv2-in21k-pre_8xb128-coslr-30e_in1k',
    }.items():
        assert Path(MODELS[name]['Config']).stem == config


@pytest.mark.parametrize('name', MODELS)
def test_mirrors_hold_the_same_file(name):
    model = MODELS[name]
    hosts = 'https://download.openmmlab.com/', 'https://mmassets.onedl.ai/'
    theirs = [url for url in (model.get('Weights', ''), *model.get('Mirrors', [])) if url.startswith(hosts)]
    assert [url.removeprefix(host) for url, host in zip(theirs, hosts, strict=bool(theirs))] == [
        theirs[0].removeprefix(hosts[0]) for _ in theirs
    ]


@pytest.mark.parametrize('name', [*MIXTURES, *(name for family in FAMILIES for name in recipes_of(family))])
def test_every_recipe_is_in_the_metafile_and_in_the_readme(name):
    family = PATHS[name].relative_to(ROOT / 'configs').parts[0]
    assert ROOT / MODELS[name]['Config'] == PATHS[name]
    assert PATHS[name].relative_to(ROOT / 'configs' / family).as_posix() in readme_of(family)


def test_families_have_all_recipes():
    assert sorted(RECIPES) == sorted(name for family in FAMILIES for name in recipes_of(family))


@pytest.mark.parametrize('name', MODELS)
def test_metafile_agrees_with_the_recipe(name):
    model = MODELS[name]
    assert (ROOT / model['Config']).is_file()
    recipe = Path(model['Config']).stem
    metadata, said, cost = model['Metadata'], parse(recipe), cost_of(recipe)
    assert metadata['Parameters'] == cost.num_parameters
    assert metadata['FLOPs'] == cost.num_flops
    assert metadata.get('Epochs') == said.get('epochs')
    assert metadata.get('Iterations') == said.get('iters')
    assert metadata['Batch Size'] == said['gpus'] * said['batch'] * said['accumulate']
    assert 3 <= len(name.split('_')) <= 5
    assert set(model.get('Downstream', [])) <= set(MODELS)
    released = '3rdparty' in name
    by_openmmlab = 'github.com/open-mmlab/' in model.get('Converted From', {}).get('Code', '')
    trained = released or by_openmmlab
    assert ('Converted From' in model) == ('Weights' in model) == trained, 'nobody trained the others'
    assert released or name == recipe


@pytest.mark.parametrize('family', FAMILIES)
def test_readme_has_the_counts_of_the_metafile(family):
    rows = [(recipe, row) for recipe, row in table_rows(family) if 'Params (M)' in row]
    assert len(rows) == ROWS_WITH_COUNTS[family]
    for recipe, row in rows:
        cost = cost_of(recipe)
        assert row['Params (M)'] == f'{cost.num_parameters / 1e6:.2f}'
        assert row['FLOPs (G)'] == f'{cost.num_flops / 1e9:.2f}'


@pytest.mark.parametrize('family', FAMILIES)
def test_readme_has_the_accuracies_and_weights_of_the_metafile(family):
    rows = {recipe: row for recipe, row in table_rows(family) if recipe not in EVALUATIONS}
    seen = {recipe: [] for recipe in rows}
    for model in MODELS.values():
        recipe = Path(model['Config']).stem
        if recipe not in rows:
            continue
        row = rows[recipe]
        if 'Top-1 (%)' in row:
            cells = [row[column] for column in ('Top-1 (%)', 'Top-5 (%)')]
            assert [float(cell) for cell in cells if cell] == list((model['Results'][0]['Metrics'] or {}).values())
        if 'Weights' in model:
            seen[recipe].append(model['Weights'])
    for recipe, urls in seen.items():
        assert sorted(re.findall(r'\((https:.*?)\)', rows[recipe].get('Weights', ''))) == sorted(urls)


def test_readme_of_beit3_has_the_results_of_the_metafile():
    columns = ('test-dev (%)', 'test-std (%)', 'dev (%)', 'test-P (%)', 'CIDEr', 'val CIDEr')
    columns += ('texts R@1 (%)', 'images R@1 (%)')
    rows = dict(table_rows('beit3'))
    compared = 0
    for model in MODELS.values():
        row = rows.get(Path(model['Config']).stem)
        if row is not None and any(column in row for column in columns):
            numbers = [value for result in model['Results'] for value in result['Metrics'].values()]
            assert [float(row[column]) for column in columns if row.get(column)] == numbers
            header = PATHS[Path(model['Config']).stem].read_text().partition('_base_')[0]
            assert all(str(number) in header for number in numbers)
            compared += 1
    assert compared == 2 * 19


def test_accuracies_of_other_data_sets_are_those_of_the_metafile():
    rows = {re.search(r'ImageNet-[AR]', row['Data'])[0]: row for _, row in table_rows('beitv2') if 'Data' in row}
    assert len(rows) == len(EVALUATIONS) == 2
    results = [(model, result) for model in MODELS.values() for result in (model['Results'] or [])[1:]]
    for model, result in results:
        if result['Dataset'] in rows:
            row = rows[result['Dataset']]
            assert [float(row[c]) for c in ('Top-1 (%)', 'Top-5 (%)')] == list(result['Metrics'].values())
            assert model['Weights'] in row['Weights']
    assert 'ImageNet-R' in [result['Dataset'] for _, result in results]


def test_hub_reads_the_index():
    from modelindex.load_model_index import load

    index = load(str(ROOT / 'model-index.yml'))
    index.build_models_with_collections()
    assert {model.name for model in index.models} == set(MODELS)
