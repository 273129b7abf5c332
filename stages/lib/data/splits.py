"""Seeded, stratified splits."""

import numpy as np
from numpy.typing import NDArray


def split_stratified(
    labels: NDArray[np.integer], fraction: float, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Draw the rows (kept, held out), both ascending: `fraction` of all, and of each class to within one image.

    labels: class ids (N,). fraction: 0..1, what is held out.
    """
    count = round(fraction * len(labels))
    shuffled = np.random.default_rng(seed).permutation(len(labels))
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    # Evenly spaced places in rows ordered by class: each class is met in proportion to its size.
    places = (np.arange(count) + 0.5) * len(labels) / max(count, 1)
    is_held_out = np.zeros(len(labels), np.bool_)
    is_held_out[by_class[places.astype(np.int64)]] = True
    return np.flatnonzero(~is_held_out), np.flatnonzero(is_held_out)
