"""Arrays that need not fit into memory: .npy files, never pickled, memory-mapped, and read a chunk at a time."""

import math
import os
from collections import Counter
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
            hint="run `dvc repro`",
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
    """Write the rows of `chunks`, one after the other, as a .npy file of that shape and type.

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


def take_rows(array: NDArray[Any], rows: NDArray[np.int64]) -> NDArray[Any]:
    """The given rows of a memory-mapped array as an array of their own."""
    taken = allocate((len(rows), *array.shape[1:]), array.dtype)
    for chunk in iterate_chunks(len(rows)):
        taken[chunk] = array[rows[chunk]]
    return taken


def number_rows(count: int) -> NDArray[np.int64]:
    """The rows 0 to `count` - 1, to be reordered."""
    rows = allocate((count,), np.int64)
    for chunk in iterate_chunks(count):
        rows[chunk] = np.arange(chunk.start, chunk.stop)
    return rows


def find_rows(is_wanted: NDArray[np.bool_]) -> NDArray[np.int64]:
    """The rows, ascending, that are marked in (N,)."""
    rows = allocate((int(np.count_nonzero(is_wanted)),), np.int64)
    start = 0
    for chunk in iterate_chunks(len(is_wanted)):
        found = chunk.start + np.flatnonzero(is_wanted[chunk])
        rows[start : start + len(found)] = found
        start += len(found)
    return rows


def count_labels(labels: NDArray[np.integer]) -> dict[int, int]:
    """How often each class id is in (N,), by class id, ascending."""
    counts: Counter[int] = Counter()
    for chunk in iterate_chunks(len(labels)):
        counts.update(dict(zip(*map(np.ndarray.tolist, np.unique(labels[chunk], return_counts=True)), strict=True)))
    return dict(sorted(counts.items()))


def count_scratch_bytes(shape: tuple[int, ...], dtype: DTypeLike) -> int:
    """What `allocate` takes of the disk for such an array: nothing if it is small."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    return size if size > _SMALL_BYTES else 0


def fill(shape: tuple[int, ...], dtype: DTypeLike, value: float) -> NDArray[Any]:
    """An array that `allocate` gives, with this value everywhere."""
    array = allocate(shape, dtype)
    array[...] = value
    return array


def allocate(shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
    """An array to be filled: a large one is held by a file without a name, so that it takes no memory of the process.

    The file goes away with the array, however the process ends.

    Raises:
        DataError: there is no room for it on the disk.
    """
    size = count_scratch_bytes(shape, dtype)
    if not size:
        return np.empty(shape, dtype)
    _SCRATCH_DIR.mkdir(parents=True, exist_ok=True)
    require_space(_SCRATCH_DIR, size)
    with TemporaryFile(dir=_SCRATCH_DIR) as file:
        if hasattr(os, "posix_fallocate"):
            # A page of a mapped file that finds no room later kills the process; here it is an error like any other.
            os.posix_fallocate(file.fileno(), 0, size)
        # The plain array in the map: NumPy shuffles and indexes it without asking each time what kind of array it is.
        return np.asarray(np.memmap(file, dtype, "w+", shape=shape))
