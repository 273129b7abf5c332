"""Labels of every kind that people have become class ids from 0, or are refused with what to do."""

import numpy as np
import pytest

from stages.lib.core.errors import DataError
from stages.lib.data.labels import number_classes

IDS = np.array([0, 2, 1, 1, 0, 2])
NAMES = np.array(["cat", "dog", "emu"])


def number(labels, test_labels=IDS):
    """The ids of `labels` as y_train beside valid labels as y_test, and the classes' names."""
    (ids, _), class_names = number_classes({"y_train": labels, "y_test": test_labels}, "own.npz", "ingest")
    return ids, class_names


def refuse(labels, test_labels=IDS):
    """The error of labels that cannot be taken."""
    with pytest.raises(DataError) as refusal:
        number(labels, test_labels)
    return refusal.value


@pytest.mark.parametrize(
    "labels",
    [
        IDS.astype(np.uint8),
        IDS[:, np.newaxis],
        IDS.astype(np.float32),
        IDS.astype(">u2"),
        np.eye(3)[IDS],
        np.eye(3, dtype=np.uint8)[IDS],
        np.eye(3, dtype=np.bool_)[IDS],
    ],
    ids=["bytes", "column", "float", "big-endian", "one-hot", "one-hot bytes", "one-hot bool"],
)
def test_numbers_and_one_hot_labels_are_class_ids(labels, capsys):
    """Of whatever type and shape, they are taken without a word, and classes are called by their ids."""
    ids, class_names = number(labels)

    np.testing.assert_array_equal(ids, IDS.astype(np.uint8), strict=True)
    assert class_names == ("0", "1", "2")
    assert capsys.readouterr().out == ""


def test_one_hot_column_without_an_image_is_a_class():
    """The columns say how many classes there are; that one of them has no image is for `validate` to find."""
    ids, class_names = number(np.eye(5)[IDS], np.eye(5)[IDS])

    assert class_names == ("0", "1", "2", "3", "4")
    np.testing.assert_array_equal(ids, IDS)


@pytest.mark.parametrize("labels", [NAMES[IDS], NAMES[IDS][:, np.newaxis]], ids=["row", "column"])
def test_names_are_the_classes_names(labels):
    """Ids follow the order of the names in all splits together."""
    ids, class_names = number(labels, np.array(["bee", "emu"]))

    assert class_names == ("bee", "cat", "dog", "emu")
    np.testing.assert_array_equal(ids, IDS + 1)


def test_name_is_one_in_whatever_form_its_accents_are():
    """A decomposed umlaut in one split is the composed one in the other."""
    ids, class_names = number(np.array(["gro\u0308ße", "klein"]), np.array(["größe"]))

    assert class_names == ("größe", "klein")
    assert ids.tolist() == [0, 1]


def test_many_classes_have_ids_of_more_bytes():
    """256 classes fit into a byte, 257 do not."""
    assert [number(np.arange(count), np.arange(1))[0].dtype for count in (256, 257)] == [np.uint8, np.uint16]


def test_numbers_from_1_are_names_and_a_line_says_so(capsys):
    """Ids begin at 0 all the same: outputs of a network do."""
    ids, class_names = number(IDS + 1, IDS + 1)

    np.testing.assert_array_equal(ids, IDS)
    assert class_names == ("1", "2", "3")
    assert capsys.readouterr().out == (
        "ingest: own.npz: labels 1 to 3 are taken as names of classes, whose ids are 0 to 2\n"
    )


@pytest.mark.parametrize(
    ("numbers", "expected", "got"),
    [
        ([3, 7, 7, 3], "images of every class from 0 to 7", "none of 0, 1, 2, 4, 5, …"),
        ([1, 2, 4, 5], "images of every class from 1 to 5", "none of 3"),
        ([0, 1, 3, 10**9], "images of every class from 0 to 1000000000", "none of 2, 4, 5, 6, 7, …"),
    ],
    ids=["a pair", "from 1", "huge"],
)
def test_gaps_are_refused_with_lines_that_make_names_of_the_numbers(numbers, expected, got):
    """A class may have lost its images; where none has, the lines of the hint give labels that are taken."""
    arrays = {name: np.array(numbers) for name in ("y_train", "y_test")}
    refusal = refuse(*arrays.values())

    assert (refusal.where, refusal.expected, refusal.got) == ("own.npz: y_train, y_test", expected, got)
    exec(refusal.hint.split("`")[1], arrays)  # as a person types it
    ids, class_names = number(arrays["y_train"], arrays["y_test"])
    assert [class_names[label] for label in ids] == list(map(str, numbers))


