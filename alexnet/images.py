"""Opening a photo that anybody may have sent: an upright RGB image, or one sentence that says what is wrong.

Sizes are judged from the header, before a pixel is decoded: a PNG of 9 KB can unpack to 400 MB.
"""

from __future__ import annotations

import io
import stat
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from alexnet.errors import LabError

MAX_BYTES = 50 * 1000 * 1000
MAX_PIXELS = 50 * 1000 * 1000
MAX_SIDE = 20_000
MIN_SIDE = 8

PHOTO_SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".jfif", ".mpo", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff")
    + (".avif", ".heic", ".heif", ".hif")
)
"""The suffixes, in lower case, of the files that count as photos."""

# Pillow also reads PostScript, PSD and forty other formats: more parsers than a stranger's file should meet.
# Its JPEG reader opens MPO, the two-lens JPEG of phones and stereo cameras, as well.
_FORMATS: tuple[str, ...] = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")
_AVIF_BRANDS = frozenset((b"avif", b"avis"))
_HEVC_BRANDS = frozenset((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"))
_HEIF_BRANDS = frozenset((b"mif1", b"msf1"))

_EMPTY = "The file is empty: copy or download it again."
_TOO_LARGE = f"The file is larger than {MAX_BYTES // 10**6} MB: save the picture smaller and try again."
_TOO_MANY_PIXELS = (
    f"The picture has more than {MAX_PIXELS // 10**6} megapixels or a side of more than {MAX_SIDE:,} pixels:"
    " make it smaller and try again."
)
_UNKNOWN = (
    "The file is not a picture in a known format, or its beginning is damaged:"
    " use a JPEG, PNG, WebP, GIF, BMP, TIFF, AVIF or HEIC file."
)
_DAMAGED = "The picture is incomplete or damaged: copy or download it again."
_NO_HEIF = (
    "HEIC pictures need the package pillow-heif, which is not installed:"
    " run pip install pillow-heif, or save the picture as JPEG."
)

_filters = threading.Lock()


class PhotoError(LabError, ValueError):
    """The photo cannot be used; the text is one plain sentence for the person, without the file's name."""


class TooLargeError(PhotoError):
    """It is over a limit of this module."""


class UnknownFormatError(PhotoError):
    """It is no picture, or none in a format that is read here."""


def open_photo(source: bytes | bytearray | memoryview | str | Path, at_least: int | None = None) -> Image.Image:
    """The photo as an upright RGB image of 8 bits a channel: EXIF rotation applied, transparency on white.

    Args:
        source: the bytes of the file, or its path. Of an animation the first frame is taken.
        at_least: the sides may come out reduced, by 2, 4 or 8, as long as the shorter one keeps at least so
            many pixels. A JPEG is then decoded straight at that size, several times faster.

    Raises:
        PhotoError: not a readable photo, or one over the limits of this module; never anything else,
            whatever the bytes.
    """
    return _decode(source, at_least)[0]


def check_photo(source: bytes | bytearray | memoryview | str | Path) -> tuple[int, int]:
    """Width and height of the upright photo, in pixels, after reading all of it; a JPEG is decoded small, which is faster.

    Raises:
        PhotoError: as `open_photo`, for the same photos.
    """
    return _decode(source, MIN_SIDE)[1]


def measure(source: bytes | bytearray | memoryview | str | Path) -> tuple[int, int]:
    """Width and height of the photo as it is stored, in pixels, from its header alone.

    Raises:
        PhotoError: the header cannot be read, or tells of more than is decoded.
    """
    with _open(_read(source)) as image:
        _check_size(*image.size)
        return image.size


def _decode(
    source: bytes | bytearray | memoryview | str | Path, at_least: int | None
) -> tuple[Image.Image, tuple[int, int]]:
    """The photo as `open_photo` has it, and its size as if it had not been reduced."""
    with _open(_read(source)) as image:
        width, height = image.size
        _check_size(width, height)
        try:
            if at_least and image.format in ("JPEG", "MPO"):
                image.draft(None, (at_least, at_least))
            image.load()
            orientation = _orientation(image)
            photo = _upright(_to_rgb(image), orientation)
        except Exception as error:  # damaged bytes raise whatever the parser that met them happens to raise
            raise PhotoError(_DAMAGED) from error
    return photo, (height, width) if orientation > 4 else (width, height)


def _read(source: bytes | bytearray | memoryview | str | Path) -> bytes:
    if isinstance(source, (str, Path)):
        data = _read_file(Path(source))
    else:
        if memoryview(source).nbytes > MAX_BYTES:
            raise TooLargeError(_TOO_LARGE)
        data = bytes(source)
    if not data:
        raise PhotoError(_EMPTY)
    return data


def _read_file(path: Path) -> bytes:
    try:
        status = path.stat()
    except (OSError, ValueError) as error:  # ValueError: a NUL character in the name
        raise _unreadable(error) from error
    if stat.S_ISDIR(status.st_mode):
        raise PhotoError("This is a folder, not a photo: choose a file inside it.")
    if not stat.S_ISREG(status.st_mode):
        raise PhotoError("This is a device or a pipe, not a photo: choose a picture file.")
    if status.st_size > MAX_BYTES:
        raise TooLargeError(_TOO_LARGE)
    try:
        return path.read_bytes()
    except OSError as error:
        raise _unreadable(error) from error


def _unreadable(error: OSError | ValueError) -> PhotoError:
    if isinstance(error, PermissionError):
        return PhotoError("The file may not be read: give yourself permission to read it.")
    if isinstance(error, (FileNotFoundError, NotADirectoryError, ValueError)):
        return PhotoError("The file does not exist: check its name and folder.")
    return PhotoError(f"The file cannot be read ({error.strerror}): check the disk, or copy it elsewhere.")


@contextmanager
def _quietly() -> Iterator[None]:
    """Without Pillow's warnings of 89 megapixels and more, and of damaged EXIF: both are seen to here."""
    # Under a lock, as catch_warnings swaps a list that all threads share; decoding stays outside of it.
    with _filters, warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\.")
        yield


def _open(data: bytes) -> Image.Image:
    """The image with only its header read; the caller closes it."""
    formats = _FORMATS
    if _is_heif(data):
        _register_heif()
        formats = ("HEIF",)
    try:
        with _quietly():
            return Image.open(io.BytesIO(data), formats=formats)
    except Image.DecompressionBombError as error:
        raise TooLargeError(_TOO_MANY_PIXELS) from error
    except UnidentifiedImageError as error:
        raise UnknownFormatError(_UNKNOWN) from error
    except Exception as error:  # as in open_photo
        raise PhotoError(_DAMAGED) from error


def _is_heif(data: bytes) -> bool:
    """Whether the `ftyp` box (ISO/IEC 14496-12, section 4.3) announces HEIF coded as HEVC, and not AVIF."""
    if data[4:8] != b"ftyp":
        return False
    end = min(int.from_bytes(data[:4], "big"), 256)
    brands = {data[8:12], *(data[i : i + 4] for i in range(16, end, 4))}
    return bool(brands & _HEVC_BRANDS) or (bool(brands & _HEIF_BRANDS) and not brands & _AVIF_BRANDS)


def _register_heif() -> None:
    try:
        import pillow_heif  # here, because most sessions never meet a HEIC file
    except ImportError as error:
        raise PhotoError(_NO_HEIF) from error
    if "HEIF" not in Image.OPEN:
        pillow_heif.register_heif_opener()


def _check_size(width: int, height: int) -> None:
    if width * height > MAX_PIXELS or max(width, height) > MAX_SIDE:
        raise TooLargeError(_TOO_MANY_PIXELS)
    if min(width, height) < MIN_SIDE:
        raise PhotoError(
            f"The picture is only {width} x {height} pixels: use one of at least {MIN_SIDE} pixels a side."
        )


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 to 8; 1, upright, where the EXIF block is missing or damaged."""
    try:
        with _quietly():
            orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # as in open_photo; a damaged EXIF block says nothing against the picture
        return 1
    return orientation if orientation in range(1, 9) else 1


def _upright(image: Image.Image, orientation: int) -> Image.Image:
    # The other EXIF tags stay behind: writing them back, as exif_transpose does, fails where one is damaged.
    image.info = {}
    image.getexif()[ExifTags.Base.Orientation] = orientation
    ImageOps.exif_transpose(image, in_place=True)
    return image


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "F" or image.mode.startswith("I"):
        image = _to_eight_bits(image)
    elif image.has_transparency_data:
        image = _on_white(image.convert("RGBA"))
    return image.convert("RGB")


def _on_white(image: Image.Image) -> Image.Image:
    """RGBA to RGB. Dropping alpha instead would show the colours that were painted invisible."""
    canvas = Image.new("RGB", image.size, "white")
    canvas.paste(image, mask=image.getchannel("A"))
    return canvas


def _to_eight_bits(image: Image.Image) -> Image.Image:
    """Grey levels of 16 bits (I;16*), 32 bits (I) or float (F) to L; `convert` would clip them to white."""
    values = np.asarray(image if image.mode == "F" else image.convert("I"), dtype=np.float32)
    black, white = (0, 65535) if image.mode.startswith("I;16") else _range(values)
    with np.errstate(all="ignore"):  # a float may hold infinities and NaN
        levels = np.nan_to_num((values - black) * (255 / (white - black)), nan=0, posinf=255, neginf=0)
    return Image.fromarray(np.rint(levels).clip(0, 255).astype(np.uint8))


def _range(values: np.ndarray) -> tuple[float, float]:
    """Black and white of grey levels whose file does not say: the least usual range that holds them all."""
    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    if low >= 0:
        for white in (1.0, 255.0, 65535.0):
            if high <= white:
                return 0.0, white
    return low, max(high, low + 1)
