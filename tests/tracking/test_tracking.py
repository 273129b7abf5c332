"""The MLflow store: one run per state, one version per run, one champion, whatever happened before."""

import json
import os
import shutil
import subprocess
import sys
import time

import mlflow
import numpy as np
import pytest
from imports import ROOT
from mlflow import MlflowClient
from mlflow.store.model_registry.dbmodels.models import SqlModelVersionTag, SqlRegisteredModelAlias
from mlflow.store.tracking.dbmodels.models import SqlDataset, SqlTag
from sqlalchemy import create_engine, event, insert, text
from stores import (
    GOOD,
    enter_root,
    get_champion,
    list_runs,
    make_contender,
    make_model,
    make_record,
    remove_for_good,
    track,
)

from stages.lib.core.errors import TrackingError
from stages.lib.core.files import write_csv
from stages.lib.tracking import tracking
from stages.track import collect_history, find_best_epoch


def test_run_holds_params_metrics_steps_data_and_artifacts(root):
    """One run has everything: params, metrics with their steps, data sets with digests, artifacts, the model."""
    store, run, _, _ = track(root)
    found = store.client.get_run(run.info.run_id)
    history = store.client.get_metric_history(run.info.run_id, "loss/train")
    artifacts = [item.path for item in store.client.list_artifacts(run.info.run_id)]

    assert found.data.params == {"train.epochs": "2"}
    assert found.data.metrics["accuracy/test"] == 0.95
    assert [(point.step, point.value) for point in history] == [(1, 0.5), (2, 0.25)]
    assert {entry.dataset.digest for entry in found.inputs.dataset_inputs} == {"d1", "d2"}
    assert artifacts == ["manifest.json", "report.json", "reports"]
    assert found.info.artifact_uri.startswith((root / "mlartifacts" / "digits").as_uri())


@pytest.mark.parametrize(
    ("table", "key"),
    [
        (SqlDataset, {"digest": "d2"}),
        (SqlTag, {"key": tracking.DECISION_TAG}),
        (SqlModelVersionTag, {"key": tracking.DECISION_TAG}),
        (SqlRegisteredModelAlias, {"alias": tracking.CHAMPION}),
    ],
)
def test_row_that_another_clone_inserts_at_the_same_moment_is_found(root, table, key):
    """What two clones of a team log at once, each having looked for it in vain, is there once, and neither fails."""
    inserted = []

    def insert_first(_mapper, _connection, row):
        values = {column.name: getattr(row, column.name) for column in table.__table__.columns}
        if not inserted and key.items() <= values.items():
            inserted.append(values)
            with create_engine(f"sqlite:///{root / 'mlflow.db'}").begin() as other:
                other.execute(insert(table).values(values))

    event.listen(table, "before_insert", insert_first)
    try:
        store, run, version, _ = track(root)
    finally:
        event.remove(table, "before_insert", insert_first)
    found = store.client.get_run(run.info.run_id)

    assert len(inserted) == 1
    assert {entry.dataset.digest for entry in found.inputs.dataset_inputs} == {"d1", "d2"}
    assert tracking.DECISION_TAG in found.data.tags
    assert store.client.get_model_version("digits", str(version.version)).tags["is_promoted"] == "true"
    assert get_champion(store) == str(version.version)


@pytest.mark.parametrize(("marks", "best"), [("010", {"best_epoch/train": 2.0}), (None, {})])
def test_kept_epoch_is_a_metric_and_the_columns_are_curves(tmp_path, marks, best):
    """Early stopping's choice is one figure of the run; without early stopping there is none."""
    header = ["epoch", "loss", "accuracy", *(["best"] if marks else [])]
    write_csv(tmp_path / "history.csv", header, [[n, n / 2, 0.5, *(marks[n - 1] if marks else "")] for n in (1, 2, 3)])

    assert find_best_epoch(tmp_path) == best
    assert collect_history(tmp_path) == {"loss/train": [0.5, 1.0, 1.5], "accuracy/train": [0.5, 0.5, 0.5]}


