"""What comes from outside: every kind of picture and JSON is understood, or refused by name."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from gligen_lessons import reading

RAMP = np.linspace(0, 65535, 24).astype(np.uint16).reshape(4, 6)


def saved(path, image, **options):
    image.save(path, **options)
    return path


@pytest.mark.parametrize("name, image", [
    ("grey.png", Image.fromarray(RAMP)), ("grey.tif", Image.fromarray(RAMP)),
    ("big.tif", Image.fromarray(RAMP.astype(">u2")))])
def test_sixteen_bits_are_scaled_to_eight(tmp_path, name, image):
    found = np.asarray(reading.picture(saved(tmp_path / name, image)), int)
    assert found.shape == (4, 6, 3)
    np.testing.assert_array_equal(found[..., 1], np.rint(RAMP / 257.))


@pytest.mark.parametrize("mode, ending", [
    ("1", "png"), ("L", "png"), ("LA", "png"), ("P", "png"), ("RGB", "png"), ("RGBA", "png"),
    ("CMYK", "jpg"), ("YCbCr", "jpg"), ("L", "jpg"), ("P", "gif"), ("RGBA", "webp")])
def test_every_mode_of_eight_bits_is_what_pillow_shows(tmp_path, mode, ending):
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).convert(mode)
    path = saved(tmp_path / f"a.{ending}", image)
    np.testing.assert_array_equal(reading.picture(path, (8, 8)), Image.open(path).convert("RGB"))


@pytest.mark.parametrize("image, mode", [
    (Image.fromarray(np.linspace(0, 1, 12, dtype=np.float32).reshape(3, 4)), "F"),
    (Image.fromarray(np.arange(12, dtype=np.int32).reshape(3, 4)), "I"),
    (Image.new("LAB", (4, 3)), "LAB")])
def test_a_mode_that_names_no_white_is_refused(tmp_path, image, mode):
    with pytest.raises(ValueError, match=f"its mode {mode} does not say which number is white"):
        reading.picture(saved(tmp_path / "a.tif", image))


def png(width, height, body=b""):
    """The bytes of a PNG whose header says its size and whose pixels are missing."""
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(
            ">I", zlib.crc32(kind + data))

    head = struct.pack(">II5B", width, height, 8, 2, 0, 0, 0)
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(body))
            + chunk(b"IEND", b""))


@pytest.mark.parametrize("data, says", [
    (png(20_000, 20_000), "pixels"), (png(2 ** 31 - 1, 1), "pixels"), (png(9_500, 9_500), "more"),
    (png(4, 4), "."), (png(4, 4)[:40], "."), (b"", "."), (b"GIF89a", "."), (b"\x89PNG", ".")])
def test_damaged_and_giant_pictures_are_one_sentence(tmp_path, data, says):
    (tmp_path / "a.png").write_bytes(data)
    with pytest.raises(ValueError, match=says) as caught:
        reading.picture(tmp_path / "a.png")
    assert "\n" not in str(caught.value)


def test_another_size_is_told_from_damage(tmp_path):
    with pytest.raises(reading.OtherSize, match="are 5 and 4, but a.png is 4 by 3 pixels"):
        reading.picture(saved(tmp_path / "a.png", Image.new("RGB", (4, 3))), (5, 4))


@pytest.mark.parametrize("data, says", [
    (b"{", "cannot be read as JSON"), (b"\xff\xfe\xfd", "cannot be read as JSON"),
    (b"[" * 200_000, r"\(its lists are nested too deeply\)"), (b"[1]", "must hold a JSON"),
    (b'{"a":' * 200_000, "nested too deeply"), (b"", "cannot be read as JSON")])
def test_json_that_is_no_object_is_named(tmp_path, data, says):
    (tmp_path / "a.json").write_bytes(data)
    with pytest.raises(ValueError, match=f"a.json {says}|a.json cannot be read as JSON .*{says}"):
        reading.json_object(tmp_path / "a.json")


def test_json_with_a_mark_of_byte_order_is_read(tmp_path):
    (tmp_path / "a.json").write_bytes(b'\xef\xbb\xbf{"a": 1}')
    assert reading.json_object(tmp_path / "a.json") == {"a": 1}


@pytest.mark.parametrize("value, whole, number", [
    (3, True, True), (True, False, False), (3., False, True), (float("nan"), False, False),
    (float("inf"), False, False), ("3", False, False), (10 ** 400, True, False),
    (None, False, False)])
def test_numbers(value, whole, number):
    assert reading.is_whole(value) is whole and reading.is_number(value) is number
