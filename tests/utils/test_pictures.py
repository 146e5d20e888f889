"""Opening pictures of every kind people have."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from xmodaler.utils.errors import UserError
from xmodaler.utils.pictures import load_picture


def encoded(picture, kind="PNG", **options):
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def pixels(source, **options):
    picture = load_picture(source, **options)
    assert picture.mode == "RGB" and type(picture) is Image.Image
    return np.asarray(picture)


def gradient(mode="RGB", size=(8, 6)):
    values = np.arange(size[0] * size[1] * 3, dtype=np.uint8).reshape(size[1], size[0], 3)
    return Image.fromarray(values).convert(mode)


def test_path_bytes_and_file_agree(tmp_path):
    data = encoded(gradient())
    (tmp_path / "a.png").write_bytes(data)
    expected = np.asarray(gradient())
    np.testing.assert_array_equal(pixels(tmp_path / "a.png"), expected)
    np.testing.assert_array_equal(pixels(str(tmp_path / "a.png")), expected)
    np.testing.assert_array_equal(pixels(data), expected)
    with open(tmp_path / "a.png", "rb") as file:
        np.testing.assert_array_equal(pixels(file), expected)


@pytest.mark.parametrize("mode", ["1", "L"])
def test_grey_becomes_equal_channels(mode):
    values = pixels(encoded(gradient("L").convert(mode)))
    assert (values == values[..., :1]).all()


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_is_laid_on_white(mode):
    picture = Image.new(mode, (2, 1), (0, 0, 0, 0) if mode == "RGBA" else (0, 0))
    picture.putpixel((1, 0), (10, 10, 10, 255) if mode == "RGBA" else (10, 255))
    assert pixels(encoded(picture)).tolist() == [[[255] * 3, [10] * 3]]


def test_half_transparent_black_is_grey():
    assert abs(int(pixels(encoded(Image.new("RGBA", (1, 1), (0, 0, 0, 128))))[0, 0, 0]) - 127) <= 1


def test_palette_with_and_without_transparency():
    picture = Image.new("P", (2, 1))
    picture.putpalette([200, 0, 0, 0, 100, 0])
    picture.putpixel((1, 0), 1)
    assert pixels(encoded(picture)).tolist() == [[[200, 0, 0], [0, 100, 0]]]
    assert pixels(encoded(picture, transparency=0)).tolist() == [[[255] * 3, [0, 100, 0]]]


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bits_are_scaled_not_clipped(kind):
    values = np.array([[0, 257, 32896, 65535]], dtype=np.uint16)
    assert pixels(encoded(Image.fromarray(values), kind))[0, :, 0].tolist() == [0, 1, 128, 255]


def test_dark_sixteen_bit_pictures_stay_dark():
    values = np.full((4, 4), 300, dtype=np.uint16)
    assert pixels(encoded(Image.fromarray(values))).max() == 1


def test_float_pictures_are_scaled():
    values = np.array([[0.0, 0.5, 1.0]], dtype=np.float32)
    assert pixels(encoded(Image.fromarray(values), "TIFF"))[0, :, 0].tolist() == [0, 128, 255]
    values = np.array([[-10.0, np.nan, 10.0]], dtype=np.float32)
    assert pixels(encoded(Image.fromarray(values), "TIFF"))[0, :, 0].tolist() == [0, 0, 255]


def test_cmyk_jpeg():
    red = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    values = pixels(encoded(red, "JPEG"))
    assert values[..., 0].min() > 200 and values[..., 1:].max() < 60


@pytest.mark.parametrize(("orientation", "corner"), [(1, (0, 0)), (3, (-1, -1)), (6, (0, -1))])
def test_exif_rotation_is_applied(orientation, corner):
    picture = Image.new("RGB", (16, 8))
    picture.paste((255, 255, 255), (0, 0, 4, 4))
    exif = Image.Exif()
    exif[0x0112] = orientation
    values = pixels(encoded(picture, "JPEG", exif=exif, quality=95))
    assert values.shape == ((16, 8, 3) if orientation == 6 else (8, 16, 3))
    assert values[corner].min() > 200


def test_damaged_exif_does_not_lose_the_picture():
    data = encoded(gradient(), "JPEG", exif=b"Exif\x00\x00MM\x00*\x00\x00\xff\xff broken")
    assert pixels(data).shape == (6, 8, 3)


def test_of_an_animation_the_first_frame_is_taken():
    frames = [Image.new("RGB", (4, 4), color) for color in ("red", "blue")]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:], duration=10)
    assert pixels(data)[0, 0].tolist() == [255, 0, 0]


@pytest.mark.parametrize("kind", ["BMP", "WEBP", "GIF", "JPEG"])
def test_other_formats(kind):
    assert pixels(encoded(Image.new("RGB", (3, 2), (255, 0, 0)), kind)).shape == (2, 3, 3)


def test_big_jpegs_are_decoded_smaller_when_allowed():
    data = encoded(Image.new("RGB", (800, 400), (10, 200, 30)), "JPEG")
    assert pixels(data, min_side=100).shape == (100, 200, 3)
    assert pixels(data, min_side=90).shape == (100, 200, 3)
    assert pixels(data, min_side=399).shape == (400, 800, 3)
    assert pixels(data).shape == (400, 800, 3)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP", "TIFF"])
def test_truncated_pictures_are_named(tmp_path, kind):
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    data = encoded(Image.fromarray(noise), kind)
    path = tmp_path / "cut.img"
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(UserError, match=r"cut\.img' is (truncated|damaged|not in)"):
        load_picture(path)


def test_files_that_are_no_pictures_are_named(tmp_path):
    (tmp_path / "empty.jpg").write_bytes(b"")
    (tmp_path / "text.jpg").write_text("this is no picture")
    for name, text in {
        "empty.jpg": r"is empty \(0 bytes\)",
        "text.jpg": "not in a picture format",
        "missing.jpg": "does not exist",
    }.items():
        with pytest.raises(UserError, match=text) as caught:
            load_picture(tmp_path / name)
        assert name in str(caught.value)
    with pytest.raises(UserError, match="is a folder"):
        load_picture(tmp_path)
    with pytest.raises(UserError, match="in memory is empty"):
        load_picture(b"")


def bomb(width, height):
    """A PNG that declares a size and holds next to nothing."""

    def chunk(kind, content):
        crc = zlib.crc32(kind + content)
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", crc)

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


@pytest.mark.parametrize("side", [15_000, 60_000])
def test_decompression_bombs_are_refused_before_decoding(tmp_path, side):
    (tmp_path / "bomb.png").write_bytes(bomb(side, side))
    with pytest.raises(UserError, match=r"bomb\.png' (is too large|declares too many pixels)"):
        load_picture(tmp_path / "bomb.png")


def test_the_size_limit_can_be_chosen():
    data = encoded(gradient())
    with pytest.raises(UserError, match="8x6 has more than 47 pixels"):
        load_picture(data, max_pixels=47)
    assert load_picture(data, max_pixels=48).size == (8, 6)
