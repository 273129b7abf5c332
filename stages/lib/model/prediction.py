"""Predictions of any model, a bounded number of images at a time."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages.lib.core.arrays import allocate, iterate_chunks

# One size for all: in a runtime, the last bits of a probability may depend on how many images are computed together.
BATCH_SIZE = 1000


def predict_in_batches(
    predict: Callable[[NDArray[Any]], Any], images: NDArray[Any], batch_size: int = BATCH_SIZE
) -> NDArray[Any]:
    """Probabilities (N, classes), of the type that `predict` gives, for images (N, H, W), `batch_size` at a time."""
    probabilities: NDArray[Any] | None = None
    for rows in iterate_chunks(len(images), batch_size):
        batch = np.asarray(predict(np.ascontiguousarray(images[rows])))
        if probabilities is None:
            probabilities = allocate((len(images), *batch.shape[1:]), batch.dtype)
        probabilities[rows] = batch
    assert probabilities is not None, "a test split has images"
    return probabilities
