"""The digits are complete, labelled, laid out as MNIST's, and split by the seed."""

import numpy as np
import pytest

from stages.ingest import IngestParams, run
from stages.lib.core.arrays import load_split
from stages.lib.core.errors import DataError
from stages.lib.core.files import read_json
from stages.lib.data import digits as digits_module
from stages.lib.data.digits import enlarge, load_digits

SPLITS = pytest.mark.parametrize("split_name", ["train", "test"])


@SPLITS
def test_digits_are_28_by_28_bytes_with_a_label_each(digits, split_name):
    """Images are uint8 (N, 28, 28), labels uint8 (N,), N as expected."""
    images, labels = getattr(digits, split_name)

    assert (images.dtype, images.shape[1:]) == (np.uint8, (28, 28))
    assert labels.dtype == np.uint8
    assert len(images) == len(labels) == digits.expected[split_name]


def test_digits_are_split_as_asked(digits):
    """A fifth of the 1,797 images is the test split."""
    assert digits.expected == {"train": 1438, "test": 359}


@SPLITS
def test_digits_have_every_class_in_each_split(digits, split_name):
    """Classes 0 to 9, as often as in all the images to within the split's share: 174 to 183 of each."""
    counts = np.bincount(getattr(digits, split_name).labels)
    share = digits.expected[split_name] / 1797

    assert len(counts) == len(digits.class_names) == 10
    assert (counts >= 174 * share - 1).all()
    assert (counts <= 183 * share + 1).all()


def test_digits_use_the_range_and_have_a_margin(digits):
    """Grey levels go from 0 to 255, in a box of 20 x 20 pixels amid black ones."""
    images = np.concatenate([digits.train.images, digits.test.images])

    assert (images.min(), images.max()) == (0, 255)
    assert images[:, 4:-4, 4:-4].sum() == images.sum()


def test_digits_with_one_seed_are_the_same(digits):
    """Loading again gives the same images in the same order."""
    again = load_digits(0.2, 0)

    np.testing.assert_array_equal(again.train.images, digits.train.images)
    np.testing.assert_array_equal(again.test.labels, digits.test.labels)


def test_digits_with_another_seed_are_split_otherwise(digits):
    """The seed draws the test images."""
    other = load_digits(0.2, 1)

    assert not np.array_equal(other.test.images, digits.test.images)


def test_other_embedded_digits_are_refused(monkeypatch):
    """Where scikit-learn embeds something else, nothing is made of it."""
    monkeypatch.setattr(digits_module, "_SHA256", "0" * 64)

    with pytest.raises(DataError) as refusal:
        load_digits(0.2, 0)

    assert refusal.value.expected == f"SHA-256 {'0' * 64}"
    assert refusal.value.got.startswith("87ff")
    assert refusal.value.hint == "run `python -m pip install -r requirements.txt`"


def test_enlarge_keeps_upright_and_scales_grey_levels():
    """A small image's corner stays its corner; its largest value becomes 255."""
    small = np.zeros((1, 8, 8), np.uint8)
    small[0, :4, :4] = 16
    large = enlarge(small, 16)[0]

    assert large.shape == (28, 28)
    assert (large[4:12, 4:12] == 255).all()
    assert (large[18:, :] == 0).all()
    assert (large[:, 18:] == 0).all()


def test_ingest_writes_what_is_loaded(digits, tmp_path):
    """data/raw holds both splits' arrays and where they came from."""
    params = IngestParams(dataset="digits", path="none", image_size=[28, 28], channels=1, test_fraction=0.2, seed=0)
    run(params, tmp_path / "raw")

    np.testing.assert_array_equal(load_split(tmp_path / "raw/train").images, digits.train.images, strict=True)
    np.testing.assert_array_equal(load_split(tmp_path / "raw/test").labels, digits.test.labels, strict=True)
    assert read_json(tmp_path / "raw/dataset.json") == {
        "channels": 1,
        "class_names": list("0123456789"),
        "image_size": [28, 28],
        "name": "digits",
        "expected": {"test": 359, "train": 1438},
        "sources": digits.sources,
    }
