"""A folder of images, one subfolder for each class: what is in it, and what of that is no image."""

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

from stages.lib.core.arrays import Split, allocate, iterate_chunks
from stages.lib.core.errors import CONTROLS, DataError
from stages.lib.data.class_names import find_name_problem, normalize_name
from stages.lib.data.image_decoding import decode_image, fit_image
from stages.lib.data.splits import split_stratified

# Pillow's names. A file's content decides, not its name.
KINDS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP")
IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"}
# What Windows, macOS, Synology, QNAP and Linux leave in any folder, by its name in lower case. So is all whose name
# begins with a dot, such as .DS_Store and .thumbnails.
_LEFT_BY_SYSTEMS = {
    *("thumbs.db", "ehthumbs.db", "desktop.ini", "$recycle.bin", "system volume information"),
    *("__macosx", "icon\r", "@eadir", "#recycle", "@recycle", "@tmp", "lost+found"),
}
_SPLITS = ("train", "test")
# Subfolders that are all called so are splits, not classes.
_SPLIT_WORDS = {"train", "training", "test", "testing", "val", "valid", "validation", "dev", "eval", "holdout"}
_PROGRESS_SECONDS = 5


class ImageFile(NamedTuple):
    """One file of a class."""

    path: Path
    name: str  # relative to the folder, with slashes
    split: str  # train, test, or empty where the folder leaves that to a seed
    class_name: str


class ImageFolder(NamedTuple):
    """A folder's images as arrays."""

    train: Split
    test: Split
    class_names: tuple[str, ...]
    files: dict[str, list[str]]  # the name of each image's file, by split
    sizes: dict[str, NDArray[np.int32]]  # (N, 2), height and width of each upright image in pixels, by split


def has_subfolders(folder: Path) -> bool:
    """Whether this is a folder that has subfolders, as one with classes does, or cannot be looked into."""
    try:
        return folder.is_dir() and any(
            entry.is_dir() and not is_left_by_systems(entry.name) for entry in folder.iterdir()
        )
    except OSError:
        return True  # `read_image_folder` says why


def read_image_folder(
    folder: Path, shown: str, image_shape: tuple[int, ...], test_fraction: float, seed: int, heading: str
) -> tuple[ImageFolder | None, list[DataError]]:
    """Read the valid images of a folder, all of one shape, and list every error; subfolders are the classes.

    Where the folder has no split of its own, `test_fraction` (0..1) of the images of each class are drawn by `seed`;
    images that are the same pixel by pixel stay in one split. Where fewer than two classes have a valid image there
    are none, and an error says so.

    shown: the folder as a person named it. image_shape: (H, W), grey, or (H, W, 3), RGB. heading: what stands before
    each line of progress.
    """
    listed, problems = list_image_files(folder, shown)
    images = allocate((len(listed), *image_shape), np.uint8)
    height, width, *channels = image_shape
    sizes = np.zeros((len(listed), 2), np.int32)
    valid: list[int] = []
    reported = time.monotonic()
    for row, image_file in enumerate(listed):
        try:
            with image_file.path.open("rb") as file:
                name = _show(image_file.path, folder, shown)
                image = decode_image(file, name, KINDS, is_colour=bool(channels))
            images[row], sizes[row] = fit_image(image, (height, width)), (image.height, image.width)
            valid.append(row)
        except OSError as error:
            problems.append(DataError.unreadable(_show(image_file.path, folder, shown), error))
        except DataError as problem:
            problems.append(problem)
        if time.monotonic() - reported > _PROGRESS_SECONDS:
            reported = time.monotonic()
            print(f"{heading}: {row + 1:,} of {len(listed):,} images", flush=True)
    class_names = tuple(sorted({listed[row].class_name for row in valid}))
    if len(class_names) < 2:
        if listed or not problems:  # else what is wrong with the folder is said
            expected, got = "a subfolder for each of two or more classes", ", ".join(class_names) or "none"
            hint = _suggest_classes(folder, shown, class_names)
            problems.append(DataError(shown, expected=expected, got=got, hint=hint))
        return None, sorted(problems, key=str)
    image_files, rows = [listed[row] for row in valid], np.array(valid)
    label_of = {name: label for label, name in enumerate(class_names)}
    labels = np.array(
        [label_of[image_file.class_name] for image_file in image_files], np.min_scalar_type(len(class_names))
    )
    chosen = dict(zip(_SPLITS, _choose(image_files, images, rows, labels, test_fraction, seed), strict=True))
    for name, places in chosen.items():
        absent = set(range(len(class_names))) - set(labels[places].tolist())
        if absent:
            # Too few for the share that is held out, or in one folder alone: `validate` refuses them.
            print(f"{heading}: {shown}: no {name} image of {', '.join(class_names[label] for label in sorted(absent))}")
    splits = {name: Split(_take_images(images, rows[places]), labels[places]) for name, places in chosen.items()}
    read = ImageFolder(
        train=splits["train"],
        test=splits["test"],
        class_names=class_names,
        files={name: [image_files[place].name for place in places] for name, places in chosen.items()},
        sizes={name: sizes[rows[places]] for name, places in chosen.items()},
    )
    return read, sorted(problems, key=str)


