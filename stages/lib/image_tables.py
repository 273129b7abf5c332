"""Tables about images: one row per split, per class, per image. What expectations are checked on."""

from collections.abc import Iterator, Mapping
from hashlib import blake2b
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from stages.lib.arrays import CHUNK_ROWS, Split, allocate, iterate_chunks

# Images in one table: about 100 MB with what Great Expectations makes of it.
TABLE_ROWS = 100_000
# Digests that are sorted at once: 16 MB with their rows.
_SORTED_ROWS = 1 << 20

# A pixel counts as ink from half of the range on.
INK_LEVEL = 128


def describe_splits(splits: Mapping[str, Split], promised: Mapping[str, int]) -> pd.DataFrame:
    """One row per split: pixel type, dimensions, label kind, and the number of images, labels, promised images."""
    return pd.DataFrame(
        [
            {
                "split": name,
                "pixel_type": str(split.images.dtype),
                "image_dimensions": split.images.ndim,
                "label_dimensions": split.labels.ndim,
                "label_kind": "integer" if np.issubdtype(split.labels.dtype, np.integer) else "other",
                "images": len(split.images),
                "labels": len(split.labels),
                "promised": promised[name],
            }
            for name, split in splits.items()
        ]
    )


def describe_classes(splits: Mapping[str, Split], class_count: int) -> pd.DataFrame:
    """One row per split and class: its images, and their number as a ratio to that of the largest class (0..1)."""
    rows = []
    for name, split in splits.items():
        counts = dict(zip(*map(np.ndarray.tolist, np.unique(split.labels, return_counts=True)), strict=True))
        largest = max(counts.values(), default=0)
        rows += [
            {
                "split": name,
                "label": label,
                "images": counts.get(label, 0),
                "ratio_to_largest": counts.get(label, 0) / largest if largest else 0.0,
            }
            for label in range(class_count)
        ]
    return pd.DataFrame(rows)


class Copies(NamedTuple):
    """Which images of a split are in the data before; uint8 (N,), 1 for yes."""

    repeats: NDArray[np.uint8]  # the split has the same pixels at a lower index
    leaks: NDArray[np.uint8]  # an earlier split has the same pixels


def iterate_image_tables(splits: Mapping[str, Split]) -> Iterator[pd.DataFrame]:
    """One row per image of uint8 (H, W), in the order of the splits, in tables of bounded size; one at least.

    Columns: split, index, label, height, width, min, max, mean (grey levels), contrast (max - min), ink_fraction
    (share of pixels of at least half the range), repeats, leaks (as `Copies` has them).
    """
    copies = find_copies(splits)
    count = sum(len(split.labels) for split in splits.values())
    for table_rows in iterate_chunks(max(count, 1), TABLE_ROWS):
        parts, first = [], 0  # `first` is the split's first row among all
        for name, split in splits.items():
            rows = slice(max(table_rows.start - first, 0), max(table_rows.stop - first, 0))
            parts.append(_describe_rows(name, split, copies[name], rows))
            first += len(split.labels)
        # Parts without a row would turn the columns of others into objects.
        yield pd.concat([part for part in parts if len(part)] or parts[:1], ignore_index=True)


def find_copies(splits: Mapping[str, Split]) -> dict[str, Copies]:
    """Images with the same pixels, by split; what is kept in memory is ten bytes for each image.

    Equal digests make candidates, of which the pixels decide.
    """
    names, sizes = list(splits), [len(split.images) for split in splits.values()]
    ends = np.cumsum(sizes)  # of each split, among the rows of all
    digests = allocate((int(ends[-1]),), np.uint64)
    for name, end, size in zip(names, ends, sizes, strict=True):
        for chunk in iterate_chunks(size, CHUNK_ROWS):
            digests[end - size + chunk.start : end - size + chunk.stop] = _digest_images(splits[name].images[chunk])
    copies = {
        name: Copies(np.zeros(size, np.uint8), np.zeros(size, np.uint8))
        for name, size in zip(names, sizes, strict=True)
    }
    for candidates in _iterate_candidates(digests):
        places = np.searchsorted(ends, candidates, side="right")
        seen: dict[bytes, set[int]] = {}  # the splits that have these pixels
        for row, place in zip(candidates.tolist(), places.tolist(), strict=True):
            name, index = names[place], row - int(ends[place]) + sizes[place]
            owners = seen.setdefault(splits[name].images[index].tobytes(), set())
            copies[name].repeats[index] = place in owners
            copies[name].leaks[index] = bool(owners - {place})
            owners.add(place)
    return copies


def _iterate_candidates(digests: NDArray[np.uint64]) -> Iterator[NDArray[np.int64]]:
    """Rows, ascending, that share a digest with another, group by group; few of the digests are sorted at a time."""
    parts = -(-len(digests) // _SORTED_ROWS)
    for part in range(parts):
        rows = np.concatenate(
            [chunk.start + np.flatnonzero(digests[chunk] % parts == part) for chunk in iterate_chunks(len(digests))]
        )
        if not len(rows):
            continue
        rows = rows[np.argsort(digests[rows], kind="stable")]
        as_next = np.diff(digests[rows], append=~digests[rows[-1:]]) == 0
        as_last = np.concatenate([[False], as_next[:-1]])
        for start, last in zip(np.flatnonzero(as_next & ~as_last), np.flatnonzero(as_last & ~as_next), strict=True):
            yield rows[start : last + 1]


def _digest_images(images: NDArray[np.uint8]) -> NDArray[np.uint64]:
    return np.array([int.from_bytes(blake2b(image.tobytes(), digest_size=8).digest()) for image in images], np.uint64)


def _describe_rows(name: str, split: Split, copies: Copies, rows: slice) -> pd.DataFrame:
    labels = split.labels[rows]
    height, width = split.images.shape[1:]
    darkest, brightest = np.empty(len(labels), np.uint8), np.empty(len(labels), np.uint8)
    mean, ink_fraction = np.empty(len(labels)), np.empty(len(labels))
    for chunk in iterate_chunks(len(labels), CHUNK_ROWS):
        pixels = split.images[rows][chunk].reshape(-1, height * width)  # (n, H * W)
        darkest[chunk], brightest[chunk] = pixels.min(axis=1), pixels.max(axis=1)
        mean[chunk], ink_fraction[chunk] = pixels.mean(axis=1), (pixels >= INK_LEVEL).mean(axis=1)
    return pd.DataFrame(
        {
            "split": name,
            "index": np.arange(rows.start, rows.start + len(labels)),
            "label": labels,
            "height": height,
            "width": width,
            "min": darkest.astype(np.int64),
            "max": brightest.astype(np.int64),
            "mean": mean,
            "contrast": brightest.astype(np.int64) - darkest,
            "ink_fraction": ink_fraction,
            "repeats": copies.repeats[rows].astype(np.int64),
            "leaks": copies.leaks[rows].astype(np.int64),
        }
    )