def test_gaps_in_idx_files_are_refused_with_names_that_python_takes():
    """The files' own names would be no names of arrays in the line to type."""
    with pytest.raises(DataError) as refusal:
        number_classes({"train-labels-idx1-ubyte": np.array([0, 2])}, "own", "ingest")

    assert refusal.value.where == "own: train-labels-idx1-ubyte"
    assert "in an .npz file: `y_train = y_train.astype(int).astype(str); y_test = " in refusal.value.hint


@pytest.mark.parametrize(
    ("labels", "expected", "got"),
    [
        (np.array([-1, 0]), "whole numbers from 0 on", "-1 to 0"),
        (np.array([0.5, 1.0]), "whole numbers from 0 on", "float64 with fractions"),
        (np.array([np.nan, 1.0]), "whole numbers from 0 on", "float64 with fractions"),
        (np.array([0, 2**63], np.uint64), "whole numbers from 0 on", "0 to 9.22337e+18"),
        (np.array([[1, 0], [1, 1], [0, 0]]), "one class for each image", "2 with none or several"),
        (np.array([[0.2, 0.8], [0.9, 0.1]]), "0 and 1 in one-hot labels", "other values"),
        (np.array([b"cat", b"dog"]), "numbers or names", "bytes"),
        (np.zeros((2, 2, 2)), "a number or a name for each image, or one-hot labels", "float64 (2, 2, 2)"),
        (np.zeros((2, 0)), "a number or a name for each image, or one-hot labels", "float64 (2, 0)"),
        (np.array(3), "a number or a name for each image, or one-hot labels", "int64 ()"),
        (np.array([1j, 0]), "a number or a name for each image, or one-hot labels", "complex128 (2,)"),
        (NAMES.reshape(1, 3), "a number or a name for each image, or one-hot labels", "<U3 (1, 3)"),
    ],
    ids=[
        *("negative", "fractions", "NaN", "huge", "multi-label", "probabilities", "bytes", "masks", "no column"),
        *("single", "complex", "table of names"),
    ],
)
def test_labels_of_no_known_kind_are_refused(labels, expected, got):
    """What was expected and what is there is said of the array by its name."""
    refusal = refuse(labels)

    assert (refusal.where, refusal.expected, refusal.got) == ("own.npz: y_train", expected, got)


@pytest.mark.parametrize("labels", [np.array([b"cat", b"dog"]), np.array([[0.2, 0.8], [0.9, 0.1]])])
def test_hint_has_the_line_that_gives_labels(labels):
    """Typed as it stands, it gives labels that are taken."""
    arrays = {"y_train": labels}
    exec(refuse(labels).hint.split("`")[1], arrays)  # as a person types it

    assert len(number(arrays["y_train"], arrays["y_train"])[1]) == 2


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("\x1b[2J", r"expected a class name that can be read, without blanks around it, got '\x1b[2J'"),
        (" ", "expected a class name that can be read, without blanks around it, got ' '"),
        ("<b>bold", "this class name holds a tag of HTML"),
    ],
    ids=["terminal", "blank", "markup"],
)
def test_name_that_reports_cannot_take_is_refused(name, problem):
    """Names in arrays are held to what names of folders are held to."""
    refusal = refuse(np.array(["cat", name]), np.array(["cat"]))

    assert (refusal.where, refusal.problem) == ("own.npz: y_train, y_test", problem)


def test_name_of_no_characters_is_refused():
    """Numpy's texts may hold numbers that Unicode has no character for."""
    refusal = refuse(np.array([0x110000, 0x41], np.uint32).view("<U1"), np.array(["cat"]))

    assert refusal.problem == "a name holds what is no character of Unicode"


def test_names_beside_numbers_are_refused():
    """What is a name in one split is one in the other."""
    refusal = refuse(NAMES[IDS])

    assert (refusal.expected, refusal.got) == ("either names or numbers in all of them", "both")


@pytest.mark.parametrize(("labels", "got"), [(np.zeros(0, int), "no labels"), (np.zeros(3, int), "0")])
def test_fewer_than_two_classes_are_refused(labels, got):
    """There is nothing to tell apart."""
    refusal = refuse(labels, labels)

    assert (refusal.expected, refusal.got) == ("two or more classes", got)


def test_every_array_that_is_wrong_is_named():
    """Both are told at once."""
    refusal = refuse(np.array([-1]), np.array([0.5]))

    assert [cause.where for cause in refusal.causes] == ["own.npz: y_train", "own.npz: y_test"]
