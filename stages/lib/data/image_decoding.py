"""Images of any size and kind as the raw pixels that an exported model takes."""

import re
import shlex
import warnings
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.TiffImagePlugin import TiffImageFile

from stages.lib.core.arrays import count_channels
from stages.lib.core.errors import DataError
from stages.lib.core.native_stderr import capture_native_stderr
from stages.lib.data.image_limits import CountedBytes, read_bounded, require_bounded

# Grey levels: a border at least this bright is a light background.
_LIGHT = 128
_STRIP_ROWS = 256
_FILTER = Image.Resampling.BICUBIC
# ISO/IEC 23008-12, annex B, and https://aomediacodec.github.io/av1-avif: brands of still images and of sequences.
_HEIF_MAGIC = re.compile(rb"....ftyp(hei[cxms]|hev[cxms]|mif1|msf1|avi[fs])", re.DOTALL)
# Letters of a decoder's own words.
_MAX_REPORTED = 200


class DecodedImage(NamedTuple):
    """An image as a model takes it, and what was done to it."""

    pixels: NDArray[np.uint8]  # (H, W) or (H, W, 3)
    was_inverted: bool


def find_background(images: NDArray[np.uint8]) -> str | None:
    """What grey images (N, H, W) have at their borders, by the median grey level: `dark` or `light`.

    Colour images (N, H, W, 3) have none that counts: a drawing may be light on dark or dark on light, but the negative
    of a colour photograph shows nothing that exists.
    """
    if images.ndim == 4:
        return None
    return "light" if _measure_border(images)[0] >= _LIGHT else "dark"


def _measure_border(images: NDArray[np.uint8]) -> NDArray[np.float64]:
    """The median value at the borders of images (N, H, W) or (N, H, W, 3), of each channel."""
    channels = count_channels(images)
    lines = [images[:, [0, -1], :], images[:, :, [0, -1]]]
    border = np.concatenate([line.reshape(-1, channels) for line in lines])
    return np.asarray(np.median(border, axis=0))


def read_image(file: BinaryIO, name: str, image_shape: tuple[int, ...], background: str | None) -> DecodedImage:
    """The image in `file` as a model takes it: `decode_image`, with the model's background, `fit_image`.

    An image that has the model's size, channels and background comes through byte for byte. image_shape: (H, W) or
    (H, W, 3). background: `dark` or `light`: a grey image that has the other one is inverted. Of colour images it is
    none, and no image is inverted.

    Raises:
        DataError: as `decode_image`.
    """
    image = decode_image(file, name, is_colour=len(image_shape) == 3)
    was_inverted = background is not None and find_background(np.asarray(image)[np.newaxis]) != background
    if was_inverted:
        image = ImageOps.invert(image)
    return DecodedImage(fit_image(image, (image_shape[0], image_shape[1])), was_inverted)


def decode_image(
    file: BinaryIO, name: str, kinds: tuple[str, ...] | None = None, *, is_colour: bool = False
) -> Image.Image:
    """The image in `file`, upright as its EXIF data says, in 8 bits of grey or RGB; transparent parts are white.

    Time and memory have bounds, whatever is in the file: see `stages/lib/data/image_limits.py`.
    kinds: Pillow's names of the file formats that are taken, all that it knows by default. is_colour: whether it comes
    as RGB, in which a grey image has three equal channels.

    Raises:
        DataError: it is no image, is cut off, damaged, animated, too large, or has values beyond 16 bits.
    """
    try:
        return _decode_image(file, name, kinds, "RGB" if is_colour else "L")
    except DataError:
        raise
    except Exception as error:  # noqa: BLE001  (Pillow's readers raise any kind on damaged files)
        reported = isinstance(error, (OSError, ValueError, SyntaxError))
        reason = str(error) if reported else f"{type(error).__name__} {error}".strip()
    raise _refuse(name, reason)


