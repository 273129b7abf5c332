"""The seconds of a stage are told of the params that it ran with, and of no others."""

import pytest

from stages.lib.runner.stage_times import describe_times, read_times, record_times

PARAMS = {"train": {"epochs": 1}, "export": {"opset": 18}}


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_stage_that_ran_with_these_params_has_its_seconds():
    """Imports and work are told by stage, in seconds, from 0 on."""
    with record_times("train", PARAMS):
        sum(range(100_000))
    times = read_times(PARAMS)

    assert times.keys() == {"train"}
    assert times["train"].keys() == {"imports", "work"}
    assert times["train"]["work"] > 0
    assert describe_times(times) == {f"seconds/train/{what}": seconds for what, seconds in times["train"].items()}


def test_stage_that_ran_with_other_params_has_none():
    """Outputs that DVC kept or restored were not made in the time of another run, not even of a later section's."""
    with record_times("train", PARAMS):
        pass

    assert read_times(PARAMS | {"export": {"opset": 17}}) == {}


def test_stage_that_failed_has_none():
    """A stage that ends in an error made no outputs, and what is known of the last good run stays."""
    with record_times("train", PARAMS):
        pass
    before = read_times(PARAMS)
    with pytest.raises(ValueError, match="broken"), record_times("train", PARAMS | {"train": {}}):
        raise ValueError("broken")

    assert read_times(PARAMS) == before
    assert read_times(PARAMS | {"train": {}}) == {}


def test_nothing_is_known_where_nothing_ran():
    """A fresh clone has no times."""
    assert read_times(PARAMS) == {}
