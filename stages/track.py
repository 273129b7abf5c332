"""Record the pipeline's state as one MLflow run, register its model and decide on the champion.

Reads   dvc.lock, params.yaml, reports, models, data/normalized/dataset.json, data/raw/test
Writes  the MLflow store: mlflow.db and mlartifacts in the project's root, or MLFLOW_TRACKING_URI
        reports/state.json   the state: params, MD5s of outputs, and their digest, by which the run is found
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from stages.lib.arrays import load_split
from stages.lib.dvc_lock import LOCK_PATH, State, read_state, require_current
from stages.lib.files import read_csv, read_json, write_json
from stages.lib.git import run_git
from stages.lib.hashing import hash_output
from stages.lib.manifest import describe_environment
from stages.lib.params import PARAMS_PATH, Section, flatten_params, load_params
from stages.lib.promotion import PREDICTIONS_PATH, Contender, Criteria, read_predictions
from stages.lib.runtimes import load_predictor
from stages.lib.stage import main
from stages.lib.stage_times import describe_times, read_times
from stages.lib.tracking import (
    ModelRecord,
    RunRecord,
    add_commit,
    ensure_experiment,
    ensure_model_version,
    find_run,
    log_run,
    open_store,
    promote,
)

_REPORTS_DIR = Path("reports")
_EXPORT_DIR = Path("models/export")
_RAW_TEST_DIR = Path("data/raw/test")
# Outputs that a run carries; data it only names.
_LOGGED = ("models/", "reports/")
# Test images that the registered model carries as its example.
_EXAMPLE_IMAGES = 2


class TrackParams(Section):
    """The `track` section of params.yaml."""

    experiment: str = Field(min_length=1, description="a name that is not empty")
    registered_model: str = Field(min_length=1, description="a name that is not empty")
    significance: float = Field(gt=0, le=0.5, description="a number above 0, at most 0.5")
    min_recall: float = Field(ge=0, le=1, description="a number from 0 to 1")


def collect_metrics(reports_dir: Path) -> dict[str, float]:
    """Test metrics and each export's parity; what differs between machines if it was measured here, not restored."""
    metrics, parity = read_json(reports_dir / "metrics.json"), read_json(reports_dir / "parity.json")
    collected = {f"test/{name}": float(metrics[name]) for name in ("accuracy", "loss", "expected_calibration_error")}
    for name, report in parity.items():
        collected |= {f"parity/{name}/{key}": float(report[key]) for key in ("accuracy", "bytes", "same_class")}
        arena_bytes = report.get("microcontroller", {}).get("arena_bytes")
        if arena_bytes is not None:
            collected[f"parity/{name}/arena_bytes"] = float(arena_bytes)
    measured_path = reports_dir / "parity_measured.json"
    measured = read_json(measured_path) if measured_path.exists() else {}
    if measured.get("parity_md5") == hash_output(reports_dir / "parity.json"):
        for name, errors in measured["max_abs_error"].items():
            collected[f"parity/{name}/max_abs_error"] = max(errors.values())
            collected |= {f"parity/{name}/{runtime}/max_abs_error": error for runtime, error in errors.items()}
        for pair, steps in measured.get("integer_steps", {}).items():
            collected[f"parity/integer_steps/{pair}"] = float(steps)
    return collected


def collect_history(reports_dir: Path) -> dict[str, list[float]]:
    """Each column of history.csv as a metric: `accuracy` is of the training split, `val_accuracy` of validation."""
    rows = read_csv(reports_dir / "history.csv")
    splits = {"val_loss": "validation/loss", "val_accuracy": "validation/accuracy"}
    return {
        splits.get(column, f"train/{column}"): [float(row[column]) for row in rows]
        for column in rows[0]
        if column != "epoch"
    }


def collect_recalls(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Each class's share of test images that were recognized, 0..1; without classes that have no test image."""
    return {name: of_class["recall"] for name, of_class in metrics["classes"].items() if of_class["images"]}


def describe_run(state: State, dataset_name: str) -> RunRecord:
    """The run that stands for a state."""
    commit = find_commit()
    experiment = os.environ.get("DVC_EXP_NAME", "")
    units = "-".join(map(str, state.params["train"]["hidden_units"]))
    test_data = hash_output(_RAW_TEST_DIR)
    times = read_times(load_params())
    return RunRecord(
        name=experiment or f"{dataset_name} {units} {state.digest[:7]}",
        state=state.digest,
        tags={
            "git.commits": commit,
            "git.is_dirty": str(bool(run_git("status", "--porcelain", "--untracked-files=no"))).lower(),
            "dvc.experiment": experiment,
            **{f"md5/{path}": md5 for path, md5 in state.outputs.items()},
        },
        params=flatten_params(state.params),
        metrics=collect_metrics(_REPORTS_DIR) | describe_times(times),
        history=collect_history(_REPORTS_DIR),
        datasets={
            "training": (dataset_name, state.outputs["data/normalized"].removesuffix(".dir")),
            "test": (dataset_name, test_data.removesuffix(".dir")),
        },
        manifest={**describe_environment(times), "params": load_params()},
        artifacts=[
            PARAMS_PATH,
            LOCK_PATH,
            *(Path(path) for path in state.outputs if path.startswith(_LOGGED)),
        ],
    )


def describe_model() -> ModelRecord:
    """The exported ONNX model, an example that it answers, and how it stands for promotion."""
    metrics, parity = read_json(_REPORTS_DIR / "metrics.json"), read_json(_REPORTS_DIR / "parity.json")
    onnx_path = _EXPORT_DIR / "model.onnx"
    example = np.array(load_split(_RAW_TEST_DIR).images[:_EXAMPLE_IMAGES])
    return ModelRecord(
        onnx_path=onnx_path,
        example=example,
        probabilities=load_predictor(onnx_path)(example),
        contender=Contender(
            accuracy=metrics["accuracy"],
            test_data=hash_output(_RAW_TEST_DIR),
            accepted=metrics["accepted"],
            has_parity=all(report["within_budget"] for report in parity.values()),
            recalls=collect_recalls(metrics),
            predictions=read_predictions(PREDICTIONS_PATH),
        ),
    )


def find_commit() -> str:
    """The commit that this state belongs to: an experiment's baseline, else HEAD; empty outside git."""
    return os.environ.get("DVC_EXP_BASELINE_REV") or run_git("rev-parse", "HEAD") or ""


def run(params: TrackParams, state_path: Path = _REPORTS_DIR / "state.json") -> None:
    """Log the state unless it is logged, register its model unless it is registered, decide unless it is decided."""
    state = read_state(LOCK_PATH.read_text(encoding="utf-8"))
    require_current(state, load_params(), _LOGGED)
    dataset_name = read_json(Path("data/normalized/dataset.json"))["name"]
    model = describe_model()
    with open_store() as store:
        experiment_id = ensure_experiment(store, params.experiment)
        known = find_run(store, experiment_id, state.digest)
        logged = known or log_run(store, experiment_id, describe_run(state, dataset_name), model)
        add_commit(store, logged, find_commit())
        version = ensure_model_version(store, params.registered_model, logged, model.contender)
        decision = promote(store, logged, version, model.contender, Criteria(params.significance, params.min_recall))
    write_json(state_path, state._asdict())
    print(
        f"track: run {logged.info.run_name!r} {'was already there' if known else 'logged'}; "
        f"{params.registered_model} version {version.version} is {'' if decision.is_promoted else 'not '}"
        f"promoted: {decision.reason}"
    )


if __name__ == "__main__":
    main("track", TrackParams, run)
