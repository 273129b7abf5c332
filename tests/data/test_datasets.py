"""The data sets are complete, labelled and of one shape: digits from scikit-learn, MNIST from a mirror."""

import io
import re
import zipfile

import numpy as np
import pytest
from samples import make_dataset, write_idx

from stages.ingest import IngestParams, run
from stages.lib.core.arrays import load_split
from stages.lib.core.errors import DataError
from stages.lib.core.files import read_json
from stages.lib.data import datasets
from stages.lib.data.datasets import enlarge, load_digits, load_folder, load_mnist

SPLITS = pytest.mark.parametrize("split_name", ["train", "test"])


def make_params(dataset, path="none"):
    return IngestParams(dataset=dataset, path=path, image_size=[28, 28], test_fraction=0.2, seed=0)


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
    monkeypatch.setattr(datasets, "_DIGITS_SHA256", "0" * 64)

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
    run(make_params("digits"), tmp_path / "raw")

    np.testing.assert_array_equal(load_split(tmp_path / "raw/train").images, digits.train.images, strict=True)
    np.testing.assert_array_equal(load_split(tmp_path / "raw/test").labels, digits.test.labels, strict=True)
    assert read_json(tmp_path / "raw/dataset.json") == {
        "class_names": list("0123456789"),
        "image_size": [28, 28],
        "name": "digits",
        "expected": {"test": 359, "train": 1438},
        "sources": digits.sources,
    }


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
    monkeypatch.setattr(datasets, "_MNIST_MIRRORS", ())

    with pytest.raises(DataError) as refusal:
        load_mnist()

    assert refusal.value.where == "train-images-idx3-ubyte.gz"
    assert "No such file" in refusal.value.problem
    assert refusal.value.hint.startswith("set MNIST_MIRROR to a folder")


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A folder with a person's own four IDX files, named relative to the project's root."""
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    return write_idx(tmp_path / "own")


def test_own_images_come_back(own, tmp_path):
    """Both splits, classes called by their ids, counts as expected and a SHA-256 of each file."""
    made = make_dataset()
    run(make_params("folder", "own"), tmp_path / "raw")
    dataset = read_json(tmp_path / "raw/dataset.json")

    np.testing.assert_array_equal(load_split(tmp_path / "raw/train").images, made.train.images, strict=True)
    np.testing.assert_array_equal(load_split(tmp_path / "raw/test").labels, made.test.labels, strict=True)
    assert dataset["class_names"] == ["0", "1", "2"]
    assert dataset["expected"] == {"train": 60, "test": 30}
    assert dataset["sources"].keys() == {path.name for path in own.iterdir()}


GREY = "uint8 (N, H, W), grey levels 0..255"


def drop(own):
    (own / "t10k-labels-idx1-ubyte.gz").unlink()


def add_another(own):
    (own / "train-images.idx3-ubyte").write_bytes(b"")


def mix_up(own):
    (own / "t10k-labels-idx1-ubyte.gz").unlink()
    (own / "train-labels-idx1-ubyte").rename(own / "t10k-labels-idx1-ubyte")
    write_idx(own.with_name("other"), make_dataset(59, 30))
    (own.with_name("other") / "train-labels-idx1-ubyte").rename(own / "train-labels-idx1-ubyte")


@pytest.mark.parametrize(
    ("change", "where", "expected", "got"),
    [
        (drop, "ingest.path: own", "one IDX file of the test split's labels, such as t10k-labels-", "none of them"),
        (
            *(add_another, "ingest.path: own", "one IDX file of the train split's images, such as train-images-"),
            "train-images-idx3-ubyte, train-images.idx3-ubyte",
        ),
        (mix_up, "own: train", "as many labels as images", "60 images and 59 labels"),
    ],
    ids=["missing", "twice", "counts"],
)
def test_own_files_that_do_not_fit_are_refused(own, change, where, expected, got):
    """Which file of which split is missing, there twice or of another length is said."""
    change(own)
    with pytest.raises(DataError) as refusal:
        load_folder("own", (28, 28), 0.2, 0)

    assert (refusal.value.causes[0].where, refusal.value.causes[0].got) == (where, got)
    assert expected in refusal.value.causes[0].expected


@pytest.mark.usefixtures("own")
def test_own_arrays_in_npz_come_back(tmp_path):
    """Keras's names are understood; labels may stand in a column and be of any whole type."""
    made = make_dataset()
    arrays = {"x_train": made.train.images, "y_train": made.train.labels.astype(np.int64)[:, np.newaxis]}
    np.savez_compressed(tmp_path / "own.npz", x_test=made.test.images, y_test=made.test.labels, **arrays)
    dataset = load_folder("own.npz", (28, 28), 0.2, 0)

    np.testing.assert_array_equal(dataset.train.images, made.train.images, strict=True)
    np.testing.assert_array_equal(dataset.train.labels, made.train.labels)
    np.testing.assert_array_equal(dataset.test.labels, made.test.labels)
    assert dataset.sources.keys() == {"own.npz"}


