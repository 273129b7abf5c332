"""Tables about images: one row per split, per class, per image, per data set. What expectations are checked on."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from stages.lib.core.arrays import Split, count_channels, iterate_chunks
from stages.lib.validation.drift import Drift
from stages.lib.validation.duplicates import Duplicates, find_duplicates
from stages.lib.validation.image_features import Measures, Rows, measure_images
from stages.lib.validation.outliers import measure_robust_z

# Images in one table: about 100 MB with what Great Expectations makes of it.
TABLE_ROWS = 100_000
# An image whose longer side is more than so many times that of half of all images, or less than this part of it, is
# of another resolution.
_OTHER_RESOLUTION = 2
# What an image's distance from its class is told of.
DEVIATIONS = ("foreground", "contrast", "size", "aspect")


def describe_splits(splits: Mapping[str, Split], expected: Mapping[str, int]) -> pd.DataFrame:
    """One row per split: pixel type, dimensions, channels, label kind, and how many images, labels, expected images."""
    return pd.DataFrame(
        [
            {
                "split": name,
                "pixel_type": str(split.images.dtype),
                "image_dimensions": split.images.ndim,
                "channels": count_channels(split.images),
                "label_dimensions": split.labels.ndim,
                "label_kind": "integer" if np.issubdtype(split.labels.dtype, np.integer) else "other",
                "images": len(split.images),
                "labels": len(split.labels),
                "expected": expected[name],
            }
            for name, split in splits.items()
        ]
    )


def describe_classes(splits: Mapping[str, Split], class_names: Sequence[str]) -> pd.DataFrame:
    """One row per split and class: its name, its number of images, and their ratio to those of the largest class."""
    rows = []
    for split_name, split in splits.items():
        counts = dict(zip(*map(np.ndarray.tolist, np.unique(split.labels, return_counts=True)), strict=True))
        largest = max(counts.values(), default=0)
        rows += [
            {
                "split": split_name,
                "class": name,
                "images": counts.get(label, 0),
                "ratio_to_largest": counts.get(label, 0) / largest if largest else 0.0,
            }
            for label, name in enumerate(class_names)
        ]
    return pd.DataFrame(rows)


def describe_drift(drift: Drift) -> pd.DataFrame:
    """One row: how far the classes and the levels of a channel have moved from the accepted version, 0..1."""
    return pd.DataFrame([{"since": "accepted", "class_drift": drift.classes, "grey_level_drift": drift.grey_levels}])


class ImageFacts(NamedTuple):
    """What the image table says beyond labels and sizes, by row: in as few bytes as hold it, for there may be many."""

    measures: Measures
    duplicates: Duplicates
    other_polarity: NDArray[np.bool_]
    other_resolution: NDArray[np.bool_]
    robust_z: dict[str, NDArray[np.int16]]  # tenths, by what deviates


def find_image_facts(rows: Rows, sizes: NDArray[np.int32] | None) -> ImageFacts:
    """Measure each image, and compare it with the others.

    sizes: height and width (N, 2) that images had before they were brought to one size; none of other data.
    """
    measures = measure_images(rows)
    labels = rows.labels
    of_class: dict[str, NDArray[Any]] = {"foreground": measures.foreground, "contrast": measures.contrast}
    other_resolution = np.broadcast_to(np.False_, rows.total)
    if sizes is not None:
        height, width = sizes.T
        longer = np.maximum(height, width)
        of_class |= {"size": longer, "aspect": width / np.maximum(height, 1)}
        typical = np.median(longer) if rows.total else 0
        other_resolution = (longer > typical * _OTHER_RESOLUTION) | (longer * _OTHER_RESOLUTION < typical)
    is_mostly_light = measures.is_light.sum() * 2 > rows.total
    nowhere = np.broadcast_to(np.int16(0), rows.total)
    return ImageFacts(
        measures=measures,
        duplicates=find_duplicates(rows, measures),
        other_polarity=measures.is_light != is_mostly_light,
        other_resolution=other_resolution,
        robust_z={
            what: measure_robust_z(of_class[what], labels) if what in of_class else nowhere for what in DEVIATIONS
        },
    )


def iterate_image_tables(rows: Rows, facts: ImageFacts, files: Sequence[str] = ()) -> Iterator[pd.DataFrame]:
    """One row per image of uint8 (H, W) or (H, W, 3), split by split, in tables of bounded size; one at least.

    Columns: split, index, file (where `files` has them), label, height, width, contrast (largest level less least, in
    the channel where that is most), foreground_fraction (share of pixels in the other half of the range than the
    border), the robust_z of foreground, contrast, size and aspect (distance from the class's median in robust standard
    deviations), other_polarity and other_resolution (than most images), and repeats, leaks, near_leaks, label_conflicts
    as `Duplicates` has them.
    """
    for table_rows in iterate_chunks(max(rows.total, 1), TABLE_ROWS):
        parts, first = [], 0  # `first` is the split's first row among all
        for name, split in rows.splits.items():
            height, width = split.images.shape[1:3]
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
        yield _add_facts(table, facts, table_rows)


def _add_facts(table: pd.DataFrame, facts: ImageFacts, rows: slice) -> pd.DataFrame:
    flags = {
        "other_polarity": facts.other_polarity,
        "other_resolution": facts.other_resolution,
        "repeats": facts.duplicates.repeats,
        "leaks": facts.duplicates.leaks,
        "near_leaks": facts.duplicates.near_leaks,
        "label_conflicts": facts.duplicates.label_conflicts,
    }
    return table.assign(
        contrast=facts.measures.contrast[rows].astype(np.int64),
        foreground_fraction=facts.measures.foreground_pixels[rows] / (table["height"] * table["width"]),
        **{f"{what}_robust_z": tenths[rows] / 10 for what, tenths in facts.robust_z.items()},
        **{name: values[rows].astype(np.int64) for name, values in flags.items()},
    )
