"""The data set `folder`: a person's own images, as a folder for each class or as arrays."""

import hashlib
import os
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path

from stages.lib.core.errors import DataError
from stages.lib.core.paths import resolve
from stages.lib.data.datasets import Dataset
from stages.lib.data.image_folder import IMAGE_SUFFIXES, has_subfolders, is_left_by_systems, read_image_folder
from stages.lib.data.own_arrays import hash_file, list_archives, list_idx_files, load_arrays

_EXPECTED = "a folder with a subfolder of images for each class, with IDX files, or an .npz file"
_GUIDE = "docs/how-to/own-images.md shows how"
# What people name in place of these, by the end of its name, and what to do about it.
_OTHER_FILES = {
    (".csv", ".tsv"): ("a table", f"make an .npz file of its pixels: {_GUIDE}"),
    (".npy",): ("one array", f"put images and labels into an .npz file: {_GUIDE}"),
    (".zip", ".tar", ".tgz", ".gz", ".7z", ".rar"): ("an archive", "unpack it, and name the folder"),
    tuple(IMAGE_SUFFIXES): (
        "an image",
        "name the folder that has a subfolder for each class; `pipeline predict` takes single images",
    ),
}


def load_folder(path: str, image_shape: tuple[int, ...], test_fraction: float, seed: int) -> Dataset:
    """Load a person's own images: a folder for each class, four IDX files, or an .npz file, as Keras has them.

    path: the folder, or the .npz file, relative to the project's root. image_shape: (H, W), grey, or (H, W, 3), RGB, to
    which images are brought; arrays keep their height and width, and must have these channels. test_fraction, seed:
    draw the test split of images that have none.

    Raises:
        DataError: naming everything that is missing, damaged or does not fit.
    """
    dataset, problems = read_folder(path, image_shape, test_fraction, seed, heading="ingest")
    if problems or not dataset:
        raise DataError.join(problems)
    return dataset


def read_folder(
    path: str, image_shape: tuple[int, ...], test_fraction: float, seed: int, heading: str
) -> tuple[Dataset | None, list[DataError]]:
    """Read the valid ones of a person's own images, and list every error.

    The parameters are those of `load_folder`. heading: what stands before each line of progress.
    """
    encoding = sys.getfilesystemencoding()
    if encoding != "utf-8":  # "größer" would be a class of another name
        problem = f"this locale reads names of files as {encoding}, not as UTF-8"
        return None, [DataError(path, problem, "run `export LC_ALL=C.UTF-8`, then the same again")]
    if path.startswith("~"):  # DVC looks for the folder before any stage runs
        hint = f"write {os.path.expanduser(path)} in its place"  # noqa: PTH111  (of another's folder that is none, too)
        return None, [DataError(path, "DVC takes ~ for a folder's name, not for your home folder", hint)]
    folder = resolve(path)
    if not has_subfolders(folder):
        try:
            _require_arrays(folder, path)
            return load_arrays(folder, path, is_colour=len(image_shape) == 3, heading=heading), []
        except DataError as problem:
            return None, list(problem.causes)
    loaded, problems = read_image_folder(folder, path, image_shape, test_fraction, seed, heading)
    if not loaded:
        return None, problems
    dataset = Dataset(
        train=loaded.train,
        test=loaded.test,
        class_names=loaded.class_names,
        expected={name: len(files) for name, files in loaded.files.items()},
        sources={path: _hash_files(folder, sorted(loaded.files["train"] + loaded.files["test"]))},
        files=loaded.files,
        sizes=loaded.sizes,
    )
    return dataset, problems


def _require_arrays(place: Path, path: str) -> None:
    """Refuse what is neither an .npz file nor a folder with one or with IDX files."""
    if not place.exists():
        hint = "set ingest.path, or the argument of `pipeline check`, to where your images are"
        raise DataError(path, "no such folder or .npz file", hint)
    got, hint = _describe_folder(place) if place.is_dir() else _describe_file(place)
    if got:
        raise DataError(path, expected=_EXPECTED, got=got, hint=hint)


def _describe_file(file: Path) -> tuple[str, str]:
    """What a file is that is no .npz file, and what to do; empty if it is one."""
    for suffixes, (what, hint) in _OTHER_FILES.items():
        if file.suffix.lower() in suffixes:
            return what, hint
    return ("", "") if file.suffix == ".npz" or zipfile.is_zipfile(file) else ("another file", "name one of these")


def _describe_folder(folder: Path) -> tuple[str, str]:
    """What a folder without subfolders has in place of arrays, and what to do; empty if it has arrays."""
    files = sorted(entry.name for entry in folder.iterdir() if not is_left_by_systems(entry.name))
    archives = list_archives(folder)
    if len(archives) > 1:
        return f"{len(archives)} .npz files", f"name one of them, such as {archives[0].name}"
    if archives or list_idx_files(folder):
        return "", ""
    if not files:
        return "an empty folder", "put your images there, or name another folder"
    images = [name for name in files if Path(name).suffix.lower() in IMAGE_SUFFIXES]
    if images:
        hint = "move the images of each class into a subfolder that is named as the class"
        return f"{len(images):,} images and no subfolder", hint
    return f"other files, such as {files[0]}", f"name another folder, or make an .npz file of them: {_GUIDE}"


def _hash_files(folder: Path, names: Sequence[str]) -> str:
    """The SHA-256 of the lines that sha256sum prints for the files."""
    listing = hashlib.sha256()
    for name in names:
        listing.update(f"{hash_file(folder / name)}  {name}\n".encode())
    return listing.hexdigest()