@pytest.mark.parametrize(
    ("arrays", "where", "expected", "got"),
    [
        ({"x_train": np.zeros((2, 3, 3))}, "train: images", GREY, "float64 (2, 3, 3)"),
        ({"x_train": np.zeros((2, 3, 3, 3), np.uint8)}, "train: images", GREY, "uint8 (2, 3, 3, 3)"),
        ({"y_train": np.array([0.0, 1.0])}, "train: labels", "whole numbers from 0 on", "float64"),
        ({"y_train": np.array([-1, 1])}, "train: labels", "whole numbers from 0 on", "-1"),
        ({"y_train": np.array([{}, {}], object)}, "y_train", "16 bytes of plain values in C order", "objects"),
        (
            *({"y_train": np.array([0, 10**15])}, "labels"),
            *("class ids below 256, of which each may have an image", "1,000,000,000,000,000"),
        ),
        ({"y_train": np.array([0, 1, 1])}, "train", "as many labels as images", "2 images and 3 labels"),
    ],
    ids=["float", "colour", "float labels", "negative", "pickled", "huge class", "counts"],
)
def test_own_arrays_that_are_no_grey_images_with_classes_are_refused(own, arrays, where, expected, got):
    """What the arrays hold is said, and nothing is unpickled."""
    valid = {"x": np.zeros((2, 3, 3), np.uint8), "y": np.array([0, 1])}
    rest = {f"{name}_{split}": array for name, array in valid.items() for split in ("train", "test")}
    np.savez(own.with_name("own.npz"), **(rest | arrays))
    with pytest.raises(DataError) as refusal:
        load_folder("own.npz", (28, 28), 0.2, 0)

    assert refusal.value.where.endswith(f"own.npz: {where}")
    assert (refusal.value.expected, refusal.value.got) == (expected, got)


@pytest.mark.usefixtures("own")
def test_arrays_that_are_missing_are_named(tmp_path):
    """Each array that is not there is told, with those that are, and with the names that all should have."""
    np.savez(tmp_path / "own.npz", x_train=np.zeros((2, 3, 3), np.uint8))
    with pytest.raises(DataError) as refusal:
        load_folder("own.npz", (28, 28), 0.2, 0)

    assert [(cause.expected, cause.got, cause.hint) for cause in refusal.value.causes] == [
        (f"an array {name}", "x_train", "name the arrays x_train, y_train, x_test, y_test")
        for name in ("y_train", "x_test", "y_test")
    ]


@pytest.mark.parametrize("damage", [lambda content: content[:-30], lambda _: b"text"], ids=["cut off", "text"])
@pytest.mark.usefixtures("own")
def test_damaged_npz_is_refused(tmp_path, damage):
    """A file that is no whole archive is an error of the data."""
    np.savez(tmp_path / "whole.npz", x_train=np.zeros(3))
    (tmp_path / "own.npz").write_bytes(damage((tmp_path / "whole.npz").read_bytes()))

    with pytest.raises(DataError) as refusal:
        load_folder("own.npz", (28, 28), 0.2, 0)

    assert (refusal.value.where, refusal.value.hint) == (str(tmp_path / "own.npz"), "save it again with numpy.savez")
    assert refusal.value.problem.startswith("not a whole .npz file: ")


def pack(content=b"no array", compression=zipfile.ZIP_STORED):
    """An archive with one member, which should be the array x_train."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", compression) as archive:
        archive.writestr("x_train.npy", content)
    return packed.getvalue()


def format_npy(array):
    """The array as a .npy file."""
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def encrypt(packed):
    """Mark the member as one with a password, in its own header and in the archive's list."""
    local, listed = packed.index(b"PK\3\4") + 6, packed.index(b"PK\1\2") + 8
    changed = bytearray(packed)
    changed[local] |= 1
    changed[listed] |= 1
    return bytes(changed)


