"""Results of trials are kept whole, ranked by the goal, and tabulated to the same bytes."""

import pytest

from stages.lib.sweeps.plan import Bounds, Goal
from stages.lib.sweeps.results import (
    ACCURACY,
    INT8_BYTES,
    Result,
    Scored,
    format_metric,
    keep_result,
    rank,
    read_result,
    write_table,
)

RESULT = Result("finished", "", {"models/model.keras": "a1"}, {"train": 1.5}, 0)
SMALLEST = Goal(INT8_BYTES, False, {ACCURACY: Bounds(min=0.9)})


def make_trial(number, accuracy, size, status="finished", problem=""):
    result = RESULT._replace(status=status, problem=problem)
    return Scored(number, {"train.epochs": number}, result, {ACCURACY: accuracy, INT8_BYTES: size})


def test_kept_result_is_read_again(tmp_path):
    """A result comes back as it was, its reports beside it."""
    keep_result(tmp_path / "key", RESULT, {"metrics.json": b"{}"})

    assert read_result(tmp_path / "key") == RESULT
    assert (tmp_path / "key" / "metrics.json").read_bytes() == b"{}"


@pytest.mark.parametrize("content", [None, "", "{", "[]", '{"error": ""}'])
def test_damaged_result_does_not_count(tmp_path, content):
    """What cannot be read is no result: the trial runs again."""
    if content is not None:
        (tmp_path / "result.json").write_text(content, encoding="utf-8")

    assert read_result(tmp_path) is None


def test_best_is_the_smallest_that_is_accurate_enough():
    """Those that meet the goal come first, then those that do not, those that were stopped, those that failed."""
    trials = [
        make_trial(1, 0.95, 3000),
        make_trial(2, 0.80, 1000),
        make_trial(3, 0.92, 2000),
        make_trial(4, 0.99, 500, "failed"),
        make_trial(6, 0.99, 500, "stopped"),
        make_trial(5, 0.97, 3000),
    ]

    assert [trial.number for trial in rank(trials, SMALLEST)] == [3, 5, 1, 2, 6, 4]


def test_largest_is_the_best_where_that_is_wanted():
    """A goal may be to maximize; a trial that did not measure it comes last of those that did not fail."""
    trials = [make_trial(1, 0.95, 1), make_trial(2, 0.97, 1), Scored(3, {"train.epochs": 3}, RESULT, {})]
    ranked = rank(trials, Goal(ACCURACY, True, {}))

    assert [trial.number for trial in ranked] == [2, 1, 3]
    assert not ranked[-1].meets(Goal(ACCURACY, True, {}))


def test_metric_that_is_missing_or_no_number_is_out_of_bounds():
    """A trial cannot be the best by what it did not measure."""
    bounds = Bounds(min=0.5, max=0.75)

    assert [bounds.measure_violation(value) for value in (0.5, 0.75, 0.25, 1.0)] == [0, 0, 0.25, 0.25]
    assert bounds.measure_violation(None) == bounds.measure_violation(float("nan")) == float("inf")


def test_table_is_the_same_bytes_for_equal_trials(tmp_path):
    """Neither seconds nor retries are in the table, so that equal sweeps have equal ones."""
    trials = [make_trial(1, 0.95, 3000), make_trial(2, 0.5, 100, "failed", "it, diverged")]
    slower = [
        trial._replace(result=trial.result._replace(seconds={"train": 9.0}, retries=2)) for trial in reversed(trials)
    ]
    shown = write_table(tmp_path / "one.csv", rank(trials, SMALLEST), SMALLEST, ["models/model.keras"])
    write_table(tmp_path / "other.csv", rank(slower, SMALLEST), SMALLEST, ["models/model.keras"])

    assert (tmp_path / "one.csv").read_bytes() == (tmp_path / "other.csv").read_bytes()
    assert (tmp_path / "one.csv").read_text(encoding="utf-8").splitlines()[1] == "1,1,finished,yes,3000,0.9500,,,a1,"
    assert shown[1] == ["1", "finished", "3000", "0.9500", "", ""]


@pytest.mark.parametrize(
    ("value", "text"), [(None, ""), (20112.0, "20112"), (0.96, "0.9600"), (1.0, "1.0000"), (1234567.0, "1234567")]
)
def test_metric_is_told_in_few_letters(value, text):
    """Counts and bytes are whole numbers, shares have four decimals."""
    assert format_metric(value) == text
