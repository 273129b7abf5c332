"""Images that are in the data twice: with the same pixels, or so alike that nobody would take both."""

import math
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from stages.lib.core.arrays import iterate_chunks
from stages.lib.validation.image_features import Measures, Rows

# Of sorted rows, how many are looked at together: what is computed of them is held in memory.
_WINDOW_ROWS = 1 << 18
# A key is 32 bits by which rows are sorted, and the row in as many below them.
_ROW_BITS, _ROW_MASK = np.uint64(32), np.uint64(2**32 - 1)
# Bits of 256 in which the hashes of near-duplicates may differ, and their pixels' least correlation, which brightness
# and contrast do not change. Measured on digits and MNIST: no test image is as near to a training image (0.9876 and
# 0.9916 at most); of 1,000 training images saved as JPEG of quality 75, 991 and 997 are found, of 1,000 enlarged and
# brought back all and 918.
NEAR_BITS = 40
NEAR_CORRELATION = 0.992
# Photographs fill the image and differ all over it, where drawings have their background in common. In CIFAR-10, 31
# test images are within 40 bits of a training image: a person takes each for the same photograph in other colours or
# with another frame. Of 1,000 training images saved as JPEG, enlarged and brought back, or brightened, all are found.
# What is not: small drawings in pure colours that are saved as JPEG, which keeps a quarter of their colours' pixels.
PHOTOGRAPH_CORRELATION = 0.95
# Of an image's candidates, the nearest first, those of which the pixels are compared.
_VERIFIED = 8
# Of more images that share 32 bits of the hash, each is compared with as many as this.
_COMPARED = 1024


class Duplicates(NamedTuple):
    """Which images are in the data before, by row."""

    repeats: NDArray[np.bool_]  # (N,): the split has the same pixels at a lower index
    leaks: NDArray[np.bool_]  # an earlier split has the same pixels
    label_conflicts: NDArray[np.bool_]  # the same pixels are there under another label, before or after
    near_leaks: NDArray[np.bool_]  # an earlier split has nearly the same
    duplicate_of: NDArray[np.int64]  # the row of the image that it is like; -1 if there is none


def find_duplicates(rows: Rows, measures: Measures) -> Duplicates:
    """Find images with equal pixels, and images of a later split that are nearly equal to one of an earlier split.

    Equal digests make candidates, of which the pixels decide.
    """
    repeats, leaks, label_conflicts, near_leaks = np.zeros((4, rows.total), np.bool_)
    duplicates = Duplicates(repeats, leaks, label_conflicts, near_leaks, np.full(rows.total, -1))
    for later, earlier in find_near(rows, measures):
        duplicates.near_leaks[later] = True
        duplicates.duplicate_of[later] = earlier
    labels = rows.labels
    for candidates in _iterate_candidates(_sort_rows(np.arange(rows.total), measures.digests)):
        groups: dict[bytes, list[int]] = {}  # rows by their pixels
        for row in candidates.tolist():
            groups.setdefault(rows.read_image(row).tobytes(), []).append(row)
        for group in groups.values():
            _mark_group(duplicates, group, rows.find_splits(np.array(group)).tolist(), labels[group].tolist())
    return duplicates


def _mark_group(duplicates: Duplicates, group: list[int], splits: list[int], labels: list[int]) -> None:
    """Mark a group of images with equal pixels; rows ascending."""
    # The first under another label than the first of all, if there is one.
    other = next((row for row, label in zip(group, labels, strict=True) if label != labels[0]), None)
    seen: set[int] = set()  # splits that the image was in before
    for row, split, label in zip(group, splits, labels, strict=True):
        duplicates.repeats[row] = split in seen
        seen.add(split)
        duplicates.leaks[row] = splits[0] < split
        duplicates.label_conflicts[row] = other is not None
        duplicates.near_leaks[row] &= not duplicates.leaks[row]
        if other is not None:
            duplicates.duplicate_of[row] = other if label == labels[0] else group[0]
        elif row != group[0]:
            duplicates.duplicate_of[row] = group[0]


def _sort_rows(rows: NDArray[np.int64], values: NDArray[np.uint32]) -> NDArray[np.uint64]:
    """Make sorted keys of some rows of `values` (N,): by value, then by row."""
    keys = values[rows].astype(np.uint64)
    keys <<= _ROW_BITS
    keys |= rows.view(np.uint64)
    keys.sort()
    return keys


