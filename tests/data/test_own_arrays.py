"""A person's own arrays come back whole, and everything that is wrong with them is said at once."""

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


GREY = "uint8 (N, H, W), grey levels 0..255"


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
