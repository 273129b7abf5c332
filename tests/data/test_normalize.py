"""Pixels become features by constants of the training split alone, and every feature leads back to its pixel."""

import numpy as np
import pytest
from samples import (
    list_files,
    make_colour_dataset,
    make_dataset,
    make_split,
    write_normalized,
    write_raw,
    write_report,
)

from stages import normalize
from stages.lib.core.arrays import load_array, load_split
from stages.lib.core.errors import DataError
from stages.lib.core.files import read_json
from stages.lib.data.normalization import Normalization, read_normalization

SPLITS = ["train", "validation", "test"]
# float32 has 24 bits: a mean of some thousand features of size 1 is exact to far less than this.
FLOAT32_ATOL = 1e-6
NORMALIZATIONS = [
    Normalization((0.0,), (255.0,)),
    Normalization((33.3,), (78.6,)),
    Normalization((125.3, 123.0, 13.9), (63.0, 62.1, 66.7)),
]


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

    assert normalization.shift == pytest.approx((images.mean(),), rel=1e-12)
    assert normalization.divisor == pytest.approx((images.std(),), rel=1e-12)


def test_each_channel_of_colour_has_its_own_constants():
    """Each constant of colour images is that of its channel taken alone, to the bit."""
    images = np.stack([make_split(50, seed=seed).images // seed for seed in (1, 2, 3)], axis=-1)
    shift, divisor = normalize.compute_normalization("standardize", images, np.arange(5, 50))
    alone = [
        normalize.compute_normalization("standardize", images[..., channel], np.arange(5, 50)) for channel in range(3)
    ]

    assert list(zip(shift, divisor, strict=True)) == [(one.shift[0], one.divisor[0]) for one in alone]
    assert len(set(shift)) == 3


def test_colour_is_normalized_by_channel(tmp_path):
    """Features (N, H, W, 3) have mean 0 and deviation 1 in each channel, and dataset.json says that there are three."""
    write_raw(tmp_path, make_colour_dataset())
    normalized_dir = write_normalized(tmp_path, method="standardize")
    features = load_split(normalized_dir / "train").images.astype(np.float64)
    described = read_json(normalized_dir / "dataset.json")

    assert features.shape == (48, 6, 8, 3)
    assert features.mean(axis=(0, 1, 2)) == pytest.approx(np.zeros(3), abs=FLOAT32_ATOL)
    assert features.std(axis=(0, 1, 2)) == pytest.approx(np.ones(3), abs=FLOAT32_ATOL)
    assert (described["channels"], described["image_size"]) == (3, [6, 8])
    assert [len(described["normalization"][name]) for name in ("shift", "divisor")] == [3, 3]


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
    (shift,), (divisor,) = read_normalization(read_json(normalized_dir / "dataset.json"))
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


def test_one_value_of_a_channel_is_refused(tmp_path):
    """Colour images without any difference in one channel are refused, too."""
    dataset = make_colour_dataset()
    dataset.train.images[..., 1] = 7
    write_raw(tmp_path, dataset)

    with pytest.raises(DataError) as refusal:
        write_normalized(tmp_path, method="standardize")

    assert refusal.value.where == "data/raw/train"
    assert refusal.value.problem == "every pixel has the same green value"


def test_data_that_is_reported_broken_is_refused(tmp_path):
    """What `validate` reported as broken is not normalized, even if it is run by hand."""
    params = normalize.NormalizeParams(method="scale", validation_fraction=0.2, seed=0)
    report_path = write_report(tmp_path, success=False)

    with pytest.raises(DataError) as refusal:
        normalize.run(params, write_raw(tmp_path), report_path, tmp_path / "data/normalized")

    assert (refusal.value.where, refusal.value.problem) == (str(report_path), "the data did not pass `validate`")
    assert not (tmp_path / "data/normalized").exists()


@pytest.mark.parametrize("normalization", NORMALIZATIONS, ids=["scale", "grey", "colour"])
def test_fold_equals_normalizing_first(normalization):
    """Pixels through the folded dense layer give what features through the layer give."""
    pixels = make_pixels(normalization)
    features = ((pixels - np.array(normalization.shift)) / normalization.divisor).reshape(20, -1)
    kernel, bias = make_layer((features.shape[1], 5))  # (20, H * W * channels) @ (H * W * channels, 5)

    require_equal_fold(normalization, kernel, bias, pixels.reshape(20, -1), features)


@pytest.mark.parametrize("normalization", NORMALIZATIONS, ids=["scale", "grey", "colour"])
def test_fold_of_a_convolution_equals_normalizing_first(normalization):
    """Every patch of pixels through the folded convolution gives what its features through the layer give."""
    channels = len(normalization.shift)
    pixels = make_pixels(normalization)
    patches = np.lib.stride_tricks.sliding_window_view(pixels, (3, 3), axis=(1, 2))  # (20, 4, 6, channels, 3, 3)
    patches = patches.transpose(0, 1, 2, 4, 5, 3)
    features = (patches - np.array(normalization.shift)) / normalization.divisor
    kernel, bias = make_layer((3, 3, channels, 5))
    rows = [each.reshape(-1, 9 * channels) for each in (patches, features)]

    require_equal_fold(normalization, kernel, bias, *rows)


def make_pixels(normalization):
    """Images as many channels deep as there are constants, (20, 6, 8, channels)."""
    channels = range(len(normalization.shift))
    return np.stack([make_split(20, seed=4 + channel).images for channel in channels], axis=-1).astype(np.float64)


def make_layer(shape):
    """A kernel of this shape and a bias."""
    generator = np.random.default_rng(0)
    return generator.normal(size=shape).astype(np.float32), generator.normal(size=shape[-1]).astype(np.float32)


def require_equal_fold(normalization, kernel, bias, pixels, features):
    """Rows of pixels through the folded kernel are those of features through the kernel, to the last rounding."""
    folded_kernel, folded_bias = normalization.fold(kernel, bias)
    assert folded_kernel.dtype == folded_bias.dtype == np.float32
    assert (folded_kernel.shape, folded_bias.shape) == (kernel.shape, bias.shape)

    # Folding rounds each weight once to float32: half a unit in the last place, 2^-24, of every summand.
    matrix, folded_matrix = (each.reshape(-1, len(bias)).astype(np.float64) for each in (kernel, folded_kernel))
    rounding = 2**-24 * (pixels @ np.abs(folded_matrix) + np.abs(folded_bias))
    difference = np.abs(pixels @ folded_matrix + folded_bias - (features @ matrix + bias))
    assert (difference <= rounding).all()


def test_apply_computes_in_float32():
    """Features are float32, and 0 and 255 become exactly 0 and 1 when scaled."""
    features = Normalization((0.0,), (255.0,)).apply(np.array([[[0, 255]]], np.uint8))

    np.testing.assert_array_equal(features, np.array([[[0, 1]]], np.float32), strict=True)
