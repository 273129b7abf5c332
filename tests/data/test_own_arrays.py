"""A person's own arrays come back whole, and everything that is wrong with them is said at once."""

import io
import zipfile

import numpy as np
import pytest
from samples import make_dataset, write_idx

from stages.ingest import IngestParams, run
from stages.lib.core.arrays import load_split
from stages.lib.core.errors import DataError
from stages.lib.core.files import read_json
from stages.lib.data.own_images import load_folder


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A folder with a person's own four IDX files, named relative to the project's root."""
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    return write_idx(tmp_path / "own")


def test_own_images_come_back(own, tmp_path):
    """Both splits, classes called by their ids, counts as expected and a SHA-256 of each file."""
    made = make_dataset()
    params = IngestParams(dataset="folder", path="own", image_size=[28, 28], test_fraction=0.2, seed=0)
    run(params, tmp_path / "raw")
    dataset = read_json(tmp_path / "raw/dataset.json")

    np.testing.assert_array_equal(load_split(tmp_path / "raw/train").images, made.train.images, strict=True)
    np.testing.assert_array_equal(load_split(tmp_path / "raw/test").labels, made.test.labels, strict=True)
    assert dataset["class_names"] == ["0", "1", "2"]
    assert dataset["expected"] == {"train": 60, "test": 30}
    assert dataset["sources"].keys() == {path.name for path in own.iterdir()}


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
    ("change", "reported"),
    [
        (drop, "ingest.path: own: expected .+ one IDX file of the test split's labels, such as .+, got none of them"),
        (add_another, "of the train split's images, .+, got train-images-idx3-ubyte, train-images.idx3-ubyte; put it"),
        (mix_up, "own: train: expected as many labels as images, got 60 images and 59 labels"),
    ],
    ids=["missing", "twice", "counts"],
)
def test_own_files_that_do_not_fit_are_refused(own, change, reported):
    """Which file of which split is missing, there twice or of another length is said."""
    change(own)

    with pytest.raises(DataError, match=reported):
        load_folder("own", (28, 28), 0.2, 0)


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
    ("arrays", "reported"),
    [
        ({"x_train": np.zeros((2, 3, 3), np.uint8)}, "expected an array y_train, got x_train; name the arrays so"),
        ({"x_train": np.zeros((2, 3, 3))}, r"train: images: expected uint8 \(N, H, W\), .+, got float64 \(2, 3, 3\)"),
        ({"x_train": np.zeros((2, 3, 3, 3), np.uint8)}, r"train: images: expected uint8 .+, got uint8 \(2, 3, 3, 3\)"),
        ({"y_train": np.array([0.0, 1.0])}, "train: labels: expected whole numbers from 0 on, got float64"),
        ({"y_train": np.array([-1, 1])}, "train: labels: expected whole numbers from 0 on, got int64"),
        ({"y_train": np.array([{}, {}], object)}, "y_train: expected 16 bytes of plain values in C order, got objects"),
        (
            {"y_train": np.array([0, 10**15])},
            "labels: expected class ids below 256, .+, got 1,000,000,000,000,000; number",
        ),
        ({"y_train": np.array([0, 1, 1])}, "train: expected as many labels as images, got 2 images and 3 labels"),
    ],
    ids=["missing", "float", "colour", "float labels", "negative", "pickled", "huge class", "counts"],
)
@pytest.mark.usefixtures("own")
def test_own_arrays_that_are_no_grey_images_with_classes_are_refused(tmp_path, arrays, reported):
    """What the arrays hold is said, and nothing is unpickled."""
    valid = {"x": np.zeros((2, 3, 3), np.uint8), "y": np.array([0, 1])}
    rest = {f"{name}_{split}": array for name, array in valid.items() for split in ("train", "test")}
    np.savez(tmp_path / "own.npz", **(arrays if "got x_train" in reported else rest | arrays))

    with pytest.raises(DataError, match=reported):
        load_folder("own.npz", (28, 28), 0.2, 0)


@pytest.mark.parametrize("damage", [lambda content: content[:-30], lambda _: b"text"], ids=["cut off", "text"])
@pytest.mark.usefixtures("own")
def test_damaged_npz_is_refused(tmp_path, damage):
    """A file that is no whole archive is an error of the data."""
    np.savez(tmp_path / "whole.npz", x_train=np.zeros(3))
    (tmp_path / "own.npz").write_bytes(damage((tmp_path / "whole.npz").read_bytes()))

    with pytest.raises(DataError, match=r"own\.npz: expected a whole \.npz file, got"):
        load_folder("own.npz", (28, 28), 0.2, 0)


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
        (pack(), r"own\.npz: x_train: expected the header of a \.npy array, got"),
        (
            pack(format_npy(IMAGES), zipfile.ZIP_BZIP2),
            r"x_train: expected a member as numpy\.savez packs it, got another",
        ),
        (encrypt(pack(format_npy(IMAGES))), r"expected a whole \.npz file, got .+ is encrypted"),
        (pack(format_npy(np.asfortranarray(IMAGES))[:-1]), "expected 36 bytes of plain values in C order, got"),
        (pack(format_npy(IMAGES.transpose())), "expected 36 bytes .+, got values in Fortran's order; write numpy"),
        (pack(format_npy(IMAGES) + b"more"), "expected 36 bytes of plain values in C order, got 40 bytes"),
        (
            claim(pack(format_npy(IMAGES)[:-9], zipfile.ZIP_DEFLATED), 9),
            "expected 36 bytes of plain values in C order, got 27 bytes",
        ),
        (pack(format_npy(np.zeros(3, "V0"))), "expected 0 bytes of plain values in C order"),
        (pack(promise((-2, -3)) + bytes(6)), r"expected a shape of no negative sizes, got \(-2, -3\)"),
        (pack(promise((9,), 1 << 24), zipfile.ZIP_DEFLATED), r"expected the header of a \.npy array, got"),
        (
            pack(promise((1 << 60,)), zipfile.ZIP_DEFLATED),
            "expected 1152921504606846976 bytes of plain values .+ got 0",
        ),
        (
            claim(pack(promise((1 << 31,)), zipfile.ZIP_DEFLATED), 1 << 31),
            "at most .+ bytes in so short a file, got one",
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

    with pytest.raises(DataError, match=reported):
        load_folder("own.npz", (28, 28), 0.2, 0)


def test_all_problems_of_own_files_are_told_at_once(own):
    """A file that is missing and two that are damaged are three errors in one go."""
    drop(own)
    for path in own.glob("*images*"):
        path.write_bytes(b"<html>")
    with pytest.raises(DataError) as refusal:
        load_folder("own", (28, 28), 0.2, 0)
    problems = str(refusal.value).split("; also ")

    assert [problem.rpartition("; ")[0].rpartition(", ")[2] for problem in problems] == [
        "got 3c68746d",
        "got 3c68746d",
        "got none of them",
    ]


def test_path_that_is_not_there_is_refused(tmp_path, monkeypatch):
    """The message names the parameter and the path."""
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))

    with pytest.raises(DataError, match=r"own: expected a folder, or an \.npz file, got nothing; correct ingest\.path"):
        load_folder("own", (28, 28), 0.2, 0)
