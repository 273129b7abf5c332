"""Pictures of any size and kind as the raw pixels that an exported model takes."""

import warnings
from typing import BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from stages.lib.errors import DataError

# Grey levels: a border at least this bright is a light background.
_LIGHT = 128


class Photo(NamedTuple):
    """A picture as a model takes it, and what was done to it."""

    pixels: NDArray[np.uint8]  # (H, W)
    was_inverted: bool


def find_background(images: NDArray[np.uint8]) -> str:
    """`dark` or `light`: what images (N, H, W) have at their borders, by the median grey level."""
    return "light" if _measure_border(images) >= _LIGHT else "dark"


def _measure_border(images: NDArray[np.uint8]) -> float:
    return float(np.median(np.concatenate([images[:, [0, -1], :].ravel(), images[:, :, [0, -1]].ravel()])))


def read_photo(file: BinaryIO, name: str, image_size: tuple[int, int], background: str) -> Photo:
    """The picture in `file` as a model takes it: `read_grey`, with the model's background, `fit_picture`.

    A picture that has the model's size, is grey and has its background comes through byte for byte.
    image_size: height and width in pixels. background: `dark` or `light`.

    Raises:
        DataError: as `read_grey`.
    """
    grey = read_grey(file, name)
    was_inverted = find_background(np.asarray(grey)[np.newaxis]) != background
    if was_inverted:
        grey = ImageOps.invert(grey)
    return Photo(fit_picture(grey, image_size), was_inverted)


def read_grey(file: BinaryIO, name: str, kinds: tuple[str, ...] | None = None) -> Image.Image:
    """The picture in `file`, upright as its EXIF data says, in 8 bits of grey; transparent parts are taken as white.

    kinds: Pillow's names of the file formats that are taken, all that it knows by default.

    Raises:
        DataError: it is no picture, is cut off, animated, too large to unpack safely, or has values beyond 16 bits.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(file, formats=kinds)
            pictures = getattr(image, "n_frames", 1)
            if pictures == 1:
                return _to_grey(ImageOps.exif_transpose(image), name)
    # Pillow's readers raise these on damaged files.
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DataError(name, expected="a whole picture", got=str(error), do="name another") from None
    raise DataError(name, expected="one picture", got=f"{pictures} in one file", do="name one that has one")


def fit_picture(grey: Image.Image, image_size: tuple[int, int]) -> NDArray[np.uint8]:
    """The picture resized to (H, W) with its proportions kept, uint8.

    Pillow's bicubic filter on bytes computes in integers: the same bytes on every processor.
    """
    height, width = image_size
    # Padded with what surrounds the drawing, so that no edge appears that was not there.
    level = int(_measure_border(np.asarray(grey)[np.newaxis]))
    return np.asarray(ImageOps.pad(grey, (width, height), Image.Resampling.BICUBIC, color=level))


def _to_grey(image: Image.Image, name: str) -> Image.Image:
    if image.mode == "I;16":
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode in ("F", "I"):
        raise DataError(name, expected="at most 16 bits per pixel", got=f"mode {image.mode}", do="convert the picture")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
    return image.convert("L")
