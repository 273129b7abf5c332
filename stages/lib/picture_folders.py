"""A folder of pictures, one subfolder for each class: what is in it, and what of that is no picture."""

import os
import stat
import time
import unicodedata
from collections.abc import Iterator, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from stages.lib.arrays import Split, allocate, take_rows
from stages.lib.errors import DataError
from stages.lib.photos import fit_picture, read_grey
from stages.lib.splits import split_stratified

# Pillow's names. A file's content decides, not its name.
KINDS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP")
_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"}
# Files that systems leave in any folder; so are those whose names begin with a dot.
_LEFT_BY_SYSTEMS = {"Thumbs.db", "desktop.ini"}
_SPLITS = ("train", "test")
_PROGRESS_SECONDS = 5


class Picture(NamedTuple):
    """One file of a class."""

    path: Path
    name: str  # relative to the folder, with slashes
    split: str  # train, test, or empty where the folder leaves that to a seed
    class_name: str


class Pictures(NamedTuple):
    """A folder's pictures as arrays."""

    train: Split
    test: Split
    class_names: tuple[str, ...]
    files: dict[str, list[str]]  # the name of each image's file, by split


def has_pictures(folder: Path) -> bool:
    """Whether the folder has subfolders, as one with classes does."""
    return any(entry.is_dir() and not _is_left_by_systems(entry.name) for entry in folder.iterdir())


def list_pictures(folder: Path, shown: str) -> tuple[list[Picture], list[DataError]]:
    """Every file of every class, and what cannot be taken for one.

    They come in the order of the files' own names, whatever their class: pictures numbered throughout keep that order.
    Classes are the subfolders of `folder`, or of `train` and `test` in it where these two are all there is. Within a
    class, folders may be nested. Files beside the classes count for nothing unless they are pictures.

    shown: the folder as a person named it.
    """
    subfolders = _list_entries(folder, folders=True)
    is_split = {entry.name for entry in subfolders} == set(_SPLITS)
    parents = [(entry, entry.name) for entry in subfolders] if is_split else [(folder, "")]
    pictures: list[Picture] = []
    faults: list[DataError] = []
    for parent, split in parents:
        faults += [
            _tell(file, folder, shown, "a folder of its class around it", "none", "move it into one")
            for file in _list_entries(parent, folders=False)
            if file.suffix.lower() in _SUFFIXES
        ]
        for class_dir in _list_entries(parent, folders=True):
            count = len(pictures) + len(faults)
            for path in _iterate_files(class_dir):
                fault = _find_fault(path, folder, shown)
                if fault:
                    faults.append(fault)
                else:
                    name = path.relative_to(folder).as_posix()
                    pictures.append(Picture(path, name, split, unicodedata.normalize("NFC", class_dir.name)))
            if len(pictures) + len(faults) == count:
                faults.append(_tell(class_dir, folder, shown, "a picture in it", "none", "remove the folder"))
    return sorted(pictures, key=lambda picture: (picture.path.name, picture.name)), faults


