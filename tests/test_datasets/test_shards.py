"""Shards of WebDataset as streams."""

import tarfile
from collections import Counter

import pytest
from builders_mdm import png, sentence, write_shards, write_tar
from mmengine.registry import DATASETS

from mmbeit.datasets.samplers import SampleIndex

wds = pytest.importorskip('webdataset')
from mmbeit.datasets.shards import Part, Place, Shards, read_shard  # noqa: E402

ALL = Part(number=0, count=1, seed=0)


def keys(stream, count):
    return [stream.take(SampleIndex(i, 0), lambda: None)['key'] for i in range(count)]


@pytest.fixture
def spec(tmp_path):
    """Four shards of six pairs."""
    return write_shards(tmp_path / 'shards', 4, 6)


def test_samples_are_what_was_written(spec):
    data = DATASETS.build(dict(type='mmbeit.Shards', shards=spec, block=1))
    sample = data.stream(ALL, Place()).take(SampleIndex(5, 7), lambda: None)
    number = int(sample['key'])
    shard = f'{spec.rpartition("/")[0]}/{number // 6:02}.tar'
    assert sample == dict(
        key=f'{number:04}',
        shard=shard,
        img_bytes=png(number),
        img_path=f'{shard}/{number:04}.png',
        text=sentence(number),
        text_path=f'{shard}/{number:04}.txt',
        sample_idx=5,
    )


def test_samples_of_webdataset_itself(tmp_path):
    """Written by its writer, in folders, with names that have several dots and capitals."""
    with wds.TarWriter(str(tmp_path / 'a.tar')) as writer:
        writer.write({'__key__': 'd/one', 'jpg': b'1', 'txt': 'a cat', 'json': {'width': 3}})
        writer.write({'__key__': 'd/two', 'JPEG': b'2', 'txt': 'a dog'})
    ours = [Shards(str(tmp_path / 'a.tar')).load(sample) for sample in read_shard(str(tmp_path / 'a.tar'))]
    assert [(x['key'], x['img_bytes'], x['text']) for x in ours] == [('d/one', b'1', 'a cat'), ('d/two', b'2', 'a dog')]


def test_images_alone_and_texts_alone(spec):
    images = Shards(spec, text=None).stream(ALL, Place()).take(SampleIndex(0, 0), lambda: None)
    texts = Shards(spec, image=None).stream(ALL, Place()).take(SampleIndex(0, 0), lambda: None)
    assert 'img_bytes' in images and 'text' not in images and 'text_path' not in images
    assert 'text' in texts and 'img_bytes' not in texts and 'img_path' not in texts