def claim(packed, more):
    """Let the archive's list say that the member unpacks to more bytes than it does."""
    place = packed.index(b"PK\1\2") + 24
    size = int.from_bytes(packed[place : place + 4], "little") + more
    return packed[:place] + size.to_bytes(4, "little") + packed[place + 4 :]


def promise(shape, header_bytes=118):
    """A member that is a header alone, of that length, and promises an array of that shape."""
    header = repr({"descr": "|u1", "fortran_order": False, "shape": shape}).encode()
    return b"\x93NUMPY\2\0" + header_bytes.to_bytes(4, "little") + header.ljust(header_bytes)


IMAGES = np.zeros((4, 3, 3), np.uint8)


@pytest.mark.usefixtures("own")
@pytest.mark.parametrize(
    ("content", "reported"),
    [
        (pack(), r"no header of a \.npy array: "),
        (pack(format_npy(IMAGES), zipfile.ZIP_BZIP2), r"it is compressed by another method than numpy\.savez has"),
        (encrypt(pack(format_npy(IMAGES))), r"not a whole \.npz file: .+ is encrypted"),
        (pack(format_npy(np.asfortranarray(IMAGES))[:-1]), "expected 36 bytes of plain values in C order, got"),
        (pack(format_npy(IMAGES.transpose())), "expected 36 bytes .+, got values in Fortran's order"),
        (pack(format_npy(IMAGES) + b"more"), "expected 36 bytes of plain values in C order, got 40 bytes"),
        (
            claim(pack(format_npy(IMAGES)[:-9], zipfile.ZIP_DEFLATED), 9),
            "expected 36 bytes of plain values in C order, got 27 bytes",
        ),
        (pack(format_npy(np.zeros(3, "V0"))), "expected 0 bytes of plain values in C order"),
        (pack(promise((-2, -3)) + bytes(6)), r"expected a shape of no negative sizes, got \(-2, -3\)"),
        (pack(promise((9,), 1 << 24), zipfile.ZIP_DEFLATED), r"no header of a \.npy array: "),
        (
            pack(promise((1 << 60,)), zipfile.ZIP_DEFLATED),
            "expected 1152921504606846976 bytes of plain values .+ got 0",
        ),
        (
            claim(pack(promise((1 << 31,)), zipfile.ZIP_DEFLATED), 1 << 31),
            "expected at most .+ bytes in so short a file, got 2,147,",
        ),
    ],
    ids=[
        "header",
        "bzip2",
        "password",
        "short",
        "Fortran",
        "long",
        "shorter than listed",
        "no bytes",
        "negative",
        "long header",
        "huge",
        "huge and listed so",
    ],
)
def test_odd_member_of_an_npz_is_refused(tmp_path, content, reported):
    """A member that numpy did not write so, or that unpacks to another size than it says, is told by its name."""
    (tmp_path / "own.npz").write_bytes(content)
    with pytest.raises(DataError) as refusal:
        load_folder("own.npz", (28, 28), 0.2, 0)
    problem = refusal.value.causes[0]  # the three other arrays are missing

    assert problem.where in (str(tmp_path / "own.npz"), f"{tmp_path / 'own.npz'}: x_train")
    assert re.match(reported, problem.problem)
    assert problem.hint.startswith("save ")


def test_all_problems_of_own_files_are_told_at_once(own):
    """A file that is missing and two that are damaged are three errors in one go."""
    drop(own)
    for path in own.glob("*images*"):
        path.write_bytes(b"<html>")
    with pytest.raises(DataError) as refusal:
        load_folder("own", (28, 28), 0.2, 0)

    assert [cause.got for cause in refusal.value.causes] == ["3c68746d", "3c68746d", "none of them"]


def test_path_that_is_not_there_is_refused(tmp_path, monkeypatch):
    """The message names the path, and the parameter and the argument that it may come from."""
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    with pytest.raises(DataError) as refusal:
        load_folder("own", (28, 28), 0.2, 0)

    assert refusal.value.args == (
        "own",
        "no such folder or .npz file",
        "set ingest.path, or the argument of `pipeline check`, to where your images are",
    )
