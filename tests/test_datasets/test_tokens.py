import os
import pickle
from dataclasses import replace

import numpy as np
import pytest

from mmbeit.datasets.tokens import TokenContents, TokenFolder, checksum, difference

CONTENTS = TokenContents(
    tokenizer=dict(type='T', width=8, sha256='ab'),
    pipeline=[dict(type='Load'), dict(type='Crop', scale=[0.1, 1.0])],
    views=3,
    seed=5,
    grid=[2, 4],
    num_codes=11,
    num_images=150,
    versions=dict(Pillow='1.0'),
)
UNREADABLE = (3, 64, 149)


def names(count=150):
    return [f'a/{i:04}.png' for i in range(count)]


@pytest.fixture
def ids():
    return np.random.default_rng(0).integers(0, 11, (150, 3, 2, 4))


@pytest.fixture
def tokens(tmp_path, ids):
    """150 images in three files, three of them unreadable."""
    tokens = TokenFolder.create(tmp_path / 'tokens', CONTENTS, names())
    for shard in tokens.missing():
        records = tokens.empty(shard)
        for row, image in enumerate(tokens.images_of(shard)):
            if image not in UNREADABLE:
                records[row]['ids'] = ids[image]
                records[row]['check'] = [100 * image + view for view in range(3)]
        tokens.write(shard, records)
    return tokens


def test_what_is_written_is_read(tokens, ids):
    again = TokenFolder(tokens.folder)
    assert again.contents == CONTENTS
    assert list(again.paths()) == names()
    assert len(again) == 150
    for image in range(150):
        if image in UNREADABLE:
            assert again[image] is None
        else:
            assert np.array_equal(again[image]['ids'], ids[image])
            assert again[image]['check'].tolist() == [100 * image + view for view in range(3)]
    assert list(again.unreadable()) == [names()[image] for image in UNREADABLE]
    for image in (-1, 150):
        with pytest.raises(IndexError, match=f'image {image} of 150'):
            again[image]


def test_images_come_one_after_the_other(tokens, ids):
    seen = dict(zip(tokens.paths(), tokens, strict=True))
    assert list(seen) == names()
    assert [image for image, records in enumerate(seen.values()) if records is None] == list(UNREADABLE)
    assert np.array_equal(seen['a/0100.png']['ids'], ids[100])


def test_numpy_reads_the_files(tokens, ids):
    files = sorted(tokens.folder.glob('tokens_*.npy'))
    stored = np.concatenate([np.load(path)['ids'] for path in files])
    assert [len(np.load(path)) for path in files] == [64, 64, 22]
    assert stored.shape == ids.shape
    readable = np.setdiff1d(np.arange(150), UNREADABLE)
    assert np.array_equal(stored[readable], ids[readable])
    assert (stored[list(UNREADABLE)] == 255).all()


def test_codes_are_counted(tokens, ids):
    readable = np.setdiff1d(np.arange(150), UNREADABLE)
    assert tokens.counts().tolist() == [int((ids[readable] == code).sum()) for code in range(11)]


@pytest.mark.parametrize(
    ('num_codes', 'name', 'no_id'),
    [(255, 'uint8', 255), (256, 'uint16', 65535), (8192, 'uint16', 65535), (65535, 'uint16', 65535)]
    + [(65536, 'uint32', 2**32 - 1)],
)
def test_ids_take_the_smallest_integers_that_leave_one_free(num_codes, name, no_id):
    contents = replace(CONTENTS, num_codes=num_codes)
    assert contents.dtype['ids'].base == np.dtype(name)
    assert contents.no_id == no_id
    assert contents.no_id >= num_codes


@pytest.mark.parametrize('count', [1, 63, 64, 65, 16384, 16385, 1281167, 14197122])
def test_images_are_shared_out_among_at_most_256_files(tokens, count):
    tokens.contents = replace(CONTENTS, num_images=count)
    shards = [tokens.images_of(shard) for shard in range(tokens.num_shards)]
    assert len(shards) <= 256
    assert shards[0].start == 0 and shards[-1].stop == count
    assert all(one.stop == other.start for one, other in zip(shards, shards[1:], strict=False))
    assert all(len(shard) >= min(count, 64) for shard in shards[:-1]) and len(shards[-1]) > 0


def test_files_are_mapped_where_they_are_needed(tokens):
    tokens[0], tokens[70]
    assert isinstance(tokens.shard(0).base, np.memmap)
    with pytest.raises(ValueError, match='read-only'):
        tokens[0]['ids'][:] = 0
    copy = pickle.loads(pickle.dumps(tokens))
    assert copy._maps == {} and tokens._maps.keys() == {0, 1}
    assert np.array_equal(copy[70], tokens[70])


