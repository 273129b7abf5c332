"""Seeded, stratified splits."""

from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from stages.lib.core.arrays import allocate, count_labels, fill, find_rows, iterate_chunks, number_rows


def split_stratified(
    labels: NDArray[np.integer], fraction: float, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows (kept, held out), both ascending: `fraction` of all are held out, and of each class to within one image.

    labels: class ids (N,). fraction: 0..1.
    """
    count = round(fraction * len(labels))
    shuffled = number_rows(len(labels))
    np.random.default_rng(seed).shuffle(shuffled)
    by_class = _sort_by_class(shuffled, labels)
    is_held_out = fill((len(labels),), np.bool_, False)
    for chunk in iterate_chunks(count):
        # Evenly spaced places in rows ordered by class: each class is met in proportion to its size.
        places = (np.arange(chunk.start, chunk.stop) + 0.5) * len(labels) / count
        is_held_out[by_class[places.astype(np.int64)]] = True
    held_out = find_rows(is_held_out)
    np.logical_not(is_held_out, out=is_held_out)
    return find_rows(is_held_out), held_out


def _sort_by_class(rows: NDArray[np.int64], labels: NDArray[np.integer]) -> NDArray[np.int64]:
    """The rows, those of the lowest class first; within a class they keep their order."""
    counts = count_labels(labels)
    free = dict(zip(counts, accumulate(counts.values(), initial=0), strict=False))  # the next place of each class
    by_class = allocate(rows.shape, np.int64)
    for chunk in iterate_chunks(len(rows)):
        classes = labels[rows[chunk]]
        for class_id in np.unique(classes).tolist():
            members = rows[chunk][classes == class_id]
            by_class[free[class_id] : free[class_id] + len(members)] = members
            free[class_id] += len(members)
    return by_class