def _split_keys(keys: NDArray[np.uint64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Split keys into their rows and their values."""
    return (keys & _ROW_MASK).astype(np.int64), (keys >> _ROW_BITS).astype(np.int64)


def _iterate_candidates(keys: NDArray[np.uint64]) -> Iterator[NDArray[np.int64]]:
    """Iterate over the rows, ascending, of each group of sorted keys that share a value."""
    values = (keys >> _ROW_BITS).astype(np.uint32)
    repeated = np.flatnonzero(values[1:] == values[:-1])  # places whose value the next place has, too
    for places in np.split(repeated, np.flatnonzero(np.diff(repeated) > 1) + 1):
        if len(places):
            yield _split_keys(keys[places[0] : places[-1] + 2])[0]


def find_near(rows: Rows, measures: Measures) -> list[tuple[int, int]]:
    """Find rows of later splits that have a near row in an earlier split, each with the nearest one.

    Two hashes that differ in few of 256 bits have, nearly always, 32 bits in a row in common: those that have are
    compared, and of the nearest the pixels: a hash is of grey levels, and images that differ in their colours alone
    have the same. An image without any structure, whose hash is all zeros, is like no other.
    """
    structured = np.flatnonzero(measures.hashes.any(axis=1))
    found = [
        near
        for bits in measures.hashes.T
        for near in _iterate_near(_sort_rows(structured, bits), measures.hashes, rows)
    ] or [(np.empty(0, np.int64),) * 3]
    later, earlier, distance = (np.concatenate(values) for values in zip(*found, strict=True))
    order = np.lexsort((earlier, distance, later))
    later, earlier = later[order], earlier[order]
    # Two hashes may have several 32 bits in common: the pair is there as often.
    is_first = np.diff(later, prepend=-1).astype(np.bool_) | np.diff(earlier, prepend=-1).astype(np.bool_)
    later, earlier = later[is_first], earlier[is_first]
    least = NEAR_CORRELATION if measures.has_backgrounds else PHOTOGRAPH_CORRELATION
    nearest: dict[int, int] = {}
    verified: Counter[int] = Counter()
    for row, other in zip(later.tolist(), earlier.tolist(), strict=True):
        if row not in nearest and verified[row] < _VERIFIED:
            verified[row] += 1
            if correlate(rows.read_image(row), rows.read_image(other)) >= least:
                nearest[row] = other
    return list(nearest.items())


def correlate(image: NDArray[np.uint8], other: NDArray[np.uint8]) -> float:
    """Pearson's correlation of the pixels of two images, -1..1; 0 if they differ in size or one has one grey level.

    Of colours all channels count together, so that a red drawing is not like the same one in green. Whole numbers until
    the last division: the same on every processor.
    """
    if image.shape != other.shape:
        return 0.0
    one, two = image.astype(np.int64).ravel(), other.astype(np.int64).ravel()
    covariance, variance, other_variance = (
        one.size * int(a @ b) - int(a.sum()) * int(b.sum()) for a, b in ((one, two), (one, one), (two, two))
    )
    spread = math.sqrt(variance) * math.sqrt(other_variance)
    return covariance / spread if spread else 0.0


def _iterate_near(
    keys: NDArray[np.uint64], hashes: NDArray[np.uint32], rows: Rows
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]]:
    """Iterate over near pairs (later, earlier, distance) of rows whose keys share a value; the keys are sorted."""
    for chunk in iterate_chunks(len(keys), _WINDOW_ROWS):
        order, shared = _split_keys(keys[chunk.start : chunk.stop + _COMPARED])
        first = np.arange(chunk.stop - chunk.start)  # places in that order whose partner `gap` further on may agree
        for gap in range(1, min(len(order), _COMPARED + 1)):
            first = first[first + gap < len(order)]
            first = first[shared[first] == shared[first + gap]]
            if not len(first):
                break
            # Of two rows that agree, the first is the lower and, if their splits differ, in the earlier one.
            earlier, later = order[first], order[first + gap]
            across = rows.find_splits(earlier) != rows.find_splits(later)
            earlier, later = earlier[across], later[across]
            distance = np.bitwise_count(hashes[earlier] ^ hashes[later]).sum(axis=1, dtype=np.int64)
            near = distance <= NEAR_BITS
            yield later[near], earlier[near], distance[near]
