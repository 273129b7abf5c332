"""A person's own images as arrays: four IDX files, or an .npz file with the names of Keras or of MedMNIST."""

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from stages.lib.core.arrays import Split, allocate, iterate_chunks
from stages.lib.core.errors import DataError
from stages.lib.data.datasets import Dataset
from stages.lib.data.idx import open_idx
from stages.lib.data.labels import number_classes
from stages.lib.data.npz import list_npz, open_npz

# Words in the names of IDX files as MNIST and its many likenesses have them.
_SPLIT_WORDS = {"train": ("train",), "test": ("t10k", "test")}
_KIND_WORDS = {"images": "idx3", "labels": "idx1"}
_DIMENSIONS = {"images": 3, "labels": 1}
# Names of images and labels in Keras's own .npz files, and in those of MedMNIST (https://medmnist.com).
_KERAS_NAMES = {"train": ("x_train", "y_train"), "test": ("x_test", "y_test")}
_MEDMNIST_NAMES = {part: (f"{part}_images", f"{part}_labels") for part in ("train", "val", "test")}
# Weights of red, green and blue in Pillow's grey (ITU-R BT.601).
_GREY_WEIGHTS = "[0.299, 0.587, 0.114]"
_SAVE = "then save the file again"


class _Part(NamedTuple):
    """One part of a data set as its file has it."""

    images: NDArray[Any]
    images_name: str
    labels: NDArray[Any]
    labels_name: str


def load_arrays(folder: Path, path: str, *, is_colour: bool, heading: str) -> Dataset:
    """Load a person's own images from an .npz file, or from a folder with one or with four IDX files.

    Labels are what `number_classes` takes; images (N, H, W) or (N, H, W, 1), or in colour (N, H, W, 3), whole numbers
    0..255 of any type. Those that MedMNIST sets aside for validation join the training images.

    path: the file or folder as the person named it. is_colour: whether the images have to be in colour, or to be grey.
    heading: what stands before a line on what became of the data.

    Raises:
        DataError: naming everything that is missing, damaged or does not fit.
    """
    archives = [folder] if folder.is_file() else list_archives(folder)
    parts, files = _open_npz(archives[0]) if len(archives) == 1 else _open_idx(folder, path)
    parts = {name: part._replace(images=_drop_channel(part.images)) for name, part in parts.items()}
    problems = [
        problem for part in parts.values() for problem in _find_problems(part, parts, path, is_colour=is_colour)
    ]
    try:
        ids, class_names = number_classes({part.labels_name: part.labels for part in parts.values()}, path, heading)
    except DataError as problem:
        problems += problem.causes
    if problems:
        raise DataError.join(problems)
    splits = {
        name: Split(_to_bytes([part.images]), labels) for (name, part), labels in zip(parts.items(), ids, strict=True)
    }
    if aside := splits.pop("val", None):
        print(f"{heading}: {path}: {len(aside.labels):,} validation images join the training images")
        images, labels = (list(pair) for pair in zip(splits["train"], aside, strict=True))
        splits["train"] = Split(_to_bytes(images), np.concatenate(labels))
    return Dataset(
        train=splits["train"],
        test=splits["test"],
        class_names=class_names,
        expected={name: len(split.labels) for name, split in splits.items()},
        sources={file.name: hash_file(file) for file in files},
    )


def _open_npz(path: Path) -> tuple[dict[str, _Part], list[Path]]:
    """The parts of the data set in an .npz file, and that file."""
    there = list_npz(path)
    names = _MEDMNIST_NAMES if "train_images" in there else _KERAS_NAMES
    names = {part: pair for part, pair in names.items() if part in _SPLIT_WORDS or not there.isdisjoint(pair)}
    arrays = open_npz(path, [name for pair in names.values() for name in pair])
    parts = {part: _Part(arrays[images], images, arrays[labels], labels) for part, (images, labels) in names.items()}
    return parts, [path]


def _open_idx(folder: Path, path: str) -> tuple[dict[str, _Part], list[Path]]:
    """Both splits in four IDX files, and these files."""
    arrays: dict[tuple[str, str], Any] = {}
    files: dict[tuple[str, str], Path] = {}
    problems: list[DataError] = []
    for split, (kind, dimensions) in product(_SPLIT_WORDS, _DIMENSIONS.items()):
        try:
            file = _find_idx_file(folder, path, split, kind)
            arrays[split, kind] = open_idx(file, dimensions)
            files[split, kind] = file
        except DataError as problem:
            problems.append(problem)
    if problems:
        raise DataError.join(problems)
    parts = {
        split: _Part(
            *(arrays[split, "images"], files[split, "images"].name),
            *(arrays[split, "labels"], files[split, "labels"].name),
        )
        for split in _SPLIT_WORDS
    }
    return parts, list(files.values())


def _drop_channel(images: NDArray[Any]) -> NDArray[Any]:
    """Images (N, H, W, 1) as (N, H, W); others as they are."""
    return images.reshape(images.shape[:-1]) if images.ndim == 4 and images.shape[-1] == 1 else images


