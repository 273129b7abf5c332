"""Pixels become features by constants of the training split alone, and every feature leads back to its pixel."""

import numpy as np
import pytest
from samples import list_files, make_dataset, make_split, write_normalized, write_raw, write_report

from stages import normalize
from stages.lib.core.arrays import load_array, load_split
from stages.lib.core.errors import DataError
from stages.lib.core.files import read_json
from stages.lib.data.normalization import Normalization, read_normalization

SPLITS = ["train", "validation", "test"]
# float32 has 24 bits: a mean of some thousand features of size 1 is exact to far less than this.
FLOAT32_ATOL = 1e-6


def read_features(normalized_dir):
    """The features of each split."""
    return {name: np.array(load_split(normalized_dir / name).images) for name in SPLITS}


def test_scale_is_division_by_255(tmp_path):
    """Features are x / 255 in float32, to the bit."""
    raw = make_dataset()
    normalized_dir = write_normalized(tmp_path)
    features = read_features(normalized_dir)
    rows = load_array(normalized_dir / "train/rows.npy")

    np.testing.assert_array_equal(features["test"], raw.test.images.astype(np.float32) / np.float32(255), strict=True)
    np.testing.assert_array_equal(
        features["train"], raw.train.images[rows].astype(np.float32) / np.float32(255), strict=True
    )


def test_standardize_gives_mean_0_and_deviation_1_on_the_training_split(tmp_path):
    """Over all pixels of the training split, features have mean 0 and standard deviation 1."""
    features = read_features(write_normalized(tmp_path, method="standardize"))["train"].astype(np.float64)

    assert features.mean() == pytest.approx(0, abs=FLOAT32_ATOL)
    assert features.std() == pytest.approx(1, abs=FLOAT32_ATOL)


def test_constants_come_from_the_training_split_alone(tmp_path):
    """Other validation and test images leave the constants as they are; other training images do not."""
    constants = []
    for name, changed in (("as is", None), ("held out", ["validation", "test"]), ("train", ["train"])):
        raw_dir = write_raw(tmp_path / name)
        first = write_normalized(tmp_path / name, method="standardize")
        for split in changed or []:
            path = raw_dir / ("test" if split == "test" else "train") / "images.npy"
            images = np.load(path)
            images[np.array(load_array(first / split / "rows.npy"))] //= 2
            np.save(path, images)
        constants.append(read_json(write_normalized(tmp_path / name, method="standardize") / "dataset.json"))

    assert constants[0] == constants[1]
    assert constants[0]["normalization"] != constants[2]["normalization"]


@pytest.mark.parametrize("method", ["scale", "standardize"])
@pytest.mark.parametrize("chunk_rows", [1, 7, 48])
def test_chunk_size_changes_no_byte(tmp_path, monkeypatch, method, chunk_rows):
    """Constants and features do not depend on how many images are in memory at once."""
    whole = list_files(write_normalized(tmp_path / "whole", method=method))
    monkeypatch.setattr(normalize, "ROWS_AT_ONCE", chunk_rows)

    assert list_files(write_normalized(tmp_path / "chunks", method=method)) == whole


def test_constants_are_numpys():
    """The mean and the standard deviation are those that NumPy computes in float64."""
    images = make_split(50, seed=3).images
    normalization = normalize.compute_normalization("standardize", images, np.arange(50))

    assert normalization == pytest.approx((images.mean(), images.std()), rel=1e-12)


def test_same_params_give_the_same_bytes(tmp_path):
    """Normalizing again writes the same files."""
    assert list_files(write_normalized(tmp_path / "one")) == list_files(write_normalized(tmp_path / "two"))


