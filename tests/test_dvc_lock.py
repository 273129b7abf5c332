"""The state in a dvc.lock, and what no DVC wrote in place of one."""

import pytest

from stages.lib.dvc_lock import load_state, read_state
from stages.lib.errors import DataError

LOCK = """\
schema: '2.0'
stages:
  train:
    cmd: python -m stages.train
    params:
      params.yaml:
        train:
          epochs: 20
    outs:
    - path: models/model.keras
      hash: md5
      md5: 0123456789abcdef0123456789abcdef
      size: 1
  track:
    outs:
    - path: reports/state.json
      md5: fedcba9876543210fedcba9876543210
"""


def test_state_is_params_and_outputs_of_all_stages_but_track():
    """A state has the sections and the outputs of the stages that make something; telling of it is no part of it."""
    state = read_state(LOCK)

    assert state.params == {"train": {"epochs": 20}}
    assert state.outputs == {"models/model.keras": "0123456789abcdef0123456789abcdef"}


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("a: [", "while parsing a flow node"),
        ("5", "Input should be a valid dictionary"),
        ("stages: [1, 2]", "stages: Input should be a valid dictionary"),
        ("stages:", "stages: Input should be a valid dictionary"),
        ("stages: {train: 5}", "stages.train: Input should be a valid dictionary"),
        ("stages: {train: {outs: {a: b}}}", "stages.train.outs: Input should be a valid list"),
        ("stages: {train: {outs: [{path: a}]}}", "stages.train.outs.0.md5: Field required"),
        ("stages: {train: {outs: [{path: 5, md5: b}]}}", "stages.train.outs.0.path: Input should be a valid string"),
        ("stages: {train: {params: [a]}}", "stages.train.params: Input should be a valid dictionary"),
        (
            "stages: {train: {params: {params.yaml: {train: 5}}}}",
            "stages.train.params.params.yaml.train: Input should be a valid dictionary",
        ),
        (
            "stages: {train: {params: {params.yaml: {train: {day: 2026-01-01}}}}}",
            "Object of type date is not JSON serializable",
        ),
    ],
)
def test_lock_that_no_dvc_wrote_is_told_in_one_line(tmp_path, monkeypatch, text, fault):
    """Valid YAML of another shape, or none, gives the place and what should be there, and how the file comes back."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dvc.lock").write_text(text, encoding="utf-8")
    with pytest.raises(DataError) as refusal:
        load_state()

    assert str(refusal.value).startswith(f"dvc.lock: expected what DVC writes, got {fault}")
    assert str(refusal.value).endswith("; `git checkout dvc.lock`")


def test_lock_that_is_not_there_is_told(tmp_path, monkeypatch):
    """Before the first `dvc repro` there is no dvc.lock, and that is what to do."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=r"dvc\.lock: expected a file, got none; run `dvc repro`"):
        load_state()
