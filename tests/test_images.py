"""Photos with known pixels, built here, through `open_photo`; and files that it refuses in one sentence."""

from __future__ import annotations

import gc
import io
import os
import random
import struct
import sys
import threading
import warnings
import zlib

import numpy as np
import pytest
from PIL import ExifTags, Image, features

from alexnet import images
from alexnet.images import PHOTO_SUFFIXES, PhotoError, check_photo, open_photo

RED, BLUE, WHITE = (255, 0, 0), (0, 0, 255), (255, 255, 255)


def encode(image: Image.Image, format: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def red_blue(width: int = 64, height: int = 32) -> Image.Image:
    """Left half red, right half blue."""
    image = Image.new("RGB", (width, height), RED)
    image.paste(BLUE, (width // 2, 0, width, height))
    return image


def png_header(width: int, height: int) -> bytes:
    """A PNG that promises `width` x `height` pixels and holds next to nothing."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def refusal(source, **options) -> str:
    """The sentence with which `source` is refused; checks that it is one sentence for a person."""
    with pytest.raises(PhotoError) as caught:
        open_photo(source, **options)
    text = str(caught.value)
    assert text[0].isupper() and text.endswith(".") and ". " not in text and "\n" not in text
    return text


def test_every_format_keeps_its_colours():
    pillow_heif = pytest.importorskip("pillow_heif")
    pillow_heif.register_heif_opener()  # for writing
    formats = ["JPEG", "MPO", "PNG", "WEBP", "GIF", "BMP", "TIFF", "HEIF"]
    if features.check("avif"):
        formats.append("AVIF")
    for format in formats:
        photo = open_photo(encode(red_blue(), format))
        assert (photo.mode, photo.size) == ("RGB", (64, 32)), format
        for place, colour in (((8, 8), RED), ((56, 24), BLUE)):
            assert np.abs(np.subtract(photo.getpixel(place), colour)).max() <= 4, format


def test_all_kinds_of_source_give_the_same_photo(tmp_path):
    data = encode(red_blue(), "PNG")
    path = tmp_path / "photo.png"
    path.write_bytes(data)
    expected = red_blue().tobytes()
    for source in (data, bytearray(data), memoryview(data), str(path), path):
        assert open_photo(source).tobytes() == expected


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF", "HEIF"])
def test_exif_rotation_is_applied(format):
    if format == "HEIF":
        pytest.importorskip("pillow_heif").register_heif_opener()
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6  # the camera was turned: rotate by 90 degrees clockwise to see it upright
    photo = open_photo(encode(red_blue(), format, exif=exif.tobytes()))
    assert photo.size == (32, 64)
    assert photo.getpixel((16, 8))[0] > 240 and photo.getpixel((16, 56))[2] > 240  # red above, blue below


@pytest.mark.parametrize(
    ("orientation", "red_corner"),
    [(1, "left top"), (2, "right top"), (3, "right bottom"), (4, "left bottom")]
    + [(5, "left top"), (6, "right top"), (7, "right bottom"), (8, "left bottom")],
)
def test_all_eight_orientations(orientation, red_corner):
    image = Image.new("RGB", (24, 16), BLUE)
    image.paste(RED, (0, 0, 8, 8))
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    photo = open_photo(encode(image, "PNG", exif=exif))
    assert photo.size == ((24, 16) if orientation <= 4 else (16, 24))
    horizontal, vertical = red_corner.split()
    x = 2 if horizontal == "left" else photo.width - 3
    y = 2 if vertical == "top" else photo.height - 3
    assert photo.getpixel((x, y)) == RED


def test_damaged_exif_does_not_cost_the_photo():
    exif = b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + b"\x12\x01" * 9
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert open_photo(encode(red_blue(), "PNG", exif=exif)).tobytes() == red_blue().tobytes()


@pytest.mark.parametrize("orientation", [None, 0, 9])
def test_an_orientation_that_there_is_not_leaves_the_photo_as_it_is(orientation):
    exif = Image.Exif()
    if orientation is not None:
        exif[ExifTags.Base.Orientation] = orientation
    assert open_photo(encode(red_blue(), "PNG", exif=exif)).tobytes() == red_blue().tobytes()


def test_transparency_is_composited_on_white():
    rgba = Image.new("RGBA", (16, 16), (0, 0, 0, 0))  # black, and fully transparent
    rgba.paste((255, 0, 0, 255), (8, 0, 16, 16))
    rgba.putpixel((0, 0), (0, 0, 0, 51))  # black at 20 %
    photo = open_photo(encode(rgba, "PNG"))
    assert photo.getpixel((4, 4)) == WHITE
    assert photo.getpixel((12, 4)) == RED
    assert photo.getpixel((0, 0)) == (204, 204, 204)

    grey = open_photo(encode(Image.new("LA", (16, 16), (0, 51)), "PNG"))
    assert grey.getpixel((4, 4)) == (204, 204, 204)


@pytest.mark.parametrize("format", ["PNG", "GIF"])
def test_transparent_palette_colour_is_white(format):
    image = Image.new("P", (16, 16), 1)
    image.putpalette([*RED, *BLUE])
    image.paste(0, (8, 0, 16, 16))
    photo = open_photo(encode(image, format, transparency=1))
    assert (photo.getpixel((4, 4)), photo.getpixel((12, 4))) == (WHITE, RED)


def test_transparent_colour_key_is_white():
    photo = open_photo(encode(red_blue(), "PNG", transparency=BLUE))
    assert (photo.getpixel((4, 4)), photo.getpixel((60, 4))) == (RED, WHITE)


def test_palette_with_alpha_channel():
    image = Image.new("PA", (16, 16), (0, 255))
    image.putpalette([*RED, *BLUE])
    image.paste((1, 0), (8, 0, 16, 16))
    photo = open_photo(encode(image, "TIFF"))
    assert (photo.getpixel((4, 4)), photo.getpixel((12, 4))) == (RED, WHITE)


@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_sixteen_bits_are_divided_by_257(format):
    values = np.array([0, 257, 128 * 257, 257 * 254 + 200, 65535], dtype=np.uint16)
    image = Image.fromarray(np.tile(np.repeat(values, 4), (8, 1)))
    assert image.mode == "I;16"
    photo = open_photo(encode(image, format))
    assert [photo.getpixel((4 * i, 3)) for i in range(5)] == [(v,) * 3 for v in (0, 1, 128, 255, 255)]
    dark = Image.fromarray(np.full((8, 8), 255, dtype=np.uint16))  # its file says how bright white is
    assert open_photo(encode(dark, format)).getpixel((4, 4)) == (1, 1, 1)


@pytest.mark.parametrize(
    ("dtype", "values", "levels"),
    [
        (np.float32, [0.0, 0.2, 1.0], [0, 51, 255]),  # 0 to 1
        (np.float32, [0.0, 51.0, 200.0], [0, 51, 200]),  # 0 to 255
        (np.int32, [0, 257, 65535], [0, 1, 255]),  # 0 to 65535
        (np.int32, [-100, 0, 100], [0, 128, 255]),  # no usual range: lowest black, highest white
        (np.int32, [-7, -7, -7], [0, 0, 0]),
        (np.int32, [0, 100, 65536], [0, 0, 255]),
        (np.int32, [-100, 0, 65435], [0, 0, 255]),
        (np.float32, [-0.5, 0.0, 0.0], [0, 128, 128]),
        (np.float32, [0.0, np.inf, np.nan], [0, 255, 0]),
        (np.float32, [1.0, -np.inf, np.inf], [255, 0, 255]),
        (np.float32, [-np.inf, np.nan, np.inf], [0, 0, 255]),
    ],
)
def test_wide_grey_levels_are_scaled_by_their_range(dtype, values, levels):
    image = Image.fromarray(np.tile(np.repeat(np.array(values, dtype=dtype), 4), (8, 1)))
    assert image.mode in ("I", "F")
    photo = open_photo(encode(image, "TIFF"))
    assert [photo.getpixel((4 * i, 3)) for i in range(3)] == [(level,) * 3 for level in levels]


def test_cmyk_and_grey_become_rgb():
    assert open_photo(encode(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "TIFF")).getpixel((4, 4)) == RED
    # Photoshop's inverted CMYK: Pillow writes its JPEGs that way and turns them back
    red, _, blue = open_photo(encode(red_blue().convert("CMYK"), "JPEG", quality=95)).getpixel((8, 8))
    assert red > 240 and blue < 15
    assert open_photo(encode(Image.new("L", (16, 16), 99), "PNG")).getpixel((4, 4)) == (99, 99, 99)
    assert open_photo(encode(Image.new("1", (16, 16), 1), "PNG")).getpixel((4, 4)) == WHITE


@pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG", "TIFF"])
def test_first_frame_of_several(format):
    frames = [Image.new("RGB", (16, 16), colour) for colour in (RED, BLUE)]
    data = encode(frames[0], format, save_all=True, append_images=frames[1:])
    assert open_photo(data).getpixel((4, 4))[0] > 240


def test_at_least_reduces_a_jpeg_and_keeps_it_right():
    data = encode(red_blue(1600, 800), "JPEG", quality=95)
    assert open_photo(data, at_least=100).size == (200, 100)
    assert open_photo(data, at_least=101).size == (400, 200)
    assert open_photo(data, at_least=801).size == (1600, 800)
    pair = encode(red_blue(1600, 800), "MPO", save_all=True, append_images=[red_blue(1600, 800)])
    assert Image.open(io.BytesIO(pair)).format == "MPO" and open_photo(pair, at_least=100).size == (200, 100)
    small = open_photo(data, at_least=100)
    for place, colour in (((50, 50), RED), ((150, 50), BLUE)):
        assert np.abs(np.subtract(small.getpixel(place), colour)).max() <= 2
    assert open_photo(encode(red_blue(1600, 800), "PNG"), at_least=100).size == (1600, 800)


def test_a_check_tells_the_upright_size_of_the_whole_photo():
    exif = Image.Exif()
    assert check_photo(encode(red_blue(1601, 803), "JPEG")) == (1601, 803)
    for format in ("JPEG", "PNG"):
        for orientation in range(1, 9):
            exif[ExifTags.Base.Orientation] = orientation
            data = encode(red_blue(161, 83), format, exif=exif)
            assert check_photo(data) == open_photo(data).size == ((161, 83) if orientation < 5 else (83, 161))


def test_too_many_pixels_is_refused_before_decoding():
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # Pillow's DecompressionBombWarning must not surface either
        for width, height in ((9000, 9000), (12_000, 12_000), (60_000, 60_000), (20_001, 8)):
            assert "megapixels" in refusal(png_header(width, height))
    for width, height in ((20_000, 8), (10_000, 5_000)):  # within the limits: only its pixels are missing
        assert "damaged" in refusal(png_header(width, height))
    assert Image.MAX_IMAGE_PIXELS is not None


def test_smallest_sides():
    assert "only 7 x 64 pixels" in refusal(encode(red_blue(7, 64), "PNG"))
    assert "only 1 x 1 pixels" in refusal(encode(Image.new("RGB", (1, 1)), "GIF"))
    assert open_photo(encode(red_blue(8, 8), "PNG")).size == (8, 8)


def test_file_larger_than_the_limit_is_not_read(tmp_path):
    path = tmp_path / "huge.jpg"
    with path.open("wb") as file:
        file.truncate(images.MAX_BYTES + 1)  # sparse: takes no space
    assert "50 MB" in refusal(path)
    assert "50 MB" in refusal(bytes(images.MAX_BYTES + 1))
    os.truncate(path, images.MAX_BYTES)
    assert "known format" in refusal(path) == refusal(bytes(images.MAX_BYTES))


def test_files_that_are_no_photos():
    assert "empty" in refusal(b"")
    assert "known format" in refusal(b"These are only words, renamed to photo.jpg\n" * 9)
    eps = encode(red_blue(), "EPS")
    assert "known format" in refusal(eps)  # Pillow reads it, and runs Ghostscript on it


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"])
def test_truncated_file(format):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    data = encode(noise, format)
    assert "damaged" in refusal(data[: len(data) // 2])


def test_paths_that_cannot_be_read(tmp_path):
    assert "does not exist" in refusal(tmp_path / "missing.jpg")
    assert "does not exist" in refusal("nul\0character.jpg")
    assert "folder" in refusal(tmp_path)
    assert str(tmp_path) not in refusal(tmp_path / "missing.jpg")
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe.jpg")
        assert "pipe" in refusal(tmp_path / "pipe.jpg")  # and does not wait for somebody to write into it


@pytest.mark.skipif(not os.path.isfile("/proc/self/mem"), reason="no file here that fails when it is read")
def test_a_disk_that_fails():
    assert (
        refusal("/proc/self/mem")
        == "The file cannot be read (Input/output error): check the disk, or copy it elsewhere."
    )


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_no_permission(tmp_path):
    path = tmp_path / "secret.jpg"
    path.write_bytes(encode(red_blue(), "JPEG"))
    path.chmod(0)
    assert refusal(path) == "The file may not be read: give yourself permission to read it."


def test_heif_without_its_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)  # what an import then meets is an ImportError
    assert "pillow-heif" in refusal(struct.pack(">I", 24) + b"ftypheic\0\0\0\0mif1heic" + bytes(40))


@pytest.mark.parametrize(
    ("brands", "heif"),
    [
        (b"heic mif1heic", True),
        (b"mif1 mif1heic", True),
        (b"mif1 mif1miaf", True),
        (b"avif avifmif1miaf", False),
        (b"mif1 avifmiaf", False),
        (b"isom isommp42", False),  # a film
        (b"isom isommp42heic", True),
        (b"hevc ", True),
        (b"isom xheicxxx", False),  # across two brands
    ],
)
def test_heif_is_told_from_avif_by_its_brands(brands, heif):
    major, compatible = brands.split(b" ")
    box = struct.pack(">I", 16 + len(compatible)) + b"ftyp" + major + bytes(4) + compatible
    assert images._is_heif(box + bytes(64)) is heif
    assert images._is_heif(box + b"heic" * 4) is heif  # which is not in the box any more


def test_no_handle_is_left_open(tmp_path):
    path = tmp_path / "photo.png"
    path.write_bytes(encode(red_blue(), "PNG"))
    broken = tmp_path / "broken.png"
    broken.write_bytes(path.read_bytes()[:60])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ResourceWarning)
        open_photo(path)
        refusal(broken)
        gc.collect()
    assert [str(w.message) for w in caught if w.category is ResourceWarning] == []


def test_threads_leave_the_warning_filters_as_they_were():
    data, before = encode(red_blue(), "JPEG"), list(warnings.filters)
    threads = [threading.Thread(target=lambda: [open_photo(data) for _ in range(20)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert warnings.filters == before


def test_mutated_files_raise_nothing_but_photo_errors():
    dice = random.Random(0)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8))
    originals = [encode(noise, f, exif=exif) for f in ("JPEG", "PNG", "WEBP", "TIFF")]
    originals += [encode(noise, "BMP"), encode(noise.quantize(16), "GIF"), encode(noise.convert("F"), "TIFF")]
    opened = refused = 0
    for original in originals:
        for _ in range(150):
            mutant = bytearray(original)
            for _ in range(dice.choice((1, 2, 8))):
                mutant[dice.randrange(min(len(mutant), 300))] = dice.choice((0, 255, dice.randrange(256)))
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                mutant = mutant[: dice.choice((None, None, 200))]
                try:
                    photo = open_photo(mutant)
                    opened += 1
                except PhotoError as error:
                    assert refusal(mutant, at_least=8) == str(error)
                    with pytest.raises(PhotoError):
                        check_photo(mutant)
                    refused += 1
                else:
                    assert photo.mode == open_photo(mutant, at_least=8).mode == "RGB"
                    assert check_photo(mutant) == photo.size
    assert opened > 100 and refused > 100


def test_suffixes_are_lower_case_with_their_dot():
    assert {".jpg", ".jpeg", ".png", ".webp", ".heic"} <= PHOTO_SUFFIXES
    assert all(suffix == suffix.lower() and suffix[0] == "." for suffix in PHOTO_SUFFIXES)
