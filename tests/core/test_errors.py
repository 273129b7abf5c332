"""An error is told in one line."""

import pickle

from stages.lib.core.errors import DataError, PipelineError


def test_message_says_where_expected_got_and_what_to_do():
    """The four parts stand in one sentence."""
    error = DataError("labels.npy", expected="3 labels", got="2", hint="fetch it again")

    assert str(error) == "labels.npy: expected 3 labels, got 2; fetch it again"


def test_text_of_several_lines_becomes_one():
    """What another library says in several lines is told in one."""
    error = DataError("a.yaml", expected="valid YAML", got="an error\n  in line 1", hint="correct it")

    assert str(error) == "a.yaml: expected valid YAML, got an error in line 1; correct it"


def test_joined_problems_are_one_error_of_the_family():
    """Several errors are told one after the other, as an error of the class that joins them."""
    problems = [DataError(name, expected="a file", got="none", hint="add it") for name in ("a", "b")]
    joined = DataError.join(problems)

    assert str(joined) == "a: expected a file, got none; add it; also b: expected a file, got none; add it"
    assert isinstance(joined, DataError)
    assert isinstance(joined, PipelineError)


def test_error_of_another_process_is_the_same():
    """An error that is pickled keeps its class and its text."""
    error = DataError("labels.npy", expected="3 labels", got="2", hint="fetch it again")
    restored = pickle.loads(pickle.dumps(error))

    assert (type(restored), str(restored)) == (DataError, str(error))
