"""The state in a dvc.lock, and what no DVC wrote in place of one."""

import json
import re
from pathlib import Path

import pytest

from stages.lib.core.dvc_lock import load_lock, parse_lock, require_reproduced, require_valid_inputs
from stages.lib.core.errors import DataError
from stages.lib.core.hashing import hash_output

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
    state = parse_lock(LOCK).state

    assert state.params == {"train": {"epochs": 20}}
    assert state.outputs == {"models/model.keras": "0123456789abcdef0123456789abcdef"}


def test_outputs_are_those_of_all_stages():
    """Each output comes with the stage that made it, what only tells of the state among them."""
    assert parse_lock(LOCK).outputs == [
        ("train", "models/model.keras", "0123456789abcdef0123456789abcdef"),
        ("track", "reports/state.json", "fedcba9876543210fedcba9876543210"),
    ]


@pytest.mark.parametrize(
    ("text", "problem"),
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
def test_lock_that_no_dvc_wrote_is_told_in_one_line(tmp_path, monkeypatch, text, problem):
    """Valid YAML of another shape, or none, gives the place and what should be there, and how the file comes back."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dvc.lock").write_text(text, encoding="utf-8")
    with pytest.raises(DataError) as refusal:
        load_lock()

    assert refusal.value.where == "dvc.lock"
    assert refusal.value.problem.startswith(f"it is damaged: {problem}")
    assert refusal.value.hint == "run `git checkout dvc.lock`"


def test_lock_that_is_not_there_is_told(tmp_path, monkeypatch):
    """Before the first `dvc repro` there is no dvc.lock, and that is what to do."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError) as refusal:
        load_lock()

    assert refusal.value.args == ("dvc.lock", "no such file", "run `dvc repro` in the project's root folder")


def require_damaged(error, path, suffix=""):
    """The error names the path, its MD5 in dvc.lock and the one that it has, and the command that says more."""
    assert error.where == path
    assert re.fullmatch(rf"MD5 \w{{32}}{suffix} as in dvc\.lock", error.expected)
    assert re.fullmatch(rf"\w{{32}}{suffix}", error.got)
    assert "`pipeline verify --quick`" in error.hint


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A project with a folder `data` as output, of which the stage `evaluate` reads `test` and `train` all."""
    monkeypatch.chdir(tmp_path)
    for name in ("test/a", "train/b"):
        (tmp_path / "data" / name).parent.mkdir(parents=True)
        (tmp_path / "data" / name).write_text(name, encoding="utf-8")
    md5 = hash_output(Path("data"))
    graph = "stages: {evaluate: {deps: [stages/evaluate.py, data/test]}, train: {deps: [data]}}"
    (tmp_path / "dvc.yaml").write_text(graph, encoding="utf-8")
    (tmp_path / "dvc.lock").write_text(f"stages: {{make: {{outs: [{{path: data, md5: {md5}}}]}}}}", encoding="utf-8")
    return tmp_path


@pytest.fixture
def listing(folder):
    """The listing of `data` in DVC's cache."""
    entries = [{"md5": hash_output(folder / "data" / name), "relpath": name} for name in ("test/a", "train/b")]
    md5 = hash_output(folder / "data")
    path = folder / ".dvc/cache/files/md5" / md5[:2] / md5[2:]
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(entries, sort_keys=True), encoding="utf-8")
    return path


def test_damaged_input_is_named_by_its_file(folder, listing):  # noqa: ARG001
    """Where DVC's cache lists the folder's files, the one that the stage would have read damaged is named."""
    require_valid_inputs("evaluate")
    (folder / "data/test/a").write_text("damaged", encoding="utf-8")

    with pytest.raises(DataError) as refusal:
        require_valid_inputs("evaluate")

    require_damaged(refusal.value, "data/test/a")


def test_stage_does_not_wait_for_what_it_does_not_read(folder, listing):  # noqa: ARG001
    """A file of the folder that is damaged beside the stage's inputs is for the stage that reads it to refuse."""
    (folder / "data/train/b").write_text("damaged", encoding="utf-8")

    require_valid_inputs("evaluate")
    with pytest.raises(DataError) as refusal:
        require_valid_inputs("train")

    require_damaged(refusal.value, "data", ".dir")


@pytest.mark.parametrize("kind", ["none", "damaged"])
def test_without_its_listing_the_whole_folder_is_looked_at(folder, listing, kind):
    """The cache may be elsewhere, or damaged: what cannot be told file by file is told of all of them."""
    listing.unlink() if kind == "none" else listing.write_text("[]", encoding="utf-8")
    (folder / "data/test/a").write_text("damaged", encoding="utf-8")

    with pytest.raises(DataError) as refusal:
        require_valid_inputs("evaluate")

    require_damaged(refusal.value, "data", ".dir")


def test_damaged_lock_is_told_before_a_stage_begins(folder):
    """In the same words as where its state is read."""
    (folder / "dvc.lock").write_text("a: [", encoding="utf-8")

    with pytest.raises(DataError) as refusal:
        require_valid_inputs("evaluate")

    assert refusal.value.where == "dvc.lock"
    assert refusal.value.problem.startswith("it is damaged: while parsing a flow")


REPRODUCED = """\
stages:
  make:
    deps:
    - path: make.py
      md5: {source}
    params:
      params.yaml:
        make: {{seed: 0}}
    outs:
    - path: data
      md5: {data}
"""


def test_stages_are_reproduced_if_sources_params_and_outputs_are_as_locked(folder):
    """What dvc.lock was written for gives its outputs; an edit of a source or a section, or another stage, does not."""
    (folder / "make.py").write_text("", encoding="utf-8")
    lock = REPRODUCED.format(source=hash_output(folder / "make.py"), data=hash_output(folder / "data"))
    (folder / "dvc.lock").write_text(lock, encoding="utf-8")
    params = {"make": {"seed": 0}}

    assert require_reproduced(["make"], params) == {"data": hash_output(folder / "data")}
    with pytest.raises(DataError) as refusal:
        require_reproduced(["make"], {"make": {"seed": 1}})
    hint = "run `dvc repro make` first"
    assert refusal.value.args == ("params.yaml: make", "it differs from dvc.lock", hint)
    with pytest.raises(DataError) as refusal:
        require_reproduced(["make", "train"], params)
    assert refusal.value.args == ("dvc.lock", "it has no stage train", "run `dvc repro train` first")
    source = hash_output(folder / "make.py")
    (folder / "make.py").write_text("edited", encoding="utf-8")
    with pytest.raises(DataError) as refusal:
        require_reproduced(["make"], params)
    assert (refusal.value.where, refusal.value.expected) == ("make.py", f"MD5 {source} as in dvc.lock")
    assert (refusal.value.got, refusal.value.hint) == (hash_output(folder / "make.py"), hint)