def test_an_extraction_that_was_stopped_goes_on(tokens):
    tokens.path_of(1).unlink()
    again = TokenFolder.create(tokens.folder, CONTENTS, names())
    assert again.missing() == [1]
    with pytest.raises(ValueError, match='is not complete: 1 of 3 files are missing'):
        again.check_whole()
    again.write(1, again.empty(1))
    again.check_whole()


def test_a_file_is_whole_or_not_there(tokens, monkeypatch):
    def fsync(descriptor):
        os.truncate(descriptor, 100)
        raise KeyboardInterrupt

    whole = tokens.path_of(0).read_bytes()
    tokens.path_of(1).unlink()
    monkeypatch.setattr(os, 'fsync', fsync)
    for shard in (0, 1):
        with pytest.raises(KeyboardInterrupt):
            tokens.write(shard, tokens.empty(shard))
    assert tokens.path_of(0).read_bytes() == whole
    assert tokens.missing() == [1]
    assert len(list(tokens.folder.glob('*.partial'))) == 2
    tokens.clear()
    assert not list(tokens.folder.glob('*.partial'))


CHANGES = {
    'views is 3 there and 4 here': dict(views=4),
    "tokenizer.sha256 is 'ab' there and 'cd' here": dict(tokenizer=dict(type='T', width=8, sha256='cd')),
    'tokenizer.width is 8 there and None here': dict(tokenizer=dict(type='T', sha256='ab')),
    'pipeline.1.scale is [0.1, 1.0] there and [0.2, 1.0] here': dict(
        pipeline=[dict(type='Load'), dict(type='Crop', scale=(0.2, 1.0))]
    ),
    "pipeline.2 is None there and {'type': 'Flip'} here": dict(pipeline=[*CONTENTS.pipeline, dict(type='Flip')]),
    "versions.Pillow is '1.0' there and '2.0' here": dict(versions=dict(Pillow='2.0')),
}


@pytest.mark.parametrize('message', CHANGES)
def test_other_tokens_are_refused_by_what_differs(tokens, message):
    with pytest.raises(ValueError, match='holds other tokens') as error:
        TokenFolder.create(tokens.folder, replace(CONTENTS, **CHANGES[message]), names())
    assert str(error.value) == f'{tokens.folder} holds other tokens: {message}; to extract these, name another folder'


def test_tuples_are_lists():
    assert difference(dict(a=[1, dict(b=[2])]), dict(a=[1, dict(b=[2])])) is None


@pytest.mark.parametrize(
    ('paths', 'message'),
    [
        (names(149), 'image 149 is a/0149.png there and none here'),
        ([*names(), 'b.png'], 'image 150 is none there and b.png here'),
        ([*names(20), 'b.png', *names()[20:-1]], 'image 20 is a/0020.png there and b.png here'),
        (names()[::-1], 'image 0 is a/0000.png there and a/0149.png here'),
    ],
)
def test_other_images_are_refused_by_the_first_one(tokens, paths, message):
    with pytest.raises(ValueError, match='holds tokens of other images') as error:
        tokens.check_paths(paths)
    assert str(error.value).endswith(message)


def test_names_of_every_kind(tmp_path):
    paths = ['with space.png', 'größe.png', os.fsdecode(b'\xff\xfe.png'), 'odd\r\u2028.png']
    contents = replace(CONTENTS, num_images=len(paths))
    assert list(TokenFolder.create(tmp_path / 'a', contents, paths).paths()) == paths
    with pytest.raises(ValueError, match='line break'):
        TokenFolder.create(tmp_path / 'b', contents, ['a\nb.png'])
    assert not list((tmp_path / 'b').iterdir())


def test_what_is_no_folder_of_tokens(tmp_path):
    with pytest.raises(FileNotFoundError, match=f'no tokens in {tmp_path}'):
        TokenFolder(tmp_path)
    (tmp_path / 'tokens.json').write_text('{"version": 2}')
    with pytest.raises(ValueError, match='is of version 2 of the format, not 1'):
        TokenFolder(tmp_path)


def test_one_pixel_changes_the_checksum():
    view = np.zeros((4, 4, 3), np.uint8)
    one = checksum(view)
    view[3, 3, 2] = 1
    assert checksum(view) != one == checksum(np.zeros((4, 4, 3), np.uint8)[:, ::-1])
