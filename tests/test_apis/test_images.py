"""Pictures of every colour mode, from everywhere, and broken ones."""

import io
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import cv2
import numpy as np
import pytest
from PIL import Image

from mmbeit.apis.images import ImageError, list_images, read_image

PIXELS = np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [40, 80, 120]], [[0, 0, 0], [255, 255, 255]]], np.uint8)
GREY = np.array([[0, 60, 255], [10, 200, 129]], np.uint8)
MODES = ['1', 'L', 'LA', 'P', 'RGB', 'RGBA', 'I;16']
ORIENTATION = 274


def grey_picture(mode):
    if mode == 'I;16':
        return Image.fromarray(GREY.astype(np.uint16) * 256 + 77)
    image = Image.fromarray(GREY)
    if mode in ('LA', 'RGBA'):
        image = image.convert(mode)
        image.putalpha(Image.fromarray(GREY[::-1].copy()))
    return image.convert(mode)


def as_rgb(grey):
    return np.repeat(grey[..., None], 3, axis=2)


@pytest.mark.parametrize('mode', MODES)
def test_modes_of_png(mode, tmp_path):
    path = tmp_path / 'image.png'
    grey_picture(mode).save(path)
    expected = as_rgb(np.where(GREY > 127, 255, 0) if mode == '1' else GREY)
    image = read_image(path)
    assert image.mode == 'RGB'
    if mode == '1':
        expected = np.array(grey_picture('1').convert('RGB'))
    assert np.array_equal(image, expected)
    assert np.array_equal(image, cv2.imread(str(path))[..., ::-1]), 'what the recipes read'


@pytest.mark.parametrize('mode', ['CMYK', 'YCbCr', 'L', 'RGB'])
def test_modes_of_jpeg(mode, tmp_path):
    path = tmp_path / 'image.jpg'
    original = Image.new('RGB', (16, 16), (200, 120, 40))
    original.convert(mode).save(path, quality=100)
    image = read_image(path)
    expected = np.array(original.convert('L').convert('RGB') if mode == 'L' else original, dtype=int)
    assert image.mode == 'RGB' and image.size == (16, 16) and np.abs(np.array(image) - expected).max() <= 4


def test_16_bits_of_colour(tmp_path):
    pixels = PIXELS.astype(np.uint16) * 257
    cv2.imwrite(str(tmp_path / 'image.png'), pixels[..., ::-1])
    cv2.imwrite(str(tmp_path / 'image.tif'), GREY.astype(np.uint16) * 257)
    assert np.array_equal(read_image(tmp_path / 'image.png'), PIXELS)
    assert np.array_equal(read_image(tmp_path / 'image.tif'), as_rgb(GREY))


@pytest.mark.parametrize('orientation', range(1, 9))
def test_orientation(orientation, tmp_path):
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    large = np.kron(PIXELS, np.ones((16, 16, 1), np.uint8))
    path = tmp_path / 'image.jpg'
    Image.fromarray(large).save(path, exif=exif, quality=100, subsampling=0)
    seen = np.array(read_image(path), dtype=int)
    turns = {1: 0, 2: 0, 3: 2, 4: 2, 5: 1, 6: 3, 7: 3, 8: 1}[orientation]
    expected = large if orientation in (1, 3, 6, 8) else large[:, ::-1]
    assert np.abs(seen - np.rot90(expected, turns)).max() < 12
    assert np.abs(seen - cv2.imread(str(path))[..., ::-1].astype(int)).max() < 12, 'what the recipes read'
    with Image.open(path) as image:
        assert np.array_equal(read_image(image), seen)


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


@pytest.mark.parametrize('notes', [b'Exif\0\0', b'Exif\0\0garbage', b'Exif\0\0II*\0\x08\0\0\0\xff\xff\x12\x01'])
def test_damaged_notes_of_a_camera_do_no_harm(tmp_path, notes):
    path = tmp_path / 'image.jpg'
    Image.new('RGB', (16, 8), (10, 20, 30)).save(path, exif=notes)
    assert read_image(path).size == (16, 8)


def test_sources(tmp_path):
    path = tmp_path / 'image.png'
    Image.fromarray(PIXELS).save(path)
    bgr = np.ascontiguousarray(PIXELS[..., ::-1])
    with ThreadingHTTPServer(('127.0.0.1', 0), partial(QuietHandler, directory=str(tmp_path))) as httpd:
        threading.Thread(target=httpd.serve_forever, kwargs=dict(poll_interval=0.01), daemon=True).start()
        url = f'http://127.0.0.1:{httpd.server_port}'
        sources = [path, str(path), path.read_bytes(), Image.fromarray(PIXELS), bgr, f'{url}/image.png']
        sources += [np.dstack([bgr, bgr[..., :1]]), bgr.astype(np.uint16) * 257, bgr[:, ::-1][:, ::-1]]
        for source in sources:
            assert np.array_equal(read_image(source), PIXELS)
        with pytest.raises(ImageError, match=f'cannot read image {url}/none.png: .*404'):
            read_image(f'{url}/none.png')
        httpd.shutdown()
    for grey in (GREY, GREY[..., None]):
        assert np.array_equal(read_image(grey), as_rgb(GREY))


def broken():
    whole = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(whole, 'JPEG')
    whole = whole.getvalue()
    floats = io.BytesIO()
    Image.fromarray(np.zeros((2, 2), np.float32)).save(floats, 'TIFF')
    return {
        'empty': b'',
        'text': b'hello',
        'start': whole[:100],
        'half': whole[: len(whole) // 2],
        'floats': floats.getvalue(),
        'array of floats': np.zeros((4, 4, 3)),
        'array of a batch': np.zeros((1, 4, 4, 3), np.uint8),
        'array of nothing': np.zeros((0, 4, 3), np.uint8),
        'two channels': np.zeros((4, 4, 2), np.uint8),
        'none': None,
        'number': 3,
    }


@pytest.mark.parametrize('kind', broken())
def test_what_cannot_be_read_gives_one_line(kind, tmp_path):
    source = broken()[kind]
    with pytest.raises(ImageError, match='^cannot read image .*: .') as error:
        read_image(source)
    assert '\n' not in str(error.value) and len(str(error.value)) < 160
    if isinstance(source, bytes):
        path = tmp_path / 'image.jpg'
        path.write_bytes(source)
        with pytest.raises(ImageError, match=f'cannot read image {path}'):
            read_image(path)


def test_a_path_that_is_not_there():
    with pytest.raises(ImageError, match='cannot read image nowhere.png: no such file'):
        read_image('nowhere.png')


def test_images_of_a_folder(tmp_path):
    for name in ('b.JPG', 'a/c.png', 'notes.txt'):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert list_images(tmp_path) == [tmp_path / 'a' / 'c.png', tmp_path / 'b.JPG']
    (tmp_path / 'empty').mkdir()
    with pytest.raises(FileNotFoundError, match='no images in .*empty: expected files that end in .bmp, .gif'):
        list_images(tmp_path / 'empty')
