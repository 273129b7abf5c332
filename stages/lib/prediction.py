"""Predictions of any model, a bounded number of images at a time."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

# One size for all: the last bits of a probability depend on how many images are computed together.
BATCH_SIZE = 1000


def predict_in_batches(
    predict: Callable[[NDArray[Any]], Any], images: NDArray[Any], batch_size: int = BATCH_SIZE
) -> NDArray[np.float32]:
    """Probabilities float32 (N, classes) for images (N, H, W), `batch_size` at a time."""
    batches = [
        np.asarray(predict(np.ascontiguousarray(images[start : start + batch_size])))
        for start in range(0, len(images), batch_size)
    ]
    return np.concatenate(batches)
