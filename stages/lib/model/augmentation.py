"""Training images shifted, turned, scaled, flipped, and in another light; each in its own way in each epoch.

What happens to an image follows from the seed, the epoch's number and the image's row in its split alone: from counted
whole numbers, so that neither groups nor batches nor order can change a byte. Positions of pixels are whole multiples
of a power of two, and so are pixels: what is interpolated between them is exact in float64.
"""

import math
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from stages.lib.core.arrays import count_channels
from stages.lib.model.deterministic_tensorflow import tf
from stages.lib.model.order_free import VALUE_BITS, round_to_grid
from stages.lib.model.order_free_sine import compute_sine

# Of 64 bits each, that one count of the generator gives: two numbers from each, for one image.
_WORDS = 4
# Of a pixel: as fine as a position is.
_POSITION_BITS = 8
# Of the factors that lead to one: the farthest pixel of an image of 65,536 is where it should be.
_FACTOR_BITS = 16
# Columns of the table of transforms.
TRANSFORM_SIZE = 8


class Augmentation(NamedTuple):
    """How far an image may be changed, at most; each change is drawn evenly from there to the same with a minus."""

    shift: int = 0  # pixels, in both directions
    rotation: float = 0.0  # degrees
    scale: float = 0.0  # share of the size
    horizontal_flip: bool = False  # half of the images
    brightness: float = 0.0  # share of the pixels' range, added
    contrast: float = 0.0  # share of a pixel's distance from the mean of its image

    @property
    def moves(self) -> bool:
        """Whether pixels come to lie where others were."""
        return bool(self.shift or self.horizontal_flip)

    @property
    def interpolates(self) -> bool:
        """Whether pixels come to lie between others."""
        return bool(self.rotation or self.scale)

    @property
    def changes_light(self) -> bool:
        """Whether pixels get other values."""
        return bool(self.brightness or self.contrast)


class Augmenter:
    """The augmentation of one split's images, float32 (N, H, W) or (N, H, W, channels), memory-mapped or not."""

    def __init__(self, augmentation: Augmentation, images: NDArray[np.float32], seed: int) -> None:
        self._augmentation, self._seed = augmentation, seed
        self._size = images.shape[1:3]
        self._channel_count = count_channels(images)
        channels = [images[..., channel] for channel in range(self._channel_count)] if images.ndim == 4 else [images]
        bounds = [(channel.min(), channel.max()) for channel in channels]
        # Beside pixels in a row, whose channels alternate; numbers, where they are all the same, take less time.
        lowest, highest = zip(*(bounds * math.prod(self._size) if len(set(bounds)) > 1 else bounds[:1]), strict=True)
        # Variables, for the compiler would fold roundings by constants: see `round_to_grid`.
        self._lowest, self._highest = tf.Variable(lowest, dtype=tf.float64), tf.Variable(highest, dtype=tf.float64)
        self._largest = tf.Variable(max(*highest, *(-low for low in lowest)), dtype=tf.float64)

    def draw(self, epoch: int, blocks: Iterable[slice]) -> NDArray[np.float64]:
        """What happens in an epoch to the images in blocks of the split's rows: a row (TRANSFORM_SIZE,) for each."""
        shares = np.concatenate([draw_shares(self._seed, epoch, block) for block in blocks])
        return _choose_transforms(self._augmentation, self._size, shares)

    def apply(self, images: tf.Tensor, transforms: tf.Tensor) -> tf.Tensor:
        """The images, float32, transformed, on the grid on which the split's are.

        images: float32 (B, H, W) or (B, H, W, channels), on that grid. transforms: (B, TRANSFORM_SIZE), see `draw`.
        """
        pixels = tf.reshape(images, [-1, self._channel_count])
        if self._augmentation.interpolates:
            between = _interpolate(tf.cast(pixels, tf.float64), self._size, transforms)
            pixels = round_to_grid(between, self._largest, VALUE_BITS)
        elif self._augmentation.moves:
            pixels = _move(pixels, self._size, transforms)
        if self._augmentation.changes_light:
            pixels = self._change_light(tf.cast(pixels, tf.float64), transforms)
        return tf.cast(tf.reshape(pixels, tf.shape(images)), tf.float32)

    def _change_light(self, pixels: tf.Tensor, transforms: tf.Tensor) -> tf.Tensor:
        """Pixels on a grid (B H W, channels) brighter or darker and with more or less contrast, within their range."""
        place_count = math.prod(self._size)
        images = tf.reshape(pixels, [-1, place_count * self._channel_count])
        added, factor = transforms[:, 6:7], transforms[:, 7:8]  # (B, 1)
        if self._augmentation.contrast:
            by_place = tf.reshape(pixels, [-1, place_count, self._channel_count])
            means = tf.reduce_sum(by_place, axis=1) / place_count  # (B, channels)
            images = images * factor + tf.tile(means * (1 - factor), [1, place_count])
        brighter = images + added * (self._highest - self._lowest)
        return round_to_grid(tf.maximum(tf.minimum(brighter, self._highest), self._lowest), self._largest, VALUE_BITS)


