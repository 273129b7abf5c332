"""One run for each pipeline state, with everything in it, whatever earlier attempts have left."""

import shutil
from pathlib import Path

import pytest
from stores import GOOD, list_runs, make_model, make_record, track

from stages.lib.core.files import write_csv
from stages.lib.tracking.runs import STATE_TAG, ensure_experiment, find_run, log_run
from stages.lib.tracking.store import open_store
from stages.track import collect_history, describe_layers, find_best_epoch


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


@pytest.mark.parametrize(("marks", "best"), [("010", {"best_epoch/train": 2.0}), (None, {})])
def test_kept_epoch_is_a_metric_and_the_columns_are_curves(tmp_path, marks, best):
    """Early stopping's choice is one figure of the run; without early stopping there is none."""
    header = ["epoch", "loss", "accuracy", *(["best"] if marks else [])]
    write_csv(tmp_path / "history.csv", header, [[n, n / 2, 0.5, *(marks[n - 1] if marks else "")] for n in (1, 2, 3)])

    assert find_best_epoch(tmp_path) == best
    assert collect_history(tmp_path) == {"loss/train": [0.5, 1.0, 1.5], "accuracy/train": [0.5, 0.5, 0.5]}


@pytest.mark.parametrize(
    ("conv_blocks", "hidden_units", "layers"),
    [
        ([], [20], ["20"]),
        ([], [32, 16], ["32-16"]),
        ([], [], []),
        ([[16], [32]], [20], ["conv 16-32, 20"]),
        ([[12, 12], [24, 24]], [], ["conv 12+12-24+24"]),
    ],
)
def test_run_is_named_by_its_layers(conv_blocks, hidden_units, layers):
    """Blocks of convolutions before hidden units; what is not there is not told."""
    assert describe_layers({"conv_blocks": conv_blocks, "hidden_units": hidden_units}) == layers


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


def test_interrupted_run_is_replaced(root):
    """What an interrupted attempt left is deleted, and the state gets a whole run."""
    with open_store() as store:
        experiment_id = ensure_experiment(store, "digits")
        left = store.client.create_run(experiment_id, tags={STATE_TAG: "s1"})
    store, run, _, _ = track(root)

    assert [found.info.run_id for found in list_runs(store)] == [run.info.run_id]
    assert run.info.run_id != left.info.run_id


def test_failure_midway_leaves_no_finished_run(root):
    """A run whose logging fails does not count; the next attempt logs it whole."""
    record = make_record()._replace(artifacts=[Path("gone.json")])
    with open_store() as store:
        experiment_id = ensure_experiment(store, "digits")
        with pytest.raises(FileNotFoundError):
            log_run(store, experiment_id, record, make_model(root, GOOD))
        found_after_failure = find_run(store, experiment_id, "digits", "s1")
    store, _, _, _ = track(root)

    assert found_after_failure is None
    assert [run.info.status for run in list_runs(store)] == ["FINISHED"]


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
