"""The data set `digits`: scikit-learn's 1,797 handwritten digits, laid out as MNIST's."""

import hashlib

import numpy as np
from numpy.typing import NDArray

from stages.lib.core.arrays import Split
from stages.lib.core.errors import DataError
from stages.lib.core.lean_imports import import_lean
from stages.lib.data.datasets import Dataset
from stages.lib.data.splits import split_stratified

# E. Alpaydin, C. Kaynak, Optical Recognition of Handwritten Digits (UCI, 1998), the 1,797 test images as scikit-learn
# embeds them. The hash is of images (1797, 8, 8) and labels (1797,), both as bytes, one after the other.
_COUNT = 1797
_MAX = 16
_SHA256 = "87ff0c9e40dc7e2c0e34e7257799c2e3f3aec1a016363bb11cad869ec428a826"
# MNIST's own layout (yann.lecun.com/exdb/mnist): the digit in a box of 20 x 20 pixels amid 28 x 28.
_BOX_SIZE = 20
_IMAGE_SIZE = 28


def load_digits(test_fraction: float, seed: int) -> Dataset:
    """Load scikit-learn's 1,797 handwritten digits, brought from 8 x 8 to 28 x 28 uint8 as MNIST lays them out.

    test_fraction, seed: draw the test split.

    Raises:
        DataError: scikit-learn embeds something else.
    """
    with import_lean("pandas"):
        from sklearn import datasets  # noqa: PLC0415  (a second that MNIST need not wait for)

    embedded = datasets.load_digits()
    small = embedded.images.astype(np.uint8)  # (1797, 8, 8), 0..16
    labels = embedded.target.astype(np.uint8)  # (1797,)
    digest = hashlib.sha256(small.tobytes() + labels.tobytes()).hexdigest()
    if digest != _SHA256:
        raise DataError(
            "scikit-learn's digits",
            expected=f"SHA-256 {_SHA256}",
            got=digest,
            hint="run `python -m pip install -r requirements.txt`",
        )
    images = enlarge(small, _MAX)
    train_rows, test_rows = split_stratified(labels, test_fraction, seed)
    return Dataset(
        train=Split(images[train_rows], labels[train_rows]),
        test=Split(images[test_rows], labels[test_rows]),
        class_names=tuple("0123456789"),
        expected={"train": _COUNT - len(test_rows), "test": len(test_rows)},
        sources={"scikit-learn digits": digest},
    )


def enlarge(small: NDArray[np.uint8], max_value: int) -> NDArray[np.uint8]:
    """Bring images (N, h, w) with values 0..max_value to (N, 28, 28) with values 0..255, centred as in MNIST.

    Pillow's bicubic filter on bytes computes in integers: the same bytes on every processor.
    """
    from PIL import Image  # noqa: PLC0415

    margin = (_IMAGE_SIZE - _BOX_SIZE) // 2
    grey = (small.astype(np.uint16) * 255 // max_value).astype(np.uint8)
    images = np.zeros((len(small), _IMAGE_SIZE, _IMAGE_SIZE), np.uint8)
    for image, box in zip(grey, images[:, margin:-margin, margin:-margin], strict=True):
        box[:] = Image.fromarray(image).resize((_BOX_SIZE, _BOX_SIZE), Image.Resampling.BICUBIC)
    return images
