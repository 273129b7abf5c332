"""The data sets that the pipeline knows: labelled grey images with a training and a test split."""

import hashlib
import os
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from stages.lib.arrays import Split
from stages.lib.download import PublishedFile, fetch
from stages.lib.errors import DataError
from stages.lib.idx import parse_idx
from stages.lib.lean_imports import import_lean
from stages.lib.places import find_root
from stages.lib.splits import split_stratified

_DIGIT_NAMES = tuple("0123456789")


class Dataset(NamedTuple):
    """A data set and where it came from."""

    train: Split  # uint8 (N, H, W), class ids (N,)
    test: Split
    class_names: tuple[str, ...]  # by class id
    promised: dict[str, int]  # images in each split by the publisher's word
    sources: dict[str, str]  # name of a source file: SHA-256 of its content


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
            do="install the locked requirements",
        )
    images = enlarge(small, _DIGITS_MAX)
    train_rows, test_rows = split_stratified(labels, test_fraction, seed)
    return Dataset(
        train=Split(images[train_rows], labels[train_rows]),
        test=Split(images[test_rows], labels[test_rows]),
        class_names=_DIGIT_NAMES,
        promised={"train": _DIGITS_COUNT - len(test_rows), "test": len(test_rows)},
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
_MNIST_PROMISED = {"train": 60_000, "test": 10_000}


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
        promised=_MNIST_PROMISED,
        sources={file.name.removesuffix(".gz"): file.sha256 for file in _MNIST_FILES.values()},
    )
