"""How pixels become features: features = (pixels - shift) / divisor."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray


class Normalization(NamedTuple):
    """The two constants that bring grey levels 0..255 to the network's input range."""

    shift: float
    divisor: float

    def apply(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Pixels uint8 (N, H, W) as features float32 of the same shape."""
        return (images.astype(np.float32) - np.float32(self.shift)) / np.float32(self.divisor)

    def fold(
        self, kernel: NDArray[np.float32], bias: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """The first dense layer's kernel (inputs, units) and bias (units,) such that it takes pixels for features.

        features @ kernel + bias == pixels @ (kernel / divisor) + (bias - shift / divisor * sum of kernel's rows),
        computed in float64, so that only the last rounding differs.
        """
        scaled = kernel.astype(np.float64) / self.divisor
        moved = bias.astype(np.float64) - self.shift * scaled.sum(axis=0)
        return scaled.astype(np.float32), moved.astype(np.float32)


def read_normalization(dataset: dict[str, Any]) -> Normalization:
    """The constants as data/normalized/dataset.json holds them."""
    return Normalization(**dataset["normalization"])