def test_runs_in_a_row_have_colors_of_their_own(root):
    """Seven runs in a row have seven colours in MLflow's pages; then the first comes again."""
    for number in range(8):
        store, *_ = track(root, state=f"s{number}")
    colors = [run.data.tags[tracking.COLOR_TAG] for run in list_runs(store)]

    assert len(set(colors)) == 7
    assert colors[0] == colors[-1]


def test_runs_of_no_state_leave_the_colors_alone(root):
    """Trials of a sweep between two states do not begin the colours anew."""
    track(root, state="s1")
    with tracking.open_store() as store:
        store.client.create_run(tracking.ensure_experiment(store, "digits"))
    store, *_ = track(root, state="s2")
    colors = {run.data.tags.get(tracking.COLOR_TAG) for run in list_runs(store)}

    assert len(colors) == 3  # two, and none


def test_same_state_is_logged_once(root):
    """A state that has its run gets neither a second run nor a second version; a new commit is noted on it."""
    _, first, _, _ = track(root)
    store, second, version, _ = track(root, commit="c1")

    assert [run.info.run_id for run in list_runs(store)] == [first.info.run_id] == [second.info.run_id]
    assert str(version.version) == "1"
    assert store.client.get_run(first.info.run_id).data.tags["git.commits"] == "c0 c1"


def test_commit_takes_the_place_of_unknown(root):
    """A run that was logged where git did not tell the commit is given it where git does, and loses it nowhere else."""
    store, run, _, _ = track(root)
    store.client.set_tag(run.info.run_id, "git.commits", "unknown")
    track(root, commit="c1")
    track(root, commit="unknown")

    assert store.client.get_run(run.info.run_id).data.tags["git.commits"] == "c1"


def test_store_whose_creation_was_killed_is_created_by_the_next(tmp_path, monkeypatch):
    """A store is there whole or not at all: MLflow can neither open nor complete one that was cut short."""
    enter_root(tmp_path, monkeypatch)
    create = "from stages.lib.tracking.tracking import open_store\nwith open_store(): pass"
    first = subprocess.Popen([sys.executable, "-c", create], env={**os.environ, "PYTHONPATH": str(ROOT)})
    partial = tmp_path / ".mlflow.db.partial" / "mlflow.db"
    # Some of its tables are there.
    while first.poll() is None and not (partial.exists() and partial.stat().st_size > 50_000):
        time.sleep(0.01)
    first.kill()
    first.wait()
    was_there = (tmp_path / "mlflow.db").exists()
    store, *_ = track(tmp_path)
    mlflow.set_tracking_uri(None)

    assert not was_there
    assert len(list_runs(store)) == 1
    assert list(tmp_path.glob(".*.partial")) == []


def test_interrupted_run_is_replaced(root):
    """What an interrupted attempt left is deleted, and the state gets a whole run."""
    with tracking.open_store() as store:
        experiment_id = tracking.ensure_experiment(store, "digits")
        left = store.client.create_run(experiment_id, tags={tracking.STATE_TAG: "s1"})
    store, run, _, _ = track(root)

    assert [found.info.run_id for found in list_runs(store)] == [run.info.run_id]
    assert run.info.run_id != left.info.run_id


def test_failure_midway_leaves_no_finished_run(root):
    """A run whose logging fails does not count; the next attempt logs it whole."""
    record = make_record()._replace(artifacts=[tracking.Path("gone.json")])
    with tracking.open_store() as store:
        experiment_id = tracking.ensure_experiment(store, "digits")
        with pytest.raises(FileNotFoundError):
            tracking.log_run(store, experiment_id, record, make_model(root, GOOD))
        found_after_failure = tracking.find_run(store, experiment_id, "digits", "s1")
    store, _, _, _ = track(root)

    assert found_after_failure is None
    assert [run.info.status for run in list_runs(store)] == ["FINISHED"]


