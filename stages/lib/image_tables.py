"""Tables about images: one row per split, per class, per image. What expectations are checked on."""

from collections import Counter
from collections.abc import Mapping
from hashlib import blake2b

import numpy as np
import pandas as pd

from stages.lib.arrays import CHUNK_ROWS, Split

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
        counts = Counter(split.labels.tolist())
        largest = max(counts.values(), default=0)
        rows += [
            {
                "split": name,
                "label": label,
                "images": counts[label],
                "ratio_to_largest": counts[label] / largest if largest else 0.0,
            }
            for label in range(class_count)
        ]
    return pd.DataFrame(rows)


def describe_images(splits: Mapping[str, Split]) -> pd.DataFrame:
    """One row per image of uint8 (H, W), in the order of the splits.

    Columns: split, index, label, height, width, min, max, mean (grey levels), contrast (max - min), ink_fraction
    (share of pixels of at least half the range), digest of the pixels, repeats (1 if the split has the same pixels
    at a lower index), leaks (1 if an earlier split has the same pixels).
    """
    table = pd.concat([_describe_split(name, split) for name, split in splits.items()], ignore_index=True)
    table["contrast"] = table["max"] - table["min"]
    table["repeats"] = table.duplicated(["split", "digest"]).astype(int)
    first_split = table.groupby("digest")["split"].transform("first")
    table["leaks"] = (table["split"] != first_split).astype(int)
    return table


def _describe_split(name: str, split: Split) -> pd.DataFrame:
    count, height, width = split.images.shape
    columns: dict[str, list[object]] = {key: [] for key in ("min", "max", "mean", "ink_fraction", "digest")}
    for start in range(0, count, CHUNK_ROWS):
        pixels = split.images[start : start + CHUNK_ROWS].reshape(-1, height * width)  # (n, H * W)
        columns["min"] += pixels.min(axis=1).tolist()
        columns["max"] += pixels.max(axis=1).tolist()
        columns["mean"] += pixels.mean(axis=1).tolist()
        columns["ink_fraction"] += (pixels >= INK_LEVEL).mean(axis=1).tolist()
        columns["digest"] += [blake2b(row.tobytes(), digest_size=16).hexdigest() for row in pixels]
    return pd.DataFrame(
        {
            "split": name,
            "index": np.arange(count),
            "label": split.labels,
            "height": height,
            "width": width,
            **columns,
        }
    )
