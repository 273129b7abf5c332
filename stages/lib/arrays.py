"""A split's arrays on disk: .npy files, never pickled, memory-mapped for reading and writing."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from stages.lib.errors import DataError

# Rows handled at a time where data is streamed: 784 float32 features each make 25 MB.
CHUNK_ROWS = 8192


class Split(NamedTuple):
    """The images and labels of one split."""

    images: NDArray[Any]  # (N, H, W)
    labels: NDArray[Any]  # (N,)


def load_split(split_dir: Path) -> Split:
    """The images and labels in a folder, images memory-mapped.

    Raises:
        DataError: a file is missing, damaged or pickled, or images and labels differ in number.
    """
    split = Split(load_array(split_dir / "images.npy"), load_array(split_dir / "labels.npy"))
    if len(split.images) != len(split.labels):
        raise DataError(
            str(split_dir),
            expected="as many labels as images",
            got=f"{len(split.images)} images and {len(split.labels)} labels",
            do="run `dvc repro`",
        )
    return split


def load_array(path: Path) -> NDArray[Any]:
    """The array in a .npy file, memory-mapped and read-only.

    Raises:
        DataError: the file is missing, damaged, pickled or without a dimension.
    """
    try:
        array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise DataError(str(path), expected="a file", got="none", do="run `dvc repro`") from None
    except (ValueError, EOFError) as error:
        raise DataError(str(path), expected="a whole .npy array", got=str(error), do="run `dvc repro`") from None
    if array.ndim == 0:
        raise DataError(str(path), expected="one row per image", got="a single value", do="run `dvc repro`")
    return array