@pytest.mark.parametrize(
    ("challenger", "champion", "reason"),
    [
        (make_contender(*range(4)), "2", "better than champion version 1 (of 100 test images"),
        (GOOD, "2", "right on the same images as champion version 1"),
        (
            make_contender(*range(5, 10)),
            "2",
            "as good as champion version 1 (of 100 test images",
        ),
        (make_contender(*range(9)), "2", "not significantly worse than champion version 1"),
        (
            make_contender(*range(10)),
            "1",
            "significantly worse than champion version 1 (of 100 test images, only the champion got 5",
        ),
        (make_contender(*range(50), test_data="b2"), "2", "first champion on changed test data"),
        (GOOD._replace(accepted=False), "1", "test accuracy 0.9500 is below evaluate.min_accuracy"),
        (GOOD._replace(recalls={"left": 0.6}), "1", "recall of class 'left' is 0.6000, below track.min_recall 0.7"),
        (GOOD._replace(has_parity=False), "1", "an export is not within its budget"),
    ],
    ids=[
        "better",
        "the same",
        "as good",
        "worse by chance",
        "worse",
        "other test data",
        "below the floor",
        "a class is lost",
        "without parity",
    ],
)
def test_alias_follows_the_decision_and_the_reason_is_recorded(root, challenger, champion, reason):
    """The champion's alias moves or stays, and run and version tell why."""
    track(root)
    store, run, version, _ = track(root, "s2", challenger)

    assert get_champion(store) == champion
    assert store.client.get_run(run.info.run_id).data.tags["promotion"].startswith(reason)
    assert store.client.get_model_version("digits", version.version).description.startswith(reason)


def remove_file(path):
    path.unlink()


def write_nonsense(path):
    path.write_bytes(b"\xff\xfe,\n")


def drop_last_row(path):
    path.write_text("".join(path.read_text(encoding="utf-8").splitlines(keepends=True)[:-1]), encoding="utf-8")


@pytest.mark.parametrize(
    ("spoil", "problem"),
    [
        (remove_file, "are gone"),
        (write_nonsense, "cannot be read"),
        (drop_last_row, "are of 99 images instead of 100"),
    ],
)
@pytest.mark.parametrize(
    ("challenger", "champion", "verdict"),
    [
        (make_contender(*range(5, 10)), "2", "0.9500 is not lower than the champion's 0.9500"),
        (make_contender(*range(6)), "1", "0.9400 is lower than the champion's 0.9500"),
    ],
    ids=["as good", "worse"],
)
def test_champion_without_its_predictions_is_compared_by_accuracy(root, spoil, problem, challenger, champion, verdict):
    """When the champion's run has lost its predictions, the accuracies decide, and the reason says so."""
    _, first, _, _ = track(root)
    spoil(root / "mlartifacts/digits" / first.info.run_id / "artifacts/reports/evaluation/predictions.csv")
    store, _, _, decision = track(root, "s2", challenger)

    assert get_champion(store) == champion
    assert decision.reason == f"the predictions of champion version 1 {problem}, so accuracy alone decides: {verdict}"


def test_champion_whose_run_is_gone_is_compared_by_accuracy(root):
    """A champion outlives its run: MLflow deletes runs for good without their registered models."""
    _, first, _, _ = track(root)
    remove_for_good(root, first)
    store, _, _, decision = track(root, "s2", make_contender(*range(6)))

    assert get_champion(store) == "1"
    assert decision.reason.startswith("the predictions of champion version 1 are gone")


def test_champion_that_was_registered_by_hand_is_replaced(root):
    """A champion of which no test data is recorded cannot have been measured on the same."""
    store, _, version, _ = track(root, challenger=GOOD._replace(accepted=False))
    by_hand = store.client.create_model_version("digits", version.source)
    store.client.set_registered_model_alias("digits", "champion", by_hand.version)
    _, _, _, decision = track(root, "s2")

    assert get_champion(store) == "3"
    assert decision.reason.startswith("first champion on changed test data")


def test_decision_is_not_taken_again(root):
    """Tracking an old state once more leaves a later champion in place."""
    track(root)
    track(root, "s2", make_contender(*range(4)))
    store, _, _, decision = track(root)

    assert get_champion(store) == "2"
    assert decision.is_promoted
    assert "first champion" in decision.reason