def draw_shares(seed: int, epoch: int, rows: slice) -> NDArray[np.float64]:
    """Numbers (N, 8) from 0 to below 1, evenly distributed, for each row of a split by itself.

    They are counted, not drawn one after the other: a row has the same ones in whatever slice it is (J. Salmon et al.,
    Parallel Random Numbers: As Easy as 1, 2, 3, 2011; https://numpy.org/doc/stable/reference/random/bit_generators/philox.html).
    """
    generator = np.random.Philox(key=[seed, epoch], counter=[rows.start, 0, 0, 0])
    words = generator.random_raw((rows.stop - rows.start) * _WORDS).reshape(-1, _WORDS)
    halves = np.concatenate([words >> np.uint64(32), words & np.uint64(2**32 - 1)], axis=1)
    return halves / 2.0**32


def _choose_transforms(
    augmentation: Augmentation, size: tuple[int, ...], shares: NDArray[np.float64]
) -> NDArray[np.float64]:
    """What each image (N, TRANSFORM_SIZE) is changed by, from drawn shares (N, 8).

    Columns 0 to 5: an output pixel of row r and column c, both counted from the image's middle, is taken from row
    t0 r + t1 c + t2 and column t3 r + t4 c + t5, counted from the first pixel. With interpolation in units of
    2^-_POSITION_BITS of a pixel, and half a unit more. Columns 6 and 7: the share of the range that is added, and the
    factor of the contrast.
    """
    centred = 2 * shares.T - 1  # from -1 to below 1
    steps = 2 * augmentation.shift + 1
    down, right = np.floor(shares.T[:2] * steps) - augmentation.shift
    flipped = np.where(augmentation.horizontal_flip & (shares.T[4] < 0.5), -1.0, 1.0)
    angle = centred[2] * augmentation.rotation / 180
    enlarged = 1 + centred[3] * augmentation.scale
    sine, cosine = (compute_sine(half_turns) / enlarged for half_turns in (angle, angle + 0.5))
    middle_row, middle_column = ((side - 1) / 2 for side in size)
    matrix = [cosine, -sine, middle_row + down, flipped * sine, flipped * cosine, middle_column + right]
    unit = 2.0**_POSITION_BITS if augmentation.interpolates else 1.0
    matrix = [np.rint(column * unit * 2.0**_FACTOR_BITS) / 2.0**_FACTOR_BITS for column in matrix]
    if augmentation.interpolates:
        matrix[2], matrix[5] = matrix[2] + 0.5, matrix[5] + 0.5
    light = [centred[5] * augmentation.brightness, 1 + centred[6] * augmentation.contrast]
    return np.stack([*matrix, *light], axis=1)


def _move(pixels: tf.Tensor, size: tuple[int, ...], transforms: tf.Tensor) -> tf.Tensor:
    """Pixels (B H W, channels) shifted by whole pixels and flipped; the nearest pixel of an edge is beyond it, too."""
    height, width = size
    rows, columns = _centre(height), _centre(width)
    from_rows = tf.clip_by_value(rows + transforms[:, 2, tf.newaxis], 0, height - 1)  # (B, H)
    from_columns = tf.clip_by_value(columns * transforms[:, 4, tf.newaxis] + transforms[:, 5, tf.newaxis], 0, width - 1)
    starts = tf.range(tf.shape(transforms)[0]) * (height * width)
    of_rows = starts[:, tf.newaxis] + tf.cast(from_rows, tf.int32) * width
    places = of_rows[:, :, tf.newaxis] + tf.cast(from_columns, tf.int32)[:, tf.newaxis, :]  # (B, H, W)
    return tf.gather(pixels, tf.reshape(places, [-1]))


def _interpolate(pixels: tf.Tensor, size: tuple[int, ...], transforms: tf.Tensor) -> tf.Tensor:
    """Pixels float64 (B H W, channels) on a grid, turned and so on; each is between the four around its place.

    Exact: a position has _POSITION_BITS of a pixel, so that a result has VALUE_BITS and twice as many more.
    """
    height, width = size
    t = [transforms[:, column, tf.newaxis, tf.newaxis] for column in range(6)]
    rows, columns = _centre(height)[:, tf.newaxis], _centre(width)  # (H, 1), (W,)
    top, below = _split_position((t[0] * rows + t[2]) + t[1] * columns, height)  # (B, H, W)
    left, beside = _split_position((t[3] * rows + t[5]) + t[4] * columns, width)
    starts = tf.range(tf.shape(transforms)[0]) * (height * width)
    places = tf.reshape(starts[:, tf.newaxis, tf.newaxis] + top * width + left, [-1])
    down, right = width * min(1, height - 1), min(1, width - 1)
    upper, lower = (
        _blend(tf.gather(pixels, places + step), tf.gather(pixels, places + (step + right)), beside)
        for step in (0, down)
    )
    return _blend(upper, lower, below)


def _centre(side: int) -> tf.Tensor:
    """The distances, float64, of a side's pixels from its middle."""
    return tf.constant(np.arange(side) - (side - 1) / 2)


def _split_position(positions: tf.Tensor, side: int) -> tuple[tf.Tensor, tf.Tensor]:
    """The pixel int32 (B, H, W) before each position, within the image, and the share (B H W, 1) of the next one."""
    unit = 1 << _POSITION_BITS
    whole = tf.cast(tf.clip_by_value(tf.floor(positions), 0, (side - 1) * unit), tf.int32)
    before = tf.minimum(tf.bitwise.right_shift(whole, _POSITION_BITS), max(0, side - 2))
    shares = tf.cast(whole - before * unit, tf.float64) / unit
    return before, tf.reshape(shares, [-1, 1])


def _blend(one: tf.Tensor, other: tf.Tensor, share: tf.Tensor) -> tf.Tensor:
    return one + (other - one) * share
