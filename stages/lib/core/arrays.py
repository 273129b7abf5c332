"""Arrays that need not fit into memory: .npy files, never pickled, memory-mapped, and read a chunk at a time.

That is for arrays with several values for each image: its pixels, its probabilities. One number for each image, such as
a label or a row, is a plain array: eight bytes beside an image's hundreds.
"""

import math
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike, NDArray

from stages.lib.core.errors import DataError
from stages.lib.core.files import require_space

# Rows handled at a time where data is streamed: 784 float32 features each make 25 MB.
CHUNK_ROWS = 8192
# Beyond this many bytes an array that a stage fills is held by a file, not by the process: its memory does not grow.
_SMALL_BYTES = 1 << 22
# On the disk that the outputs go to: the system's folder for temporary files may itself be memory.
_SCRATCH_DIR = Path(".cache")


class Split(NamedTuple):
    """The images and labels of one split."""

    images: NDArray[Any]  # (N, H, W) or (N, H, W, 3)
    labels: NDArray[Any]  # (N,)


def count_channels(images: NDArray[Any]) -> int:
    """The values of each pixel of images (N, H, W), which are grey: 1; or (N, H, W, channels)."""
    return images.shape[3] if images.ndim == 4 else 1


def load_split(split_dir: Path) -> Split:
    """Load the images and labels in a folder, memory-mapped.

    Raises:
        DataError: a file is missing, damaged or pickled, or images and labels differ in number.
    """
    split = Split(load_array(split_dir / "images.npy"), load_array(split_dir / "labels.npy"))
    if len(split.images) != len(split.labels):
        raise DataError(
            str(split_dir),
            expected="as many labels as images",
            got=f"{len(split.images)} images and {len(split.labels)} labels",
            hint="run `dvc repro`",
        )
    return split


def load_array(path: Path) -> NDArray[Any]:
    """Load the array in a .npy file, memory-mapped and read-only.

    Raises:
        DataError: the file is missing, damaged, pickled or without a dimension.
    """
    try:
        array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise DataError(str(path), "no such file", "run `dvc repro`") from None
    except (ValueError, EOFError) as error:
        raise DataError(str(path), f"not a whole .npy array: {error}", "run `dvc repro`") from None
    if array.ndim == 0:
        raise DataError(str(path), expected="one row per image", got="a single value", hint="run `dvc repro`")
    return array


def save_array(path: Path, array: NDArray[Any]) -> None:
    """Write an array as a .npy file, a bounded number of rows at a time."""
    write_array(path, array.shape, array.dtype, (array[rows] for rows in iterate_chunks(len(array))))


def write_array(path: Path, shape: tuple[int, ...], dtype: DTypeLike, chunks: Iterable[NDArray[Any]]) -> None:
    """Write the rows of `chunks`, one after the other, as a .npy file of this shape and type.

    The bytes are those of `numpy.save`, which on a full disk tells how many items it wrote, and not why.

    Raises:
        ValueError: the type holds objects, which would have to be pickled.
    """
    dtype = np.dtype(dtype)
    if dtype.hasobject:
        raise ValueError(f"{path}: {dtype} holds objects, which are never pickled")
    with path.open("wb") as file:
        header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        for chunk in chunks:
            file.write(chunk.astype(dtype, order="C", copy=False).data)


def iterate_chunks(count: int, chunk_rows: int = CHUNK_ROWS) -> Iterator[slice]:
    """Slices that cover `count` rows in order, a bounded number at a time."""
    for start in range(0, count, chunk_rows):
        yield slice(start, min(start + chunk_rows, count))


def allocate(shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
    """Make an array to be filled; a large one is held by a file without a name, and takes no memory of the process.

    The file goes away with the array, however the process ends.

    Raises:
        DataError: there is no room for it on the disk.
    """
    size = math.prod(shape) * np.dtype(dtype).itemsize
    if size <= _SMALL_BYTES:
        return np.empty(shape, dtype)
    _SCRATCH_DIR.mkdir(parents=True, exist_ok=True)
    require_space(_SCRATCH_DIR, size)
    with TemporaryFile(dir=_SCRATCH_DIR) as file:
        if hasattr(os, "posix_fallocate"):
            # A page of a mapped file that finds no room later kills the process; here it is an error like any other.
            os.posix_fallocate(file.fileno(), 0, size)
        # The plain array in the map: NumPy shuffles and indexes it without asking each time what kind of array it is.
        return np.asarray(np.memmap(file, dtype, "w+", shape=shape))
