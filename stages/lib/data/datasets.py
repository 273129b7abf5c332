"""The data sets that the pipeline knows: labelled grey images with a training and a test split."""

import hashlib
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from stages.lib.core.arrays import Split
from stages.lib.core.errors import DataError
from stages.lib.core.lean_imports import import_lean
from stages.lib.core.paths import find_root, resolve
from stages.lib.data.download import PublishedFile, fetch
from stages.lib.data.idx import open_idx, parse_idx
from stages.lib.data.image_folder import has_images, read_image_folder
from stages.lib.data.npz import open_npz
from stages.lib.data.splits import split_stratified

_DIGIT_NAMES = tuple("0123456789")


class Dataset(NamedTuple):
    """A data set and where it came from."""

    train: Split  # uint8 (N, H, W), class ids (N,)
    test: Split
    class_names: tuple[str, ...]  # by class id
    expected: dict[str, int]  # images in each split by the publisher's word
    sources: dict[str, str]  # name of a source file: SHA-256 of its content
    files: Mapping[str, Sequence[str]] = MappingProxyType({})  # by split, the file of each image, if it has one
    sizes: Mapping[str, NDArray[np.int32]] = MappingProxyType({})  # by split, (N, 2), those files' height and width


# --- digits -----------------------------------------------------------------------------------------------------

# E. Alpaydin, C. Kaynak, Optical Recognition of Handwritten Digits (UCI, 1998), the 1,797 test images as scikit-learn
# embeds them. The hash is of images (1797, 8, 8) and labels (1797,), both as bytes, one after the other.
_DIGITS_COUNT = 1797
_DIGITS_MAX = 16
_DIGITS_SHA256 = "87ff0c9e40dc7e2c0e34e7257799c2e3f3aec1a016363bb11cad869ec428a826"
# MNIST's own layout (yann.lecun.com/exdb/mnist): the digit in a box of 20 x 20 pixels amid 28 x 28.
_BOX_SIZE = 20
_IMAGE_SIZE = 28


def load_digits(test_fraction: float, seed: int) -> Dataset:
    """scikit-learn's 1,797 handwritten digits, brought from 8 x 8 to 28 x 28 uint8 as MNIST lays them out.

    Raises:
        DataError: scikit-learn embeds something else.
    """
    with import_lean("pandas"):
        from sklearn import datasets  # noqa: PLC0415  (a second that MNIST need not wait for)

    embedded = datasets.load_digits()
    small = embedded.images.astype(np.uint8)  # (1797, 8, 8), 0..16
    labels = embedded.target.astype(np.uint8)  # (1797,)
    digest = hashlib.sha256(small.tobytes() + labels.tobytes()).hexdigest()
    if digest != _DIGITS_SHA256:
        raise DataError(
            "scikit-learn's digits",
            expected=f"SHA-256 {_DIGITS_SHA256}",
            got=digest,
            hint="run `python -m pip install -r requirements.txt`",
        )
    images = enlarge(small, _DIGITS_MAX)
    train_rows, test_rows = split_stratified(labels, test_fraction, seed)
    return Dataset(
        train=Split(images[train_rows], labels[train_rows]),
        test=Split(images[test_rows], labels[test_rows]),
        class_names=_DIGIT_NAMES,
        expected={"train": _DIGITS_COUNT - len(test_rows), "test": len(test_rows)},
        sources={"scikit-learn digits": digest},
    )


