"""The MLflow store is created whole, opened by one process at a time, and reports an error in one line."""

import os
import shutil
import subprocess
import sys
import time

import mlflow
import pytest
from imports import ROOT
from mlflow import MlflowClient
from mlflow.store.model_registry.dbmodels.models import SqlModelVersionTag, SqlRegisteredModelAlias
from mlflow.store.tracking.dbmodels.models import SqlDataset, SqlTag
from sqlalchemy import create_engine, event, insert, text
from stores import enter_root, get_champion, list_runs, track

from stages.lib.core.errors import TrackingError
from stages.lib.tracking.registry import CHAMPION, DECISION_TAG
from stages.lib.tracking.runs import STATE_TAG
from stages.lib.tracking.store import leave_out_syncs, open_store


def test_store_whose_creation_was_killed_is_created_by_the_next(tmp_path, monkeypatch):
    """A store is there whole or not at all: MLflow can neither open nor complete one that was cut short."""
    enter_root(tmp_path, monkeypatch)
    create = "from stages.lib.tracking.store import open_store\nwith open_store(): pass"
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


def test_only_the_creation_of_a_store_does_not_wait_for_the_disk(tmp_path):
    """SQLite's usual care (2, FULL) is left out in the block, and there again after it."""

    def read_pragma():
        with create_engine(f"sqlite:///{tmp_path / 'any.db'}").connect() as connection:
            return connection.execute(text("PRAGMA synchronous")).scalar()

    before = read_pragma()
    with leave_out_syncs():
        within = read_pragma()

    assert (before, within, read_pragma()) == (2, 0, 2)


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


@pytest.mark.parametrize(
    ("table", "key"),
    [
        (SqlDataset, {"digest": "d2"}),
        (SqlTag, {"key": DECISION_TAG}),
        (SqlModelVersionTag, {"key": DECISION_TAG}),
        (SqlRegisteredModelAlias, {"alias": CHAMPION}),
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
    assert DECISION_TAG in found.data.tags
    assert store.client.get_model_version("digits", str(version.version)).tags["is_promoted"] == "true"
    assert get_champion(store) == str(version.version)


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
    with open_store() as store:
        runs = list_runs(store)
        versions = store.client.search_model_versions("name = 'digits'")

    assert [writer.returncode for writer in writers] == [0, 0], complaints
    assert sorted(run.data.tags[STATE_TAG] for run in runs) == ["s1", "s2"]
    assert sorted(str(version.version) for version in versions) == ["1", "2"]
    assert get_champion(store) == "2"