def _suggest_classes(folder: Path, shown: str, class_names: Sequence[str]) -> str:
    """What to do about fewer than two classes."""
    sort = "sort the images into such subfolders"
    inner = [name for name in class_names if has_subfolders(folder / name)]
    return f"name {shown}/{inner[0]} if its subfolders are the classes, or {sort}" if inner else sort


def _choose(
    image_files: Sequence[ImageFile],
    images: NDArray[np.uint8],
    rows: NDArray[np.int64],
    labels: NDArray[np.unsignedinteger],
    test_fraction: float,
    seed: int,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Choose the places in `image_files` of each split (train, test), ascending. rows: of each image in `images`."""
    if image_files[0].split:
        is_test = np.array([image_file.split == "test" for image_file in image_files])
    else:
        groups: dict[bytes, int] = {}
        group = np.array([groups.setdefault(blake2b(images[row].tobytes()).digest(), len(groups)) for row in rows])
        _, first = np.unique(group, return_index=True)
        _, held_out = split_stratified(labels[first], test_fraction, seed)
        is_test = np.isin(group, held_out)
    return np.flatnonzero(~is_test), np.flatnonzero(is_test)


def _take_images(images: NDArray[np.uint8], rows: NDArray[np.int64]) -> NDArray[np.uint8]:
    """The given rows of `images` as an array of their own."""
    taken = allocate((len(rows), *images.shape[1:]), images.dtype)
    for chunk in iterate_chunks(len(rows)):
        taken[chunk] = images[rows[chunk]]
    return taken


def list_image_files(folder: Path, shown: str) -> tuple[list[ImageFile], list[DataError]]:
    """List every file of every class, and the errors of those that cannot be images.

    They come in the order of the files' own names, whatever their class: images numbered throughout keep that order.
    Classes are the subfolders of `folder`, or of `train` and `test` in it where these two are all there is. Within a
    class, folders may be nested. Files beside the classes count for nothing unless they are images.

    shown: the folder as a person named it.
    """
    image_files: list[ImageFile] = []
    problems: list[DataError] = []
    class_dirs = _list_classes(folder, shown, problems)
    for class_dir, split in class_dirs:
        if not _is_utf8(class_dir.name):
            problems.append(DataError(_show(class_dir, folder, shown), "its name is not UTF-8", "rename the folder"))
            continue
        count = len(image_files) + len(problems)
        for path in _iterate_files(class_dir, folder, shown, problems):
            problem = _find_problem(path, class_dir, folder, shown)
            if problem:
                problems.append(problem)
            else:
                name = path.relative_to(folder).as_posix()
                image_files.append(ImageFile(path, name, split, normalize_name(class_dir.name)))
        if len(image_files) + len(problems) == count:
            hint = "put images into the folder, or remove it"
            problems.append(DataError(_show(class_dir, folder, shown), "there is no image in it", hint))
    problems += _find_name_problems([class_dir for class_dir, _ in class_dirs], folder, shown)
    return sorted(image_files, key=lambda image_file: (image_file.path.name, image_file.name)), problems


def _list_classes(folder: Path, shown: str, problems: list[DataError]) -> list[tuple[Path, str]]:
    """List the folders of the classes, each with the split that it is in."""
    subfolders = _list_subfolders(folder, folder, shown, problems)
    names = {subfolder.name for subfolder in subfolders}
    if names == set(_SPLITS):
        return [(path, split.name) for split in subfolders for path in _list_subfolders(split, folder, shown, problems)]
    if len(names) > 1 and {name.lower() for name in names} <= _SPLIT_WORDS:
        got, hint = ", ".join(sorted(names)), "name two of them train and test, and move the others away"
        problems.append(DataError(shown, expected="a folder for each class, or train and test", got=got, hint=hint))
        return []
    return [(subfolder, "") for subfolder in subfolders]


def _list_subfolders(parent: Path, folder: Path, shown: str, problems: list[DataError]) -> list[Path]:
    subfolders = []
    for entry in _scan(parent, folder, shown, problems):
        path = parent / entry.name
        if entry.is_dir(follow_symlinks=False):
            subfolders.append(path)
        elif entry.is_symlink() and not path.is_file():
            hint = "copy the folder here, or remove the link"
            problems.append(DataError(_show(path, folder, shown), "it is a link to a folder or to nothing", hint))
        elif path.suffix.lower() in IMAGE_SUFFIXES:
            hint = "move it into the folder of its class"
            problems.append(DataError(_show(path, folder, shown), "it is in no folder of a class", hint))
    return subfolders


def _iterate_files(class_dir: Path, folder: Path, shown: str, problems: list[DataError]) -> Iterator[Path]:
    """Iterate over all files of a class, at any depth: os.walk would nest its calls as deep."""
    waiting = [class_dir]
    while waiting:
        parent = waiting.pop()
        for entry in _scan(parent, folder, shown, problems):
            if entry.is_dir(follow_symlinks=False):
                waiting.append(parent / entry.name)
            else:
                yield parent / entry.name


def _scan(parent: Path, folder: Path, shown: str, problems: list[DataError]) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(parent) as entries:
            kept = [entry for entry in entries if not is_left_by_systems(entry.name)]
    except OSError as error:
        problems.append(DataError.unreadable(_show(parent, folder, shown), error))
        return []
    return sorted(kept, key=lambda entry: entry.name)


def is_left_by_systems(name: str) -> bool:
    """Whether a file or folder of this name is none of a person's own."""
    return name.startswith(".") or name.lower() in _LEFT_BY_SYSTEMS


def _find_problem(path: Path, class_dir: Path, folder: Path, shown: str) -> DataError | None:
    """Find what is wrong with a file before it is opened: a FIFO would wait forever for its other end."""
    name, where = str(path.relative_to(class_dir)), _show(path, folder, shown)
    if not _is_printable(name):  # bytes that are no UTF-8 are not either
        kind = "has control characters" if _is_utf8(name) else "is not UTF-8"
        return DataError(where, f"its name {kind}", "rename it")
    try:
        mode = path.stat().st_mode
        # A loop of links fails above; `resolve` has another error for it in each version of Python.
        is_astray = path.is_symlink() and not path.resolve().is_relative_to(folder.resolve())
    except OSError as error:
        problem = DataError(where, f"it is a link that leads to no file: {error.strerror}", "remove the link")
        return problem if path.is_symlink() else DataError.unreadable(where, error)
    if is_astray:
        return DataError(where, "it is a link to a file outside this folder", "copy the file here")
    if not stat.S_ISREG(mode):
        return DataError(
            where, "it is a link to a folder" if stat.S_ISDIR(mode) else "it is no ordinary file", "remove it"
        )
    return None


def _find_name_problems(class_dirs: Sequence[Path], folder: Path, shown: str) -> Iterator[DataError]:
    """Find class names that reports could not show, and those that other systems would take for one."""
    first: dict[str, Path] = {}
    for class_dir in class_dirs:
        name, where = normalize_name(class_dir.name), _show(class_dir, folder, shown)
        if not _is_utf8(name):
            continue  # told above
        if problem := find_name_problem(name, where, "rename the folder"):
            yield problem
        other = first.setdefault(normalize_name(name.lower()), class_dir)
        if normalize_name(other.name) != name or (other != class_dir and other.parent == class_dir.parent):
            difference = "this class name differs in upper case or the form of accents alone from that of "
            yield DataError(where, difference + _show(other, folder, shown), "rename one of the folders")


def _is_utf8(name: str) -> bool:
    return not any(unicodedata.category(character) == "Cs" for character in name)


def _is_printable(name: str) -> bool:
    return not CONTROLS.search(name)


def _show(path: Path, folder: Path, shown: str) -> str:
    """The path as a person would write it; bytes that are no UTF-8 and what moves a terminal's cursor as escapes."""
    if path == folder:
        return shown
    name = os.fsencode(path.relative_to(folder)).decode("utf-8", "backslashreplace")
    return f"{shown}/" + "".join(c if _is_printable(c) else c.encode("unicode_escape").decode() for c in name)