def enlarge(small: NDArray[np.uint8], max_value: int) -> NDArray[np.uint8]:
    """Images (N, h, w) with values 0..max_value as (N, 28, 28) with values 0..255, centred as in MNIST.

    Pillow's bicubic filter on bytes computes in integers: the same bytes on every processor.
    """
    from PIL import Image  # noqa: PLC0415

    margin = (_IMAGE_SIZE - _BOX_SIZE) // 2
    grey = (small.astype(np.uint16) * 255 // max_value).astype(np.uint8)
    images = np.zeros((len(small), _IMAGE_SIZE, _IMAGE_SIZE), np.uint8)
    for image, box in zip(grey, images[:, margin:-margin, margin:-margin], strict=True):
        box[:] = Image.fromarray(image).resize((_BOX_SIZE, _BOX_SIZE), Image.Resampling.BICUBIC)
    return images


# --- MNIST ------------------------------------------------------------------------------------------------------

# Y. LeCun, C. Cortes, C. Burges, The MNIST database of handwritten digits. The hashes are of the decompressed files.
_MNIST_FILES = {
    ("train", "images"): PublishedFile(
        "train-images-idx3-ubyte.gz",
        "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        47_040_016,
    ),
    ("train", "labels"): PublishedFile(
        "train-labels-idx1-ubyte.gz",
        "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        60_008,
    ),
    ("test", "images"): PublishedFile(
        "t10k-images-idx3-ubyte.gz",
        "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        7_840_016,
    ),
    ("test", "labels"): PublishedFile(
        "t10k-labels-idx1-ubyte.gz",
        "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
        10_008,
    ),
}
_MNIST_MIRRORS = (
    "https://storage.googleapis.com/cvdf-datasets/mnist",
    "https://ossci-datasets.s3.amazonaws.com/mnist",
)
_MNIST_EXPECTED = {"train": 60_000, "test": 10_000}


def load_mnist() -> Dataset:
    """MNIST's 60,000 and 10,000 images (28 x 28), from MNIST_MIRROR if it is set, else from the public mirrors.

    Raises:
        DataError: a file could not be had whole.
    """
    mirrors = (*filter(None, [os.environ.get("MNIST_MIRROR")]), *_MNIST_MIRRORS)
    cache_dir = find_root() / ".cache" / "mnist"
    arrays = {
        (split, kind): parse_idx(
            fetch(file, mirrors, cache_dir), dimensions=3 if kind == "images" else 1, name=file.name
        )
        for (split, kind), file in _MNIST_FILES.items()
    }
    return Dataset(
        train=Split(arrays["train", "images"], arrays["train", "labels"]),
        test=Split(arrays["test", "images"], arrays["test", "labels"]),
        class_names=_DIGIT_NAMES,
        expected=_MNIST_EXPECTED,
        sources={file.name.removesuffix(".gz"): file.sha256 for file in _MNIST_FILES.values()},
    )


# --- a person's own ---------------------------------------------------------------------------------------------

# Words in the names of IDX files as MNIST and its many likenesses have them.
_SPLIT_WORDS = {"train": ("train",), "test": ("t10k", "test")}
_KIND_WORDS = {"images": "idx3", "labels": "idx1"}
_DIMENSIONS = {"images": 3, "labels": 1}
# Keras's names in its own data sets' .npz files.
_NPZ_NAMES = {"images": "x", "labels": "y"}
# As many as a byte can tell apart need no look at how many images there are.
_FEW_CLASSES = 256


def load_folder(path: str, image_size: tuple[int, int], test_fraction: float, seed: int) -> Dataset:
    """A person's own images: a folder for each class, four IDX files, or an .npz file, as Keras has them.

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
    """What is valid of a person's own images, as `load_folder` takes them, and everything that is not.

    heading: what stands before each line of progress.
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
            return _load_arrays(folder, path), []
        except DataError as problem:
            return None, [problem]
    loaded, problems = read_image_folder(folder, path, image_size, test_fraction, seed, heading)
    if not loaded:
        return None, problems
    sources = {path: _hash_names(folder, sorted(loaded.files["train"] + loaded.files["test"]))}
    own = _describe_own(loaded.train, loaded.test, loaded.class_names, sources)
    return own._replace(files=loaded.files, sizes=loaded.sizes), problems


def _load_arrays(folder: Path, path: str) -> Dataset:
    archives = [folder] if folder.is_file() else sorted(folder.glob("*.npz"))
    splits, files = _open_npz(archives[0]) if len(archives) == 1 else _open_idx(folder, path)
    problems = [problem for name, split in splits.items() for problem in _find_problems(split, f"{path}: {name}")]
    if problems:
        raise DataError.join(problems)
    class_count = _count_classes(splits, path)
    sources = {file.name: _hash_file(file) for file in files}
    return _describe_own(splits["train"], splits["test"], tuple(map(str, range(class_count))), sources)


def _describe_own(train: Split, test: Split, class_names: tuple[str, ...], sources: dict[str, str]) -> Dataset:
    expected = {"train": len(train.labels), "test": len(test.labels)}
    return Dataset(train, test, class_names, expected, sources)


def _open_npz(path: Path) -> tuple[dict[str, Split], list[Path]]:
    arrays = open_npz(path, [f"{name}_{split}" for split in _SPLIT_WORDS for name in _NPZ_NAMES.values()])
    splits = {split: Split(arrays[f"x_{split}"], arrays[f"y_{split}"].reshape(-1)) for split in _SPLIT_WORDS}
    return splits, [path]


def _open_idx(folder: Path, path: str) -> tuple[dict[str, Split], list[Path]]:
    arrays: dict[tuple[str, str], NDArray[np.uint8]] = {}
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
    """What shows that arrays are no grey images with a class id each; everything else is for `validate` to find."""
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
    """One more than the largest class id; a class for each of which there is no image is not even given a name."""
    count = 1 + max(int(split.labels.max(initial=0)) for split in splits.values())
    most = max(_FEW_CLASSES, sum(len(split.labels) for split in splits.values()))
    if count > most:
        expected = f"class ids below {most:,}, of which each may have an image"
        raise DataError(f"{path}: labels", expected=expected, got=f"{count - 1:,}", hint="number the classes from 0")
    return count


def _find_idx_file(folder: Path, path: str, split: str, kind: str) -> Path:
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


def _hash_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _hash_names(folder: Path, names: Sequence[str]) -> str:
    """The SHA-256 of all files' SHA-256 and names, as sha256sum lists them."""
    listing = hashlib.sha256()
    for name in names:
        listing.update(f"{_hash_file(folder / name)}  {name}\n".encode())
    return listing.hexdigest()