def _decode_image(file: BinaryIO, name: str, kinds: tuple[str, ...] | None, mode: str) -> Image.Image:
    content = read_bounded(file, name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # remarks on metadata, which do not name the file
        try:
            image = Image.open(CountedBytes(content), formats=kinds)
        except UnidentifiedImageError:
            raise _refuse_kind(content, name, kinds) from None
        require_bounded(image, name)
        if not _is_alone(image):
            raise DataError(name, "it holds several images", "save each as a file of its own")
        if isinstance(image, TiffImageFile):
            _load_tiff(image, name)
        image.load()
        require_bounded(image, name)  # a PNG's EXIF data may come last
        return _convert(ImageOps.exif_transpose(image), mode, name)


def _is_alone(image: Image.Image) -> bool:
    """Whether there is no second frame or page; to count them takes, of a TIFF, time that grows by their square."""
    if image.format == "MPO":
        return True  # a JPEG with others behind it: the first is the one that every viewer shows
    try:
        image.seek(1)
    except EOFError:
        return True
    return False


def _load_tiff(image: TiffImageFile, name: str) -> None:
    """Load the pixels; libtiff goes on after what it finds damaged, and says so on standard error alone."""
    failure = None
    with capture_native_stderr() as read_diary:
        try:
            image.load()
        except Exception as error:  # noqa: BLE001  (as above; raised where nothing is held back any more)
            failure = error
        diary = read_diary()
    if diary:
        raise _refuse(name, diary)
    if failure:
        raise failure


def _refuse_kind(content: bytes, name: str, kinds: tuple[str, ...] | None) -> DataError:
    if magic := _HEIF_MAGIC.match(content):
        path = Path(name)
        converted = path.with_suffix(".jpg" if path.suffix.lower() == ".png" else ".png")
        command = shlex.join(["heif-convert", name, str(converted)])
        hint = f"convert it with `{command}` (Debian: libheif-examples, Homebrew: libheif)"
        return DataError(
            name, f"{'an AVIF' if magic[1].startswith(b'avi') else 'a HEIC'} image, which is not taken", hint
        )
    return _refuse(name, f"it is none of {', '.join(kinds)}" if kinds else "its kind is unknown")


def _refuse(name: str, reason: str) -> DataError:
    # Texts of decoders may hold bytes of the file.
    shown = "".join(letter if letter.isprintable() else " " for letter in reason)[:_MAX_REPORTED]
    return DataError(name, f"not a valid image: {shown}", "replace it, or leave it out")


def fit_image(image: Image.Image, image_size: tuple[int, int]) -> NDArray[np.uint8]:
    """The image resized to (H, W) with its proportions kept, at least a pixel wide and high, uint8.

    image: grey, or RGB, which gives (H, W, 3). Pillow's bicubic filter on bytes computes in integers: the same bytes on
    every processor.
    """
    height, width = image_size
    # Padded with what surrounds the drawing, so that no edge appears that was not there.
    border = tuple(map(int, _measure_border(np.asarray(image)[np.newaxis])))
    # Of a line, ImageOps.pad would leave nothing.
    scale = min(width / image.width, height / image.height)
    if round(scale * min(image.size)) == 0:
        image = image.resize((max(1, round(scale * image.width)), max(1, round(scale * image.height))), _FILTER)
    return np.asarray(ImageOps.pad(image, (width, height), _FILTER, color=border if image.mode == "RGB" else border[0]))


def _convert(image: Image.Image, mode: str, name: str) -> Image.Image:
    """The image in the mode L or RGB."""
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert(mode)
    if image.mode in ("F", "I"):
        raise DataError(
            name, expected="at most 16 bits per pixel", got=f"mode {image.mode}", hint="save it with 8 bits"
        )
    if not image.has_transparency_data:
        return image.convert(mode)
    opaque = Image.new(mode, image.size)
    # Some rows at a time: all in four channels and twice would take a gigabyte.
    for top in range(0, image.height, _STRIP_ROWS):
        rgba = image.crop((0, top, image.width, min(top + _STRIP_ROWS, image.height))).convert("RGBA")
        opaque.paste(Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert(mode), (0, top))
    return opaque
