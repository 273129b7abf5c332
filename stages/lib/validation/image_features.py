"""What each image shows, in a few numbers: of as many images as there are, read once and a piece at a time."""

from collections.abc import Mapping
from hashlib import blake2b
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from stages.lib.core.arrays import CHUNK_ROWS, Split, allocate, iterate_chunks

# Half of the range of grey levels, 0..255: a pixel on the other side than the background is foreground.
HALF_RANGE = 128
# Cosines of the perceptual hash, along each axis, and their scale as whole numbers.
_FREQUENCIES = 16
_COSINE_SCALE = 512
# Of the table of frequencies: those that say most, and change least when an image is saved anew, then share 32 bits.
_LOWEST_FIRST = np.argsort(np.add.outer(np.arange(_FREQUENCIES), np.arange(_FREQUENCIES)), axis=None, kind="stable")


class Rows(NamedTuple):
    """All images of all splits, one after the other, under one number each: their row."""

    splits: Mapping[str, Split]
    ends: NDArray[np.int64]  # of each split, among the rows of all

    @classmethod
    def of(cls, splits: Mapping[str, Split]) -> "Rows":
        """The rows of these splits, in their order."""
        return cls(splits, np.cumsum([len(split.labels) for split in splits.values()], dtype=np.int64))

    @property
    def total(self) -> int:
        """Images in all splits."""
        return int(self.ends[-1])

    @property
    def labels(self) -> NDArray[Any]:
        """Class ids (N,)."""
        return np.concatenate([split.labels for split in self.splits.values()])

    def find_splits(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """The number of the split that each row is in."""
        return np.searchsorted(self.ends, rows, side="right")

    def locate(self, row: int) -> tuple[str, int]:
        """A row's split, and its index there."""
        number = int(np.searchsorted(self.ends, row, side="right"))
        name = list(self.splits)[number]
        return name, row - int(self.ends[number]) + len(self.splits[name].labels)

    def read_image(self, row: int) -> NDArray[np.uint8]:
        """The pixels (H, W) of one image."""
        name, index = self.locate(row)
        return np.asarray(self.splits[name].images[index])


class Measures(NamedTuple):
    """Numbers about images, by row."""

    digests: NDArray[np.uint32]  # (N,): equal for equal pixels, and by chance
    hashes: NDArray[np.uint32]  # (N, 8): nearly equal for pixels that look alike
    contrast: NDArray[np.int16]  # (N,) grey levels between the darkest and the brightest pixel
    is_light: NDArray[np.bool_]  # (N,) most of the border's pixels are
    foreground_pixels: NDArray[np.int32]  # (N,) pixels in the other half of the range than the border
    foreground: NDArray[np.int32]  # (N,) grey levels in all from black, or from white where the border is light


def measure_images(rows: Rows) -> Measures:
    """Measure images uint8 (H, W), which may differ in size between the splits."""
    measures = Measures(
        digests=np.empty(rows.total, np.uint32),
        hashes=allocate((rows.total, 8), np.uint32),
        contrast=np.empty(rows.total, np.int16),
        is_light=np.empty(rows.total, np.bool_),
        foreground_pixels=np.empty(rows.total, np.int32),
        foreground=np.empty(rows.total, np.int32),
    )
    first = 0
    for split in rows.splits.values():
        for chunk in iterate_chunks(len(split.labels), CHUNK_ROWS):
            part = _measure_chunk(np.asarray(split.images[chunk]))
            for name, values in part._asdict().items():
                getattr(measures, name)[first + chunk.start : first + chunk.stop] = values
        first += len(split.labels)
    return measures


def _measure_chunk(images: NDArray[np.uint8]) -> Measures:
    pixels = images.reshape(len(images), -1)  # (n, H * W)
    darkest, brightest = pixels.min(axis=1), pixels.max(axis=1)
    border = np.concatenate([images[:, [0, -1], :].reshape(len(images), -1), images[:, :, 0], images[:, :, -1]], axis=1)
    is_light = (border >= HALF_RANGE).sum(axis=1) * 2 > border.shape[1]
    bright = (pixels >= HALF_RANGE).sum(axis=1)
    total, size = pixels.sum(axis=1, dtype=np.int64), pixels.shape[1]
    return Measures(
        digests=_digest_images(images),
        hashes=hash_images(images),
        contrast=brightest.astype(np.int16) - darkest,
        is_light=is_light,
        foreground_pixels=np.where(is_light, size - bright, bright).astype(np.int32),
        foreground=np.where(is_light, 255 * size - total, total).astype(np.int32),
    )


def _digest_images(images: NDArray[np.uint8]) -> NDArray[np.uint32]:
    return np.array([int.from_bytes(blake2b(image.tobytes(), digest_size=4).digest()) for image in images], np.uint32)


def hash_images(images: NDArray[np.uint8]) -> NDArray[np.uint32]:
    """A perceptual hash (N, 8) of images (N, H, W): the signs of 16 x 16 low frequencies, without the constants.

    After C. Zauner, Implementation and Benchmarking of Perceptual Image Hash Functions (2010), section 3.2.1, with the
    sign of each coefficient in place of its side of the median. The cosines are whole numbers and all sums stay below
    2**53, up to 1,024 pixels along each axis, so that float64 is exact in any order of summing: the same bits on every
    processor. Images of less than 17 pixels along an axis have too few frequencies to tell them apart: all bits are 0.
    """
    height, width = images.shape[1:]
    if min(height, width) <= _FREQUENCIES:
        return np.zeros((len(images), 8), np.uint32)
    signs = (_make_cosines(height) @ images.astype(np.float64) @ _make_cosines(width).T) > 0  # (N, 16, 16)
    return np.packbits(signs.reshape(len(images), -1).take(_LOWEST_FIRST, axis=1), axis=1).view(np.uint32)


def _make_cosines(size: int) -> NDArray[np.float64]:
    """The rows 1 to 16 of the discrete cosine transform (type II) of `size` values, as whole numbers (16, size)."""
    frequencies = np.arange(1, _FREQUENCIES + 1)[:, np.newaxis]
    return np.round(_COSINE_SCALE * np.cos(np.pi * frequencies * (np.arange(size) + 0.5) / size))
