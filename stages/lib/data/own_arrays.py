"""A person's own images as arrays: four IDX files, or an .npz file, as Keras has them."""

import hashlib
from collections.abc import Iterator, Mapping
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from stages.lib.core.arrays import Split
from stages.lib.core.errors import DataError
from stages.lib.data.datasets import Dataset
from stages.lib.data.idx import open_idx
from stages.lib.data.npz import open_npz

# Words in the names of IDX files as MNIST and its many likenesses have them.
_SPLIT_WORDS = {"train": ("train",), "test": ("t10k", "test")}
_KIND_WORDS = {"images": "idx3", "labels": "idx1"}
_DIMENSIONS = {"images": 3, "labels": 1}
# Keras's names in its own data sets' .npz files.
_NPZ_NAMES = {"images": "x", "labels": "y"}
# As many as a byte can tell apart need no look at how many images there are.
_FEW_CLASSES = 256


def load_arrays(folder: Path, path: str) -> Dataset:
    """Load a person's own images from an .npz file, or from a folder with one or with four IDX files.

    path: the file or folder as the person named it.

    Raises:
        DataError: naming everything that is missing, damaged or does not fit.
    """
    archives = [folder] if folder.is_file() else sorted(folder.glob("*.npz"))
    splits, files = _open_npz(archives[0]) if len(archives) == 1 else _open_idx(folder, path)
    problems = [problem for name, split in splits.items() for problem in _find_problems(split, f"{path}: {name}")]
    if problems:
        raise DataError.join(problems)
    return Dataset(
        train=splits["train"],
        test=splits["test"],
        class_names=tuple(map(str, range(_count_classes(splits, path)))),
        expected={name: len(split.labels) for name, split in splits.items()},
        sources={file.name: hash_file(file) for file in files},
    )


def _open_npz(path: Path) -> tuple[dict[str, Split], list[Path]]:
    """Both splits in an .npz file, and that file."""
    arrays = open_npz(path, [f"{name}_{split}" for split in _SPLIT_WORDS for name in _NPZ_NAMES.values()])
    splits = {split: Split(arrays[f"x_{split}"], arrays[f"y_{split}"].reshape(-1)) for split in _SPLIT_WORDS}
    return splits, [path]


def _open_idx(folder: Path, path: str) -> tuple[dict[str, Split], list[Path]]:
    """Both splits in four IDX files, and these files."""
    arrays: dict[tuple[str, str], Any] = {}
    files: list[Path] = []
    problems: list[DataError] = []
    for split, (kind, dimensions) in product(_SPLIT_WORDS, _DIMENSIONS.items()):
        try:
            file = _find_idx_file(folder, path, split, kind)
            arrays[split, kind] = open_idx(file, dimensions)
            files.append(file)
        except DataError as problem:
            problems.append(problem)
    if problems:
        raise DataError.join(problems)
    return {split: Split(arrays[split, "images"], arrays[split, "labels"]) for split in _SPLIT_WORDS}, files


def _find_problems(split: Split, where: str) -> Iterator[DataError]:
    """The errors of arrays that are no grey images with a class id each; everything else is for `validate` to find."""
    images, labels = split
    if images.ndim != 3 or images.dtype != np.uint8:
        yield DataError(
            f"{where}: images",
            expected="uint8 (N, H, W), grey levels 0..255",
            got=f"{images.dtype} {images.shape}",
            hint="convert them to 8-bit grey and save them again",
        )
    is_integer = np.issubdtype(labels.dtype, np.integer)
    if not is_integer or labels.min(initial=0) < 0:
        yield DataError(
            f"{where}: labels",
            expected="whole numbers from 0 on",
            got=str(labels.min() if is_integer else labels.dtype),
            hint="save them as integers that number the classes from 0",
        )
    if images.shape[:1] != labels.shape[:1]:
        yield DataError(
            where,
            expected="as many labels as images",
            got=f"{len(images) if images.ndim else 'no'} images and {len(labels)} labels",
            hint="save the images and labels of this split again, a label for each image",
        )


def _count_classes(splits: Mapping[str, Split], path: str) -> int:
    """One more than the largest class id, which may not be larger than the number of images."""
    count = 1 + max(int(split.labels.max(initial=0)) for split in splits.values())
    most = max(_FEW_CLASSES, sum(len(split.labels) for split in splits.values()))
    if count > most:
        expected = f"class ids below {most:,}, of which each may have an image"
        raise DataError(f"{path}: labels", expected=expected, got=f"{count - 1:,}", hint="number the classes from 0")
    return count


def _find_idx_file(folder: Path, path: str, split: str, kind: str) -> Path:
    """The only IDX file of a split's images or labels."""
    found = [
        file
        for file in sorted(folder.glob(f"*{_KIND_WORDS[kind]}*"))
        if file.is_file() and any(word in file.name.lower() for word in _SPLIT_WORDS[split])
    ]
    if len(found) != 1:
        raise DataError(
            f"ingest.path: {path}",
            expected="a subfolder of images for each class, or one .npz file, or one IDX file of the "
            f"{split} split's {kind}, such as {_SPLIT_WORDS[split][0]}-{kind}-{_KIND_WORDS[kind]}-ubyte, plain or .gz",
            got=", ".join(file.name for file in found) or "none of them",
            hint="keep one of these" if found else "put it there, or name another folder",
        )
    return found[0]


def hash_file(path: Path) -> str:
    """The SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