def _find_problems(part: _Part, parts: Mapping[str, _Part], path: str, *, is_colour: bool) -> Iterator[DataError]:
    """The errors of images of another shape, of no whole numbers 0..255, or of another number than their labels.

    parts: all of the data set by their names.
    """
    images, name, image_shape = part.images, part.images_name, parts["train"].images.shape[1:]
    where = f"{path}: {name}"
    kind = "colour images (N, H, W, 3)" if is_colour else "grey images (N, H, W)"
    expected = f"{kind} of whole numbers 0..255"
    if not _is_image_array(images, is_colour=is_colour):
        got = f"{images.dtype} {images.shape}"
        is_same_in_all = all(_is_image_array(other.images, is_colour=not is_colour) for other in parts.values())
        ways_out = [f"set ingest.channels to {1 if is_colour else 3}"] if is_same_in_all else []
        if (change := _suggest_shape(images.shape, name, is_colour=is_colour)) and name.isidentifier():
            ways_out.append(f"in Python: `{change}`; {_SAVE}")
        yield DataError(where, expected=expected, got=got, hint=", or ".join(ways_out) or f"save {kind} of them")
    elif not _has_pixel_values(images):
        got, hint = f"{images.dtype} {images.shape}", "bring all of them to whole numbers 0..255 in the same way"
        if images.dtype.kind in "biuf":
            low, high = _find_range(images)
            got += f" from {low:g} to {high:g}"
            if low >= 0 and high <= 1:
                hint = f"in Python: `{name} = ({name} * 255).round().astype('uint8')`"
        yield DataError(where, expected=expected, got=got, hint=f"{hint}; {_SAVE}")
    elif images.ndim == len(image_shape) + 1 and images.shape[1:] != image_shape:
        wanted, got = (" x ".join(map(str, shape[:2])) for shape in (image_shape, images.shape[1:]))
        hint = "bring all images to one size"
        yield DataError(where, expected=f"images of {wanted} as for training", got=got, hint=hint)
    if images.shape[:1] != part.labels.shape[:1]:
        counts = [f"{len(array):,}" if array.ndim else "no" for array in (images, part.labels)]
        yield DataError(
            path,
            expected=f"as many labels in {part.labels_name} as images in {name}",
            got=f"{counts[0]} images and {counts[1]} labels",
            hint="save both again, a label for each image",
        )


def _is_image_array(images: NDArray[Any], *, is_colour: bool) -> bool:
    """Whether the shape is (N, H, W), or in colour (N, H, W, 3)."""
    return images.ndim == 4 and images.shape[3] == 3 if is_colour else images.ndim == 3


def _has_pixel_values(images: NDArray[Any]) -> bool:
    """Whether the values are whole numbers 0..255, of whatever type."""
    if images.dtype == np.uint8 or not images.size:
        return True
    if images.dtype.kind not in "iuf":
        return False
    low, high = _find_range(images)
    # What ends at 1 is a share of the range: as a pixel it would be as good as black.
    is_in_range = low >= 0 and 1 < high <= 255
    chunks = (images[rows] for rows in iterate_chunks(len(images)))
    return is_in_range and all(np.array_equal(chunk, np.rint(chunk)) for chunk in chunks)


def _find_range(images: NDArray[Any]) -> tuple[float, float]:
    """The smallest and the largest value."""
    chunks = [images[rows] for rows in iterate_chunks(len(images))]
    return float(np.min([chunk.min() for chunk in chunks])), float(np.max([chunk.max() for chunk in chunks]))


def _suggest_shape(shape: tuple[int, ...], name: str, *, is_colour: bool) -> str:
    """The line of Python that makes images of an array of another shape; empty if there is no telling."""
    made = ""
    match shape:
        case (_, _, _) if is_colour:
            made = f"{name}[..., None].repeat(3, axis=-1)"
        case (_, _, _, 4) if is_colour:
            made = f"{name}[..., :3]"
        case (_, 3, _, _) if is_colour:
            made = f"{name}.transpose(0, 2, 3, 1)"
        case (_, count) if not is_colour and (side := math.isqrt(count)) ** 2 == count:
            made = f"{name}.reshape(-1, {side}, {side})"
        case (_, 1, _, _) if not is_colour:
            made = f"{name}[:, 0]"
        case (_, _, _, 3 | 4) if not is_colour:
            made = f"({name}[..., :3] @ {_GREY_WEIGHTS}).round().astype('uint8')"
    return f"{name} = {made}" if made else ""


def _to_bytes(arrays: Sequence[NDArray[Any]]) -> NDArray[np.uint8]:
    """The rows of arrays of whole numbers 0..255, one after the other, as uint8."""
    if len(arrays) == 1 and arrays[0].dtype == np.uint8:
        return arrays[0]
    images = allocate((sum(map(len, arrays)), *arrays[0].shape[1:]), np.uint8)
    start = 0
    for array in arrays:
        for rows in iterate_chunks(len(array)):
            images[start + rows.start : start + rows.stop] = array[rows]
        start += len(array)
    return images


def _find_idx_file(folder: Path, path: str, split: str, kind: str) -> Path:
    """The only IDX file of a split's images or labels."""
    words = _SPLIT_WORDS[split]
    found = [file for file in list_idx_files(folder, kind) if any(word in file.name.lower() for word in words)]
    if len(found) != 1:
        raise DataError(
            path,
            expected=f"one IDX file of the {split} split's {kind}, "
            f"such as {_SPLIT_WORDS[split][0]}-{kind}-{_KIND_WORDS[kind]}-ubyte, plain or .gz",
            got=", ".join(file.name for file in found) or "none",
            hint="keep one of these" if found else "put it there",
        )
    return found[0]


def list_archives(folder: Path) -> list[Path]:
    """The .npz files in a folder, in order."""
    return sorted(path for path in folder.glob("*.npz") if not path.name.startswith("."))


def list_idx_files(folder: Path, kind: str = "") -> list[Path]:
    """The files in a folder that are IDX files by their names, in order; kind: `images` or `labels` alone."""
    words = [_KIND_WORDS[kind]] if kind else _KIND_WORDS.values()
    return sorted(path for path in folder.iterdir() if path.is_file() and any(word in path.name for word in words))


def hash_file(path: Path) -> str:
    """The SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
