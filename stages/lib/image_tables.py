"""Tables about images: one row per split, per class, per image, per data set. What expectations are checked on."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from stages.lib.arrays import Split, iterate_chunks
from stages.lib.copies import Copies, find_copies
from stages.lib.drift import Drift
from stages.lib.image_measures import Rows, measure_images
from stages.lib.outliers import measure_deviations

# Images in one table: about 100 MB with what Great Expectations makes of it.
TABLE_ROWS = 100_000
# A picture whose longer side is more than so many times that of half of all pictures, or less than this part of it, is
# of another resolution.
_OTHER_RESOLUTION = 2
# What an image's distance from its class is told of.
DEVIATIONS = ("ink", "contrast", "size", "aspect")


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


def describe_drift(drift: Drift) -> pd.DataFrame:
    """One row: how far the classes and the grey levels have moved from the accepted version, 0..1."""
    return pd.DataFrame([{"since": "accepted", "class_drift": drift.classes, "grey_level_drift": drift.grey_levels}])


class ImageFacts(NamedTuple):
    """All that the tables say of images beyond their labels, by row; columns by name (N,)."""

    columns: dict[str, NDArray[Any]]
    copies: Copies


def find_image_facts(rows: Rows, sizes: NDArray[np.int64] | None) -> ImageFacts:
    """What is measured of each image, and how it stands to the others.

    sizes: height and width (N, 2) that pictures had before they were brought to one size; none of other data.
    """
    measures = measure_images(rows)
    copies = find_copies(rows, measures)
    labels = rows.labels
    same = np.zeros(rows.total)
    height, width = sizes.T.astype(np.float64) if sizes is not None else (same, same)
    longer = np.maximum(height, width)
    typical = np.median(longer) if rows.total else 0
    is_other = (longer > typical * _OTHER_RESOLUTION) | (longer * _OTHER_RESOLUTION < typical)
    of_class = (measures.ink, measures.contrast.astype(np.float64), longer, width / np.maximum(height, 1))
    return ImageFacts(
        {
            "contrast": measures.contrast.astype(np.int64),
            "ink_fraction": measures.ink_fraction,
            **{
                f"{what}_deviation": measure_deviations(values, labels)
                for what, values in zip(DEVIATIONS, of_class, strict=True)
            },
            "other_polarity": (measures.is_light != (measures.is_light.sum() * 2 > rows.total)).astype(np.int64),
            "other_resolution": is_other.astype(np.int64),
            "repeats": copies.repeats.astype(np.int64),
            "leaks": copies.leaks.astype(np.int64),
            "near_leaks": copies.near_leaks.astype(np.int64),
            "conflicts": copies.conflicts.astype(np.int64),
        },
        copies,
    )


def iterate_image_tables(rows: Rows, facts: ImageFacts, files: Sequence[str] = ()) -> Iterator[pd.DataFrame]:
    """One row per image of uint8 (H, W), in the order of the splits, in tables of bounded size; one at least.

    Columns: split, index, file (where `files` has them), label, height, width, contrast (brightest pixel less darkest,
    grey levels), ink_fraction (share of pixels in the other half of the range than the border), the deviations of ink,
    contrast, size and aspect from the class's median (robust standard deviations), other_polarity and other_resolution
    (than most images), and repeats, leaks, near_leaks, conflicts as `Copies` has them.
    """
    for table_rows in iterate_chunks(max(rows.total, 1), TABLE_ROWS):
        parts, first = [], 0  # `first` is the split's first row among all
        for name, split in rows.splits.items():
            height, width = split.images.shape[1:]
            start, stop = max(table_rows.start - first, 0), min(table_rows.stop - first, len(split.labels))
            place = pd.DataFrame({"split": name, "index": np.arange(start, max(start, stop))})
            parts.append(
                place.assign(label=np.asarray(split.labels[start : max(start, stop)]), height=height, width=width)
            )
            first += len(split.labels)
        # Parts without a row would turn the columns of others into objects.
        table = pd.concat([part for part in parts if len(part)] or parts[:1], ignore_index=True)
        if files:
            table = table.assign(file=files[table_rows])
        yield table.assign(**{name: values[table_rows] for name, values in facts.columns.items()})
