"""MNIST is complete and labelled, and comes from a mirror that has every file."""

import numpy as np
import pytest

from stages.lib.core.errors import DataError
from stages.lib.data import mnist as mnist_module
from stages.lib.data.mnist import load_mnist


def test_mnist_is_complete(mnist):
    """60,000 training and 10,000 test images of 28 x 28 bytes, labelled, of ten classes."""
    assert mnist.train.images.shape == (60_000, 28, 28)
    assert mnist.test.images.shape == (10_000, 28, 28)
    assert mnist.train.images.dtype == mnist.train.labels.dtype == np.uint8
    assert mnist.expected == {"train": len(mnist.train.labels), "test": len(mnist.test.labels)}
    assert np.unique(mnist.train.labels).tolist() == list(range(10))


def test_mnist_labels_belong_to_their_images(mnist):
    """Test image 0 is a 7, and a 7 has more ink in its upper half."""
    image = mnist.test.images[0]

    assert mnist.test.labels[0] == 7
    assert mnist.train.labels[:5].tolist() == [5, 0, 4, 1, 9]
    assert image[:14].sum() > image[14:].sum()


def test_mnist_says_where_it_came_from(mnist):
    """The four files are named with a SHA-256 each."""
    assert {name: len(digest) for name, digest in mnist.sources.items()} == {
        f"{split}-{kind}-ubyte": 64 for split in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")
    }


def test_mnist_without_a_good_mirror_is_refused(tmp_path, monkeypatch):
    """Where no mirror has the files, the message names the file, the error and the way out."""
    monkeypatch.setenv("MNIST_MIRROR", str(tmp_path))
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    monkeypatch.setattr(mnist_module, "_MIRRORS", ())

    with pytest.raises(DataError) as refusal:
        load_mnist()

    assert refusal.value.where == "train-images-idx3-ubyte.gz"
    assert "No such file" in refusal.value.problem
    assert refusal.value.hint.startswith("set MNIST_MIRROR to a folder")
