"""An error is told in one line, and keeps its parts for whoever catches it."""

import errno
import os
import pickle

import pytest

from stages.lib.core.errors import (
    DataError,
    ExportError,
    ParamsError,
    PipelineError,
    TrackingError,
    TrainingError,
    describe_os_error,
)

KINDS = [PipelineError, ParamsError, DataError, TrainingError, ExportError, TrackingError]
MAKE = {
    "event": lambda kind: kind("a.yaml", "it was edited while the stage ran", "run `dvc repro` again"),
    "value": lambda kind: kind("a.npy", expected="3 labels", got="2", hint="run `dvc repro`"),
    "no hint": lambda kind: kind("a.npy", "no such file"),
    "unreadable": lambda kind: kind.unreadable("a.npy", PermissionError(errno.EACCES, "Permission denied")),
    "two": lambda kind: kind.join([MAKE["event"](kind), MAKE["value"](kind)]),
    "many": lambda kind: kind.join([MAKE["value"](kind)] * 7),
}


def test_event_is_told_in_a_sentence_of_its_own():
    """Where it is, what happened and what to do stand in one line."""
    error = DataError("a.yaml", "it was edited while the stage ran", "run `dvc repro` again")

    assert str(error) == "a.yaml: it was edited while the stage ran; run `dvc repro` again"
    assert (error.where, error.problem, error.hint) == error.args
    assert (error.expected, error.got) == ("", "")


def test_wrong_value_is_told_by_what_was_expected_and_got():
    """What was expected and what was got are what is wrong, and are kept one by one, too."""
    error = DataError("labels.npy", expected="3 labels", got="2", hint="run `dvc repro`")

    assert str(error) == "labels.npy: expected 3 labels, got 2; run `dvc repro`"
    assert error.problem == "expected 3 labels, got 2"
    assert (error.where, error.expected, error.got, error.hint) == ("labels.npy", "3 labels", "2", "run `dvc repro`")


def test_text_of_several_lines_becomes_one():
    """What another library says in several lines is told in one, and kept as it is."""
    error = DataError("a.yaml", "not valid YAML: an error\n  in line 1", "correct it")

    assert str(error) == "a.yaml: not valid YAML: an error in line 1; correct it"
    assert error.problem == "not valid YAML: an error\n  in line 1"


def test_joined_errors_are_one_error_of_the_family():
    """Few errors are told one after the other in one line, as an error of the class that joins them."""
    causes = [DataError(name, "no such file", "add it") for name in ("a", "b")]
    joined = DataError.join(causes)

    assert str(joined) == "a: no such file; add it; also b: no such file; add it"
    assert type(joined) is DataError
    assert joined.causes == tuple(causes)


def test_many_joined_errors_have_a_line_each():
    """More errors than a line has room for are counted, and told below each other."""
    joined = DataError.join([DataError(str(number), "no such file", "add it") for number in range(6)])

    assert str(joined).splitlines() == ["6 errors:", *(f"  {number}: no such file; add it" for number in range(6))]


def test_one_joined_error_stays_itself():
    """Where there is but one error, it keeps its own parts."""
    error = DataError("a", "no such file", "add it")

    assert DataError.join([error]) is error
    assert error.causes == (error,)


def describe(error):
    """All that an error holds."""
    parts = (error.where, error.problem, error.hint, error.expected, error.got)
    return type(error), str(error), parts, [describe(cause) for cause in error.causes if cause is not error]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("make", MAKE.values(), ids=MAKE)
def test_error_of_another_process_is_the_same(kind, make):
    """An error that is pickled keeps its class, its parts, its text and the errors that it joins."""
    error = make(kind)

    assert describe(pickle.loads(pickle.dumps(error))) == describe(error)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES, errno.EROFS, errno.ENOENT, errno.ELOOP, errno.EIO])
def test_what_the_system_refuses_has_a_hint(number):
    """Whatever the system refuses is told with the path, the system's reason and a hint of at least two words."""
    where, reason, *hint = describe_os_error(OSError(number, os.strerror(number), "a")).replace("; ", ": ").split(": ")

    assert (where, reason) == ("a", os.strerror(number))
    assert len(" ".join(hint).split()) > 1
