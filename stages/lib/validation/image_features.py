"""What each image shows, in a few numbers: of as many images as there are, read once and a piece at a time."""

from collections.abc import Iterator, Mapping
from hashlib import blake2b
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from stages.lib.core.arrays import Split, allocate, iterate_chunks

# Pixels looked at together, of any number of images: what is computed of them takes about 20 bytes each.
CHUNK_BYTES = 1 << 22
# Weights of red, green and blue in a grey level, in 65536ths: Rec. ITU-R BT.601, section 2.5.1, as Pillow rounds them.
_LUMA_WEIGHTS = np.array([19595, 38470, 7471], np.uint32)
# A background is plain if this share of the border's pixels is within so many grey levels of their median. All of
# digits and MNIST have one, and 0.31 of the photographs of CIFAR-10.
_PLAIN_SHARE = 0.75
_PLAIN_LEVELS = 32
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
        """The pixels (H, W) or (H, W, 3) of one image."""
        name, index = self.locate(row)
        return np.asarray(self.splits[name].images[index])


class Measures(NamedTuple):
    """Numbers about images, by row. A grey level of a colour is its luma, see `to_grey`."""

    digests: NDArray[np.uint32]  # (N,): equal for equal pixels, and by chance
    hashes: NDArray[np.uint32]  # (N, 8): nearly equal for grey levels that look alike
    contrast: NDArray[np.int16]  # (N,) levels between the least and the largest, in the channel where they are most
    is_plain: NDArray[np.bool_]  # (N,) most of the border's pixels have nearly the same grey level
    is_light: NDArray[np.bool_]  # (N,) most of the border's pixels are
    foreground_pixels: NDArray[np.int32]  # (N,) pixels in the other half of the range than the border
    foreground: NDArray[np.int32]  # (N,) grey levels in all from black, or from white where the border is light

    @property
    def has_backgrounds(self) -> bool:
        """Whether these are drawings, say: most images have a plain background."""
        return bool(self.is_plain.sum() * 2 > len(self.is_plain))


def measure_images(rows: Rows) -> Measures:
    """Measure images uint8 (H, W) or (H, W, 3), which may differ in size between the splits.

    What is light, and what is foreground, is told by grey levels: it does not depend on a hue. The contrast is that of
    a channel: an image in two colours of one luma is not blank.
    """
    measures = Measures(
        digests=np.empty(rows.total, np.uint32),
        hashes=allocate((rows.total, 8), np.uint32),
        contrast=np.empty(rows.total, np.int16),
        is_plain=np.empty(rows.total, np.bool_),
        is_light=np.empty(rows.total, np.bool_),
        foreground_pixels=np.empty(rows.total, np.int32),
        foreground=np.empty(rows.total, np.int32),
    )
    first = 0
    for split in rows.splits.values():
        for images in read_chunks(split.images):
            for name, values in _measure_chunk(images)._asdict().items():
                getattr(measures, name)[first : first + len(images)] = values
            first += len(images)
    return measures


def read_chunks(images: NDArray[np.uint8]) -> Iterator[NDArray[np.uint8]]:
    """Read memory-mapped images, as many at a time as take bounded memory, however large they are."""
    for chunk in iterate_chunks(len(images), max(CHUNK_BYTES // max(images[:1].size, 1), 1)):
        yield np.asarray(images[chunk])


def to_grey(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Turn images (N, H, W, 3) into grey levels (N, H, W), as Pillow's mode L has them; grey ones stay as they are.

    Whole numbers: the same on every processor.
    """
    if images.ndim == 3:
        return images
    return ((images @ _LUMA_WEIGHTS + 2**15) >> 16).astype(np.uint8)


def _measure_chunk(images: NDArray[np.uint8]) -> Measures:
    count, grey = len(images), to_grey(images)
    by_channel = images.reshape(count, grey[0].size, -1)  # (n, H * W, channels)
    contrast = (by_channel.max(axis=1).astype(np.int16) - by_channel.min(axis=1)).max(axis=1)
    pixels = grey.reshape(count, -1)  # (n, H * W)
    border = np.concatenate([grey[:, [0, -1], :].reshape(count, -1), grey[:, :, 0], grey[:, :, -1]], axis=1)
    is_near = np.abs(border - np.median(border, axis=1, keepdims=True)) <= _PLAIN_LEVELS
    is_light = (border >= HALF_RANGE).sum(axis=1) * 2 > border.shape[1]
    bright = (pixels >= HALF_RANGE).sum(axis=1)
    total, size = pixels.sum(axis=1, dtype=np.int64), pixels.shape[1]
    return Measures(
        digests=_digest_images(images),
        hashes=hash_images(grey),
        contrast=contrast,
        is_plain=is_near.sum(axis=1) >= _PLAIN_SHARE * border.shape[1],
        is_light=is_light,
        foreground_pixels=np.where(is_light, size - bright, bright).astype(np.int32),
        foreground=np.where(is_light, 255 * size - total, total).astype(np.int32),
    )


def _digest_images(images: NDArray[np.uint8]) -> NDArray[np.uint32]:
    return np.array([int.from_bytes(blake2b(image.tobytes(), digest_size=4).digest()) for image in images], np.uint32)


def hash_images(images: NDArray[np.uint8]) -> NDArray[np.uint32]:
    """A perceptual hash (N, 8) of grey levels (N, H, W): the signs of 16 x 16 low frequencies, without the constants.

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