def load_pictures(
    folder: Path, shown: str, image_size: tuple[int, int], test_fraction: float, seed: int, heading: str
) -> Pictures:
    """All pictures of a folder, grey and of one size, their classes by the subfolders' names.

    Where the folder has no split of its own, `test_fraction` (0..1) of the images of each class are drawn by `seed`;
    images that are the same pixel by pixel stay in one split. heading: what stands before each line of progress.

    Raises:
        DataError: naming each file that is no sound picture; or there are fewer than two classes.
    """
    pictures, faults = list_pictures(folder, shown)
    class_names = tuple(sorted({picture.class_name for picture in pictures}))
    if len(class_names) < 2 and not faults:
        raise DataError(
            shown,
            expected="a subfolder for each of two or more classes",
            got=", ".join(class_names) or "none",
            do="sort the pictures into one folder a class",
        )
    label_of = {name: label for label, name in enumerate(class_names)}
    labels = np.array([label_of[picture.class_name] for picture in pictures], np.min_scalar_type(len(class_names)))
    images = allocate((len(pictures), *image_size), np.uint8)
    told = time.monotonic()
    for row, picture in enumerate(pictures):
        try:
            with picture.path.open("rb") as file:
                images[row] = fit_picture(read_grey(file, f"{shown}/{picture.name}", KINDS), image_size)
        except OSError as error:
            faults.append(
                _tell(picture.path, folder, shown, "a file that can be read", str(error.strerror), "allow it")
            )
        except DataError as fault:
            faults.append(fault)
        if time.monotonic() - told > _PROGRESS_SECONDS:
            told = time.monotonic()
            print(f"{heading}: {row + 1:,} of {len(pictures):,} pictures", flush=True)
    if faults:
        raise DataError.join(sorted(faults, key=str))
    rows = dict(zip(_SPLITS, _choose_rows(pictures, images, labels, test_fraction, seed), strict=True))
    splits = {name: Split(take_rows(images, chosen), labels[chosen]) for name, chosen in rows.items()}
    return Pictures(
        train=splits["train"],
        test=splits["test"],
        class_names=class_names,
        files={name: [pictures[row].name for row in chosen] for name, chosen in rows.items()},
    )


def _choose_rows(
    pictures: Sequence[Picture],
    images: NDArray[np.uint8],
    labels: NDArray[np.unsignedinteger],
    test_fraction: float,
    seed: int,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows (train, test), both ascending."""
    if pictures[0].split:
        is_test = np.array([picture.split == "test" for picture in pictures])
    else:
        groups: dict[bytes, int] = {}
        group = np.array([groups.setdefault(blake2b(image.tobytes()).digest(), len(groups)) for image in images])
        _, first = np.unique(group, return_index=True)
        _, held_out = split_stratified(labels[first], test_fraction, seed)
        is_test = np.isin(group, held_out)
    return np.flatnonzero(~is_test), np.flatnonzero(is_test)


def _list_entries(folder: Path, *, folders: bool) -> list[Path]:
    entries = [entry for entry in folder.iterdir() if not _is_left_by_systems(entry.name)]
    return sorted(entry for entry in entries if (entry.is_dir() and not entry.is_symlink()) == folders)


def _iterate_files(class_dir: Path) -> Iterator[Path]:
    for parent, folders, files in os.walk(class_dir):
        folders.sort()
        links = [name for name in folders if (Path(parent) / name).is_symlink()]
        for name in sorted([*files, *links]):
            if not _is_left_by_systems(name):
                yield Path(parent) / name


def _is_left_by_systems(name: str) -> bool:
    return name.startswith(".") or name in _LEFT_BY_SYSTEMS


def _find_fault(path: Path, folder: Path, shown: str) -> DataError | None:
    """What is wrong with a file before it is opened: a FIFO would wait forever for its other end."""
    try:
        str(path).encode("utf-8")
    except UnicodeEncodeError:
        return _tell(path, folder, shown, "a name in UTF-8", "other bytes", "rename it")
    if path.is_symlink() and not path.resolve().is_relative_to(folder.resolve()):
        return _tell(path, folder, shown, "a file of the folder", "a link out of it", "copy the file")
    try:
        mode = path.stat().st_mode
    except OSError as error:
        return _tell(path, folder, shown, "a file that can be read", str(error.strerror), "remove it")
    if not stat.S_ISREG(mode):
        return _tell(path, folder, shown, "a file", "a link to a folder" if stat.S_ISDIR(mode) else "none", "remove it")
    return None


def _tell(path: Path, folder: Path, shown: str, expected: str, got: str, do: str) -> DataError:
    # Bytes that are no UTF-8 are shown as such.
    name = os.fsencode(path.relative_to(folder)).decode("utf-8", "backslashreplace")
    return DataError(f"{shown}/{name}", expected=expected, got=got, do=do)
