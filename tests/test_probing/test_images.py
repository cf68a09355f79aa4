"""Images with classes, as mmpretrain finds them, and the same classes for training and evaluation."""

import pytest
import torch
from mmengine.registry import DATASETS
from PIL import Image

from mmbeit.probing.images import hold_out, match_classes, read_images


@pytest.fixture
def write(tmp_path):
    """Write empty pictures; give their folder."""

    def run(folder, *names):
        for name in names:
            path = tmp_path / folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new('RGB', (4, 4)).save(path)
        return tmp_path / folder

    return run


def theirs(**kwargs):
    found = DATASETS.build(dict(type='mmpretrain.CustomDataset', pipeline=[], **kwargs))
    return [(found[i]['img_path'], found[i]['gt_label']) for i in range(len(found))], found.CLASSES


def ours(*args):
    found = read_images(*args)
    paths = [str(found.path(i)) for i in range(len(found))]
    return list(zip(paths, found.labels.tolist(), strict=True)), found.classes


def test_folders_against_mmpretrain(write):
    folder = write('x', 'b/2.png', 'b/1.JPG', 'a/deep/3.png', 'c/4.bmp', '10/5.png')
    (folder / 'empty').mkdir()
    (folder / 'a' / 'notes.txt').touch()
    samples, classes = ours(folder)
    expected, expected_classes = theirs(data_root=str(folder))
    assert samples == expected
    assert tuple(classes) == expected_classes == ('10', 'a', 'b', 'c', 'empty')


def test_lists_against_mmpretrain(write, tmp_path):
    folder = write('x', 'a b/1.png', '2.png', 'c/3.png')
    (tmp_path / 'list.txt').write_text('c/3.png 4\n2.png 0\na b/1.png 10\n')
    samples, classes = ours(folder, tmp_path / 'list.txt')
    assert samples == theirs(data_prefix=str(folder), ann_file=str(tmp_path / 'list.txt'))[0]
    assert classes is None


def test_hidden_folders_are_no_classes(write):
    folder = write('x', 'a/1.png', '.ipynb_checkpoints/1.png')
    assert read_images(folder).classes == ['a']


def test_what_is_no_data_set(write, tmp_path):
    with pytest.raises(FileNotFoundError, match=f'no such folder: {tmp_path}/none'):
        read_images(tmp_path / 'none')
    folder = write('flat', '1.png')
    with pytest.raises(FileNotFoundError, match=f'no images in {folder}: expected {folder}/CLASS/ with files'):
        read_images(folder)
    lines = tmp_path / 'list.txt'
    with pytest.raises(FileNotFoundError):
        read_images(folder, lines)
    for line in ('1.png', '1.png x', '1.png -1', '0'):
        lines.write_text(f'1.png 0\n\n{line}\n')
        with pytest.raises(ValueError, match=f"line 3 of {lines} is '{line}': expected NAME LABEL"):
            read_images(folder, lines)
    lines.write_text('\n')
    with pytest.raises(FileNotFoundError, match=f'no images in {lines}'):
        read_images(folder, lines)
    lines.write_text('flat/1.png 0')
    with pytest.raises(FileNotFoundError, match=f'no such file: {folder}/flat/1.png, the first of {lines}'):
        read_images(folder, lines)


def test_classes_are_matched_by_name(write):
    train = read_images(write('train', 'a/1.png', 'b/1.png', 'c/1.png', 'c/2.png'))
    val = read_images(write('val', 'b/1.png', 'c/1.png'))
    assert val.labels.tolist() == [0, 1]
    ours, others, num_classes = match_classes(train, val)
    assert (ours.tolist(), others.tolist(), num_classes) == ([0, 1, 2, 2], [1, 2], 3)


def test_classes_that_differ(write, tmp_path):
    train = read_images(write('train', 'a/1.png', 'b/1.png'))
    val = read_images(write('val', 'b/1.png', 'x/1.png', 'y/1.png'))
    with pytest.raises(ValueError, match=r'val has 2 of its 3 classes for itself: .*train has no image of x, y$'):
        match_classes(train, val)
    (tmp_path / 'train' / 'x').mkdir()
    (tmp_path / 'train' / 'y').mkdir()
    with pytest.raises(ValueError, match='has no image of x, y'):
        match_classes(read_images(tmp_path / 'train'), val)
    with pytest.raises(ValueError, match='are both .*train'):
        match_classes(train, read_images(tmp_path / 'train'))


def test_an_empty_folder_of_val_is_no_class(write, tmp_path):
    train = read_images(write('train', 'a/1.png', 'b/1.png'))
    folder = write('val', 'a/1.png')
    (folder / 'x').mkdir()
    assert match_classes(train, read_images(folder))[1].tolist() == [0]


def test_numbers_of_a_list_are_those_of_the_folders_in_order(write, tmp_path):
    train = read_images(write('train', 'a/1.png', 'b/1.png'))
    val_folder = write('val', '1.png', '2.png')
    (tmp_path / 'val.txt').write_text('1.png 1\n2.png 0\n')
    val = read_images(val_folder, tmp_path / 'val.txt')
    assert match_classes(train, val)[1].tolist() == [1, 0]
    assert match_classes(val, train)[2] == 2
    (tmp_path / 'val.txt').write_text('1.png 1\n2.png 2\n')
    val = read_images(val_folder, tmp_path / 'val.txt')
    for both in ((train, val), (val, train)):
        with pytest.raises(ValueError, match=r'val.txt has the label 2, but .*train has 2 class folders'):
            match_classes(*both)


def test_numbers_of_two_lists(write, tmp_path):
    folder = write('x', '1.png', '2.png')
    (tmp_path / 'a.txt').write_text('1.png 5\n2.png 0\n')
    (tmp_path / 'b.txt').write_text('1.png 5\n')
    (tmp_path / 'c.txt').write_text('1.png 4\n')
    a, b, c = (read_images(folder, tmp_path / f'{name}.txt') for name in 'abc')
    assert match_classes(a, b)[1:] == (torch.tensor([5]), 6)
    with pytest.raises(ValueError, match=r'a.txt has no image of 4$'):
        match_classes(a, c)


def test_a_share_of_every_class_is_held_out():
    labels = torch.tensor([0] * 10 + [1] * 3 + [2] * 2 + [3])
    held = hold_out(labels, 0.2, seed=0)
    assert [int(held[labels == label].sum()) for label in range(4)] == [2, 1, 1, 0]
    assert torch.equal(held, hold_out(labels, 0.2, seed=0))
    assert not torch.equal(held, hold_out(labels, 0.2, seed=1))
    assert [int(hold_out(labels, 0.9, 0)[labels == label].sum()) for label in range(4)] == [9, 2, 1, 0]
    for fraction in (0, 1, -0.5):
        with pytest.raises(ValueError, match='is not above 0 and below 1'):
            hold_out(labels, fraction, 0)
    with pytest.raises(ValueError, match='no class has two training images'):
        hold_out(torch.arange(4), 0.5, 0)
