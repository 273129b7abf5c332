"""Labels as people have them, numbered as class ids from 0."""

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages.lib.core.errors import DataError
from stages.lib.data.class_names import find_name_problem, normalize_name

# Numbers without an image that a message names.
_NAMED = 5
# Numbers beyond are none of classes, and floats no longer tell them apart.
_MAX_NUMBER = 1 << 31
_SAVE = "then save the file again"


def number_classes(
    arrays: Mapping[str, NDArray[Any]], path: str, heading: str
) -> tuple[list[NDArray[np.unsignedinteger]], tuple[str, ...]]:
    """Find the class ids (N,) of each array of labels, and the classes' names by id.

    Numbers from 0 and columns of one-hot labels are class ids. Numbers from 1 are taken as the names of classes, which
    a line says. Texts are the names of classes, and ids are their places in order.

    arrays: by name, numbers or texts (N,) or (N, 1), or one-hot (N, classes). path: the data set as a person named it.
    heading: what stands before the line.

    Raises:
        DataError: naming every array that is none of these; numbers have gaps; there are fewer than two classes.
    """
    problems = [problem for name, labels in arrays.items() for problem in _find_problems(labels, path, name)]
    if problems:
        raise DataError.join(problems)
    is_text = {labels.dtype.kind == "U" for labels in arrays.values()}
    if len(is_text) > 1:
        expected = "either names or numbers in all of them"
        raise DataError(_join_names(arrays, path), expected=expected, got="both", hint=f"make them alike; {_SAVE}")
    ids, class_names = _number_texts(arrays, path) if is_text == {True} else _number_numbers(arrays, path, heading)
    if len(class_names) < 2:
        got, hint = ", ".join(class_names) or "no labels", "add images of another class"
        raise DataError(_join_names(arrays, path), expected="two or more classes", got=got, hint=hint)
    return [array.astype(np.min_scalar_type(len(class_names) - 1)) for array in ids], class_names


def _number_texts(arrays: Mapping[str, NDArray[Any]], path: str) -> tuple[list[NDArray[np.int64]], tuple[str, ...]]:
    distinct, places = {}, {}
    for name, labels in arrays.items():
        texts, places[name] = np.unique(labels.reshape(-1), return_inverse=True)
        try:
            distinct[name] = [normalize_name(text) for text in texts.tolist()]
        except (ValueError, SystemError):  # of Python and of NumPy
            hint = "save the names again"
            raise DataError(f"{path}: {name}", "a name holds what is no character of Unicode", hint) from None
    class_names = tuple(sorted({text for texts in distinct.values() for text in texts}))
    where = _join_names(arrays, path)
    problems = [problem for text in class_names if (problem := find_name_problem(text, where, "rename this class"))]
    if problems:
        raise DataError.join(problems)
    id_of = {text: label for label, text in enumerate(class_names)}
    ids = [np.array([id_of[text] for text in distinct[name]], np.int64)[places[name]] for name in arrays]
    return ids, class_names


def _number_numbers(
    arrays: Mapping[str, NDArray[Any]], path: str, heading: str
) -> tuple[list[NDArray[np.int64]], tuple[str, ...]]:
    columns = max(labels.shape[1] if _is_one_hot(labels) else 0 for labels in arrays.values())
    numbers = [
        labels.argmax(axis=1) if _is_one_hot(labels) else labels.reshape(-1).astype(np.int64)
        for labels in arrays.values()
    ]
    present = set(range(columns)).union(*(np.unique(values).tolist() for values in numbers))
    if not present:
        return numbers, ()
    first, last = int(min(present) == 1), max(present)
    absent = list(islice((number for number in range(first, last) if number not in present), _NAMED + 1))
    if absent:
        shown = ", ".join(map(str, absent[:_NAMED])) + (", …" if len(absent) > _NAMED else "")
        # Names of files are no names in Python: they are of IDX files.
        names = [*filter(str.isidentifier, arrays)] or ["y_train", "y_test"]
        lines = "; ".join(f"{name} = {name}.astype(int).astype(str)" for name in names)
        raise DataError(
            _join_names(arrays, path),
            expected=f"images of every class from {first} to {last}",
            got=f"none of {shown}",
            hint=f"add some, or make names of the numbers in an .npz file: `{lines}`",
        )
    if first:
        taken = f"labels {first} to {last} are taken as names of classes, whose ids are 0 to {last - first}"
        print(f"{heading}: {path}: {taken}")
    return [values - first for values in numbers], tuple(map(str, range(first, last + 1)))


def _is_one_hot(labels: NDArray[Any]) -> bool:
    return labels.ndim == 2 and labels.shape[1] > 1


def _find_problems(labels: NDArray[Any], path: str, name: str) -> Iterator[DataError]:
    """The error of labels that are of no kind that is known."""
    where, kind, is_one_hot = f"{path}: {name}", labels.dtype.kind, _is_one_hot(labels)
    if kind == "S":
        hint = f"in Python: `{name} = {name}.astype(str)`; {_SAVE}"
        yield DataError(where, expected="numbers or names", got="bytes", hint=hint)
    elif kind not in "biufU" or labels.ndim not in (1, 2) or 0 in labels.shape[1:] or (is_one_hot and kind == "U"):
        expected, got = "a number or a name for each image, or one-hot labels", f"{labels.dtype} {labels.shape}"
        yield DataError(where, expected=expected, got=got, hint="save one of these as (N,) or (N, classes)")
    elif is_one_hot and not ((labels == 0) | (labels == 1)).all():
        hint = f"if the largest value is of the class, in Python: `{name} = {name}.argmax(axis=1)`; {_SAVE}"
        yield DataError(where, expected="0 and 1 in one-hot labels", got="other values", hint=hint)
    elif is_one_hot and (others := int((labels.sum(axis=1) != 1).sum())):
        hint = "choose one class for each, or leave these images out"
        yield DataError(where, expected="one class for each image", got=f"{others:,} with none or several", hint=hint)
    elif not is_one_hot and kind != "U" and labels.size:
        low, high, is_whole = float(labels.min()), float(labels.max()), np.array_equal(labels, np.rint(labels))
        if not is_whole or low < 0 or high > _MAX_NUMBER:
            got = f"{low:g} to {high:g}" if is_whole else f"{labels.dtype} with fractions"
            hint = "number the classes from 0, or save their names"
            yield DataError(where, expected="whole numbers from 0 on", got=got, hint=hint)


def _join_names(arrays: Mapping[str, NDArray[Any]], path: str) -> str:
    return f"{path}: {', '.join(arrays)}"
