"""What every data set is: labelled images with a training and a test split, and where they came from.

There is a module for each: `digits`, `mnist`, `fashion_mnist`, `cifar10` and `own_images`.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from stages.lib.core.arrays import Split


class Dataset(NamedTuple):
    """A data set and where it came from."""

    train: Split  # uint8 (N, H, W), grey, or (N, H, W, 3), RGB; class ids (N,)
    test: Split
    class_names: tuple[str, ...]  # by class id
    expected: dict[str, int]  # images in each split by the publisher's word
    sources: dict[str, str]  # name of a source file: SHA-256 of its content
    files: Mapping[str, Sequence[str]] = MappingProxyType({})  # by split, the file of each image, if it has one
    sizes: Mapping[str, NDArray[np.int32]] = MappingProxyType({})  # by split, (N, 2), those files' height and width
