"""How pixels become features: features = (pixels - shift) / divisor, with constants for each channel."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray


class Normalization(NamedTuple):
    """The two constants of each channel, grey or RGB, that bring pixels 0..255 to the network's input range."""

    shift: tuple[float, ...]
    divisor: tuple[float, ...]

    def apply(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Pixels uint8 (N, H, W) or (N, H, W, 3) as features float32 of the same shape."""
        shift, divisor = (np.array(constants, np.float32) for constants in self)
        return (images.astype(np.float32) - shift) / divisor

    def fold(
        self, kernel: NDArray[np.float32], bias: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """The first layer's kernel and bias (units,) such that it takes pixels for features.

        kernel: of a dense layer (H * W * channels, units), its inputs in the order of an image's values, or of a
        convolution (height, width, channels, units) without padding: zeros beside an image would be pixels of the
        value 0, and no longer features.

        A unit's sum over features, (pixels - shift) / divisor * kernel, is its sum over pixels * (kernel / divisor)
        less that over shift * (kernel / divisor), computed in float64, so that only the last rounding differs.
        """
        shift, divisor = (np.array(constants)[:, np.newaxis] for constants in self)  # (channels, 1)
        by_channel = kernel.astype(np.float64).reshape(-1, len(shift), kernel.shape[-1])
        scaled = by_channel / divisor  # (positions, channels, units)
        moved = bias.astype(np.float64) - (shift * scaled.sum(axis=0)).sum(axis=0)
        return scaled.reshape(kernel.shape).astype(np.float32), moved.astype(np.float32)


def read_normalization(dataset: dict[str, Any]) -> Normalization:
    """The constants as data/normalized/dataset.json holds them."""
    constants = dataset["normalization"]
    return Normalization(tuple(constants["shift"]), tuple(constants["divisor"]))