@pytest.mark.parametrize(('block', 'count'), [(1, 1), (1, 5), (4, 3), (6, 2), (7, 2), (24, 1), (30, 3)])
def test_streams_share_every_pass_among_them(spec, block, count):
    """After as many samples as make whole blocks and whole passes each sample was seen equally often."""
    passes = block * count  # of 24 samples: 24 blocks for each stream
    data = Shards(spec, block=block)
    seen = Counter()
    for number in range(count):
        seen.update(keys(data.stream(Part(number, count, 0), Place()), 24 * passes // count))
    assert set(seen) == {f'{i:04}' for i in range(24)} and set(seen.values()) == {passes}


def test_shuffling_is_by_seed_pass_and_stream(spec):
    data = Shards(spec, block=24)
    first, second = keys(data.stream(ALL, Place()), 24), keys(data.stream(Part(0, 1, 1), Place()), 24)
    assert first != sorted(first) and sorted(first) == sorted(second) and first != second
    stream = data.stream(ALL, Place())
    passes = [tuple(keys(stream, 24)) for _ in range(5)]
    assert len(set(passes)) == 5 and len({tuple(sorted(x)) for x in passes}) == 1
    shards = [tuple(data.url(ALL, 4 * epoch + i)[1] for i in range(4)) for epoch in range(5)]
    assert len(set(shards)) > 1 and len({tuple(sorted(x)) for x in shards}) == 1


def test_blocks_mix_shards(spec):
    """Of the first 24 samples, 12 of a block each, those of a shard are not together."""
    order = keys(Shards(spec, block=12).stream(ALL, Place()), 12)
    changes = sum(int(a) // 6 != int(b) // 6 for a, b in zip(order, order[1:], strict=False))
    assert changes > 2
    plain = keys(Shards(spec, block=1).stream(ALL, Place()), 24)
    assert [int(key) % 6 for key in plain] == list(range(6)) * 4


@pytest.mark.parametrize('block', [1, 4, 7, 30])
def test_a_stream_goes_on_from_every_place(spec, block):
    data, part = Shards(spec, block=block), Part(1, 3, 5)
    stream = data.stream(part, Place())
    order, places = [], [Place()]
    for _ in range(80):
        order += keys(stream, 1)
        places.append(stream.place)
    for i in range(0, 60, 7):
        resumed = data.stream(part, places[i])
        assert keys(resumed, 20) == order[i : i + 20], places[i]
        assert resumed.place == places[i + 20]


def test_going_on_reads_nothing_before_the_shard_of_the_block(spec, monkeypatch):
    data, read = Shards(spec, block=4), []
    stream = data.stream(ALL, Place())
    order = keys(stream, 50)
    place = stream.place
    order += keys(stream, 3)
    assert place == Place(shard=7, sample=6, taken=2)  # the block begins where the second pass ends
    monkeypatch.setattr('mmbeit.datasets.shards.read_shard', lambda url: read.append(url) or read_shard(url))
    assert keys(data.stream(ALL, place), 3) == order[50:]
    assert read == [
        data.url(ALL, shard)[1] for shard in (7, 8, 9)
    ]  # a sample of the last one took the place of the third


def test_a_pass_can_be_left_out(spec):
    data = Shards(spec)
    for number in range(3):
        part = Part(number, 3, 0)
        start = data.start_of(part, 2)
        assert data.url(part, start.shard)[0] >= 2 and (not start.shard or data.url(part, start.shard - 1)[0] < 2)


# ---- what is broken ----


def pair(number):
    return {'png': png(number), 'txt': sentence(number).encode()}


def refuse_png_3(results):
    return None if results['img_bytes'] == png(3) else results


@pytest.mark.parametrize(
    ('files', 'reason'),
    [
        ({'png': b'1'}, 'has no txt, only png'),
        ({'txt': b'1'}, 'has no jpg or jpeg or png or webp, only txt'),
        ({'png': b'1', 'txt': b'\xff'}, ".txt: 'utf-8' codec"),
    ],
)
def test_a_broken_sample_is_skipped_counted_and_named(tmp_path, files, reason):
    shard = write_tar(tmp_path / 'a.tar', [('0', pair(0)), ('1', files), ('2', pair(2))])
    stream = Shards(str(shard), block=1).stream(ALL, Place())
    with pytest.warns(UserWarning) as warned:
        assert keys(stream, 2) == ['0', '2']
    assert [str(w.message) for w in warned if reason in str(w.message)] == [str(warned[0].message)]
    assert str(warned[0].message).startswith(f'{shard}/1') and str(warned[0].message).endswith('it is skipped')
    assert stream.place.skipped == 1


def test_what_the_pipeline_refuses_is_counted(tmp_path):
    shard = write_tar(tmp_path / 'a.tar', [(str(i), pair(i)) for i in range(5)])
    stream = Shards(str(shard), [refuse_png_3], block=1).stream(ALL, Place())
    assert keys(stream, 8) == ['0', '1', '2', '4', '0', '1', '2', '4']
    assert stream.place.skipped == 2
    resumed = Shards(str(shard), [refuse_png_3], block=1).stream(ALL, stream.place)
    assert keys(resumed, 4) == ['0', '1', '2', '4'] and resumed.place.skipped == 3


def test_a_missing_shard_costs_a_line(tmp_path):
    spec = write_shards(tmp_path, 3, 2)
    (tmp_path / '01.tar').unlink()
    with pytest.warns(UserWarning, match=r'^shard .*/01.tar is missing; it is skipped$') as warned:
        assert set(keys(Shards(spec, block=2).stream(ALL, Place()), 4)) == {'0000', '0001', '0004', '0005'}
    assert len(warned) <= 2  # of the second pass, perhaps


@pytest.mark.parametrize(('cut', 'whole_samples'), [('image', 1), ('header', 2), ('between', 2), ('end', 4)])
def test_a_truncated_shard_gives_what_is_whole(tmp_path, cut, whole_samples):
    spec = write_shards(tmp_path, 2, 4)
    whole = list(read_shard(str(tmp_path / '00.tar')))
    content = (tmp_path / '00.tar').read_bytes()
    with tarfile.open(tmp_path / '00.tar') as tar:
        starts = [member.offset for member in tar]  # image, text, image, text, ...
    length = dict(image=starts[2] + 2000, header=starts[4] + 100, between=starts[4], end=starts[7] + 1024)[cut]
    (tmp_path / '00.tar').write_bytes(content[:length])
    line = r'^shard .*/00.tar cannot be read after \d samples: .*; the next one follows$'
    with pytest.warns(UserWarning, match=line) as warned:
        rest = list(read_shard(str(tmp_path / '00.tar')))
    assert len(warned) == 1
    assert rest == whole[: len(rest)] and len(rest) == whole_samples
    with pytest.warns(UserWarning, match=line):
        found = keys(Shards(spec, block=1).stream(ALL, Place()), 4 + whole_samples)
    assert sorted(found) == [f'{i:04}' for i in (*range(whole_samples), 4, 5, 6, 7)]


def test_a_file_that_is_no_shard(tmp_path):
    (tmp_path / 'a.tar').write_text('no tar file at all' * 100)
    with pytest.warns(UserWarning, match='a.tar cannot be read after 0 samples'):
        assert list(read_shard(str(tmp_path / 'a.tar'))) == []


@pytest.mark.parametrize('mode', ['gz', 'xz'])
def test_compressed_shards(tmp_path, mode):
    write_shards(tmp_path, 1, 4)
    whole = list(read_shard(str(tmp_path / '00.tar')))
    with tarfile.open(tmp_path / f'00.tar.{mode}', f'w:{mode}') as packed, tarfile.open(tmp_path / '00.tar') as tar:
        for member in tar:
            packed.addfile(member, tar.extractfile(member))
    path = tmp_path / f'00.tar.{mode}'
    ours = list(read_shard(str(path)))
    assert [{**sample, '__url__': whole[0]['__url__']} for sample in ours] == whole
    path.write_bytes(path.read_bytes()[:-3000])
    with pytest.warns(UserWarning, match='cannot be read after'):
        assert len(list(read_shard(str(path)))) < 4


@pytest.mark.filterwarnings('ignore:shard')
def test_shards_without_any_sample_stop_the_run(tmp_path):
    with pytest.raises(ValueError, match=r'2 shards in a row, .*0.tar among them, had no samples'):
        keys(Shards(f'{tmp_path}/{{0,1}}.tar').stream(ALL, Place()), 1)


@pytest.mark.filterwarnings('ignore:.*it is skipped')
def test_samples_that_are_all_refused_stop_the_run(tmp_path):
    shard = write_tar(tmp_path / 'a.tar', [(str(i), {'png': b'1'}) for i in range(5)])
    with pytest.raises(ValueError, match=r'no sample of 1000 in a row can be used, the last one .*a.tar/\d'):
        keys(Shards(str(shard), block=2).stream(ALL, Place()), 1)


def test_shards_of_which_none_is_there(spec, tmp_path):
    with pytest.raises(FileNotFoundError, match=r'^no such shards: .*/0.tar to .*/2.tar$'):
        Shards(f'{tmp_path}/{{0..2}}.tar').full_init()
    with pytest.raises(FileNotFoundError, match=r'^no such shards: .*/a.tar$'):
        Shards(f'{tmp_path}/a.tar').full_init()
    for shards in (spec, [f'{tmp_path}/a.tar', 'https://example.org/a.tar'], f'pipe:cat {tmp_path}/a.tar'):
        Shards(shards).full_init()


def test_arguments():
    with pytest.raises(ValueError, match=r'block \(0\) is not positive'):
        Shards('a.tar', block=0)
    with pytest.raises(ValueError, match=r'num_streams \(-1\) is not positive'):
        Shards('a.tar', num_streams=-1)
    with pytest.raises(ValueError, match='image and text are both None'):
        Shards('a.tar', image=None, text=None)
    with pytest.raises(ValueError, match='shards names no shard'):
        Shards([])
    assert Shards(['a{0..2}.tar', 'b.tar']).urls == ['a0.tar', 'a1.tar', 'a2.tar', 'b.tar']