def test_splits_are_disjoint_and_complete(tmp_path):
    """A fifth of the training images is set aside; no test image is among them."""
    normalized_dir = write_normalized(tmp_path)
    rows = {name: np.array(load_array(normalized_dir / name / "rows.npy")) for name in SPLITS}

    assert {name: len(found) for name, found in rows.items()} == {"train": 48, "validation": 12, "test": 30}
    np.testing.assert_array_equal(np.sort(np.concatenate([rows["train"], rows["validation"]])), np.arange(60))
    np.testing.assert_array_equal(rows["test"], np.arange(30))


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("method", ["scale", "standardize"])
def test_rows_lead_back_to_the_raw_image(tmp_path, split, method):
    """Each feature image, taken back, is the raw image of its row, and so is its label."""
    normalized_dir = write_normalized(tmp_path, method=method)
    images, labels = load_split(normalized_dir / split)
    shift, divisor = read_normalization(read_json(normalized_dir / "dataset.json"))
    raw = getattr(make_dataset(), "test" if split == "test" else "train")
    rows = load_array(normalized_dir / split / "rows.npy")

    np.testing.assert_array_equal(np.rint(images * divisor + shift), raw.images[rows])
    np.testing.assert_array_equal(labels, raw.labels[rows], strict=True)


def test_validation_fraction_0_trains_on_all(tmp_path):
    """Without a validation split its arrays are there, and empty."""
    normalized_dir = write_normalized(tmp_path, validation_fraction=0.0)

    assert load_split(normalized_dir / "validation").images.shape == (0, 6, 8)
    assert len(load_split(normalized_dir / "train").images) == 60


def test_validation_fraction_that_leaves_no_training_image_is_refused(tmp_path):
    """A share below 1 that rounds to all images leaves nothing to learn from."""
    with pytest.raises(DataError) as refusal:
        write_normalized(tmp_path, validation_fraction=0.999)

    assert refusal.value.args == (
        "normalize.validation_fraction",
        "all 60 images are set aside, and none is left to train on",
        "lower it",
    )


def test_one_grey_level_is_refused(tmp_path):
    """Where all pixels are the same there is no deviation to divide by."""
    dataset = make_dataset()
    dataset.train.images[:] = 7
    write_raw(tmp_path, dataset)

    with pytest.raises(DataError) as refusal:
        write_normalized(tmp_path, method="standardize")

    assert (refusal.value.where, refusal.value.problem) == ("data/raw/train", "every pixel has the same grey level")


def test_data_that_is_reported_broken_is_refused(tmp_path):
    """What `validate` reported as broken is not normalized, even if it is run by hand."""
    params = normalize.NormalizeParams(method="scale", validation_fraction=0.2, seed=0)
    report_path = write_report(tmp_path, success=False)

    with pytest.raises(DataError) as refusal:
        normalize.run(params, write_raw(tmp_path), report_path, tmp_path / "data/normalized")

    assert (refusal.value.where, refusal.value.problem) == (str(report_path), "the data did not pass `validate`")
    assert not (tmp_path / "data/normalized").exists()


@pytest.mark.parametrize("normalization", [Normalization(0.0, 255.0), Normalization(33.3, 78.6)])
def test_fold_equals_normalizing_first(normalization):
    """Pixels through the folded layer give what features through the layer give."""
    generator = np.random.default_rng(0)
    kernel, bias = generator.normal(size=(48, 5)).astype(np.float32), generator.normal(size=5).astype(np.float32)
    pixels = make_split(20, seed=4).images.reshape(20, 48).astype(np.float64)  # (20, 48) @ (48, 5)
    folded_kernel, folded_bias = normalization.fold(kernel, bias)
    features = (pixels - normalization.shift) / normalization.divisor

    # Folding rounds each weight once to float32: half a unit in the last place, 2^-24, of every summand.
    rounding = 2**-24 * (pixels @ np.abs(folded_kernel) + np.abs(folded_bias))
    difference = np.abs(pixels @ folded_kernel.astype(np.float64) + folded_bias - (features @ kernel + bias))
    assert folded_kernel.dtype == folded_bias.dtype == np.float32
    assert (difference <= rounding).all()


def test_apply_computes_in_float32():
    """Features are float32, and 0 and 255 become exactly 0 and 1 when scaled."""
    features = Normalization(0.0, 255.0).apply(np.array([[[0, 255]]], np.uint8))

    np.testing.assert_array_equal(features, np.array([[[0, 1]]], np.float32), strict=True)