def test_moved_project_gets_its_run_anew_and_finds_the_old_one_on_return(root, monkeypatch):
    """MLflow looks for artifacts where they were: elsewhere the state is logged anew, back home it is found."""
    _, first, _, _ = track(root)
    moved = root / "moved"
    moved.mkdir()
    shutil.move(root / "mlflow.db", moved)
    monkeypatch.setenv("DVC_ROOT", str(moved))
    _, elsewhere, _, _ = track(root)
    shutil.move(moved / "mlflow.db", root)
    monkeypatch.setenv("DVC_ROOT", str(root))
    store, back, _, _ = track(root)

    assert elsewhere.info.artifact_uri.startswith((moved / "mlartifacts").as_uri())
    assert [run.info.run_id for run in list_runs(store)] == [first.info.run_id] == [back.info.run_id]


def test_two_writers_at_once_lose_nothing(root):
    """Two states tracked at the same moment, before there is a store, leave two runs, two versions, one champion."""
    (root / "mlflow.db").unlink()
    script = "import sys, pathlib, stores; stores.track(pathlib.Path.cwd(), sys.argv[1])"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])}
    writers = [
        subprocess.Popen([sys.executable, "-c", script, state], cwd=root, env=environment, stderr=subprocess.PIPE)
        for state in ("s1", "s2")
    ]
    complaints = [writer.communicate(timeout=120)[1] for writer in writers]
    with tracking.open_store() as store:
        runs = list_runs(store)
        versions = store.client.search_model_versions("name = 'digits'")

    assert [writer.returncode for writer in writers] == [0, 0], complaints
    assert sorted(run.data.tags[tracking.STATE_TAG] for run in runs) == ["s1", "s2"]
    assert sorted(str(version.version) for version in versions) == ["1", "2"]
    assert get_champion(store) == "2"


def test_champion_without_files_is_replaced(root):
    """When the champion's files are gone, the next sound model takes over."""
    _, run, _, _ = track(root)
    shutil.rmtree(root / "mlartifacts" / "digits" / "models")
    store, _, _, decision = track(root, "s2", make_contender(*range(6)))

    assert run.info.status == "FINISHED"
    assert get_champion(store) == "2"
    assert decision.reason == "first champion, test accuracy 0.9400"


def test_registered_model_answers_on_raw_pixels(root):
    """The champion loads as a Python function that takes uint8 images."""
    track(root)
    images = np.array([[[0, 2], [10, 30]]], np.uint8)
    mlflow.set_tracking_uri(f"sqlite:///{root / 'mlflow.db'}")
    answer = mlflow.pyfunc.load_model("models:/digits@champion").predict(images)

    assert json.loads(json.dumps(answer["probabilities"].tolist())) == [[1.0, 20.0]]


@pytest.mark.parametrize("is_relative", [False, True], ids=["absolute", "relative"])
def test_tracking_uri_of_the_environment_wins(root, monkeypatch, empty_store, is_relative):
    """MLFLOW_TRACKING_URI names another store; a relative path is one from the project's root, wherever DVC runs."""
    other = root / "other.db"
    shutil.copy(empty_store, other)
    elsewhere = root / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "report.json").write_text("{}", encoding="utf-8")
    monkeypatch.chdir(elsewhere)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///other.db" if is_relative else f"sqlite:///{other}")
    store, run, _, _ = track(root)

    assert [found.info.run_id for found in list_runs(store)] == [run.info.run_id]
    assert MlflowClient(f"sqlite:///{root / 'mlflow.db'}").get_experiment_by_name("digits") is None
    assert sorted(path.name for path in elsewhere.iterdir()) == ["report.json", "reports"]


def test_unusable_store_is_told_in_one_line(root, monkeypatch):
    """A store that cannot take the run is told in one line that says how to retry."""
    path = root / "unusable.db"
    path.write_bytes(b"not a database at all" * 100)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{path}")
    with pytest.raises(TrackingError) as refusal:
        track(root)

    assert refusal.value.hint.endswith("nothing is logged twice")
    assert "\n" not in str(refusal.value)


def test_only_the_creation_of_a_store_does_not_wait_for_the_disk(tmp_path):
    """SQLite's usual care (2, FULL) is left out in the block, and there again after it."""

    def read_pragma():
        with create_engine(f"sqlite:///{tmp_path / 'any.db'}").connect() as connection:
            return connection.execute(text("PRAGMA synchronous")).scalar()

    before = read_pragma()
    with tracking.leave_out_syncs():
        within = read_pragma()

    assert (before, within, read_pragma()) == (2, 0, 2)
