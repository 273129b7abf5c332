"""The data set `folder`: a person's own images, as a folder for each class or as arrays."""

import hashlib
import sys
from collections.abc import Sequence
from pathlib import Path

from stages.lib.core.errors import DataError
from stages.lib.core.paths import resolve
from stages.lib.data.datasets import Dataset
from stages.lib.data.image_folder import has_images, read_image_folder
from stages.lib.data.own_arrays import hash_file, load_arrays


def load_folder(path: str, image_size: tuple[int, int], test_fraction: float, seed: int) -> Dataset:
    """Load a person's own images: a folder for each class, four IDX files, or an .npz file, as Keras has them.

    path: the folder, or the .npz file, relative to the project's root. image_size: height and width to which images
    are brought; arrays stay as they are. test_fraction, seed: draw the test split of images that have none.

    Raises:
        DataError: naming everything that is missing, damaged or does not fit.
    """
    dataset, problems = read_folder(path, image_size, test_fraction, seed, heading="ingest")
    if problems or not dataset:
        raise DataError.join(problems)
    return dataset


def read_folder(
    path: str, image_size: tuple[int, int], test_fraction: float, seed: int, heading: str
) -> tuple[Dataset | None, list[DataError]]:
    """Read the valid ones of a person's own images, and list every error.

    The parameters are those of `load_folder`. heading: what stands before each line of progress.
    """
    encoding = sys.getfilesystemencoding()
    if encoding != "utf-8":  # "größer" would be a class of another name
        problem = f"this locale reads names of files as {encoding}, not as UTF-8"
        return None, [DataError(path, problem, "run `export LC_ALL=C.UTF-8`, then the same again")]
    folder = resolve(path)
    if not folder.exists():
        hint = "set ingest.path, or the argument of `pipeline check`, to where your images are"
        return None, [DataError(path, "no such folder or .npz file", hint)]
    if not folder.is_dir() or not has_images(folder):
        try:
            return load_arrays(folder, path), []
        except DataError as problem:
            return None, [problem]
    loaded, problems = read_image_folder(folder, path, image_size, test_fraction, seed, heading)
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


def _hash_files(folder: Path, names: Sequence[str]) -> str:
    """The SHA-256 of the lines that sha256sum prints for the files."""
    listing = hashlib.sha256()
    for name in names:
        listing.update(f"{hash_file(folder / name)}  {name}\n".encode())
    return listing.hexdigest()
