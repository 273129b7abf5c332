"""Record the pipeline's state as one MLflow run, register its model and decide on the champion.

Reads   dvc.lock, params.yaml, reports, models, data/normalized/dataset.json, data/raw/test
Writes  the MLflow store: mlflow.db and mlartifacts in the project's root, or MLFLOW_TRACKING_URI
        reports/state.json   the state: params, MD5s of outputs, and their digest, by which the run is found
"""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from stages.lib.core.dvc_lock import LOCK_PATH, State, load_lock, require_current
from stages.lib.core.files import read_csv, read_json, write_json
from stages.lib.core.git import run_git
from stages.lib.core.hashing import hash_output
from stages.lib.core.params import PARAMS_PATH, Section, flatten_params, load_params
from stages.lib.runner.stage import main
from stages.lib.runner.stage_times import describe_times, read_times
from stages.lib.runner.tested_machines import find_untested_here
from stages.lib.tracking.manifest import describe_environment
from stages.lib.tracking.promotion import PREDICTIONS_PATH, Candidate, Criteria, describe_task, read_predictions
from stages.lib.tracking.registry import promote, register
from stages.lib.tracking.runs import UNKNOWN, ModelRecord, RunRecord, add_commit, ensure_experiment, find_run, log_run
from stages.lib.tracking.store import open_store

_REPORTS_DIR = Path("reports")
_EXPORT_DIR = Path("models/export")
_DATASET_PATH = Path("data/normalized/dataset.json")
_RAW_TEST_DIR = Path("data/raw/test")
# Outputs without which there is nothing to track: of the first stages and of the last.
_NEEDED = ("data/raw", "data/normalized", "models/model.keras", "models/export", "reports/metrics.json")
# Outputs that a run carries; data it only names.
_LOGGED = ("models/", "reports/")
# A run logs all of params.yaml.
_OTHER_SECTIONS = ("ingest", "validate", "normalize", "train", "evaluate", "export")
# Each export's largest |Δp| in each runtime, and the like.
_MEASURED_NAME = "parity_measured.json"
_PARITY_NAME = "parity/parity.json"


class TrackParams(Section):
    """The `track` section of params.yaml."""

    # Its artifacts go into a folder of that name.
    experiment: str | None = Field(
        pattern=r"^[^./\\\x00-\x1f\x7f][^/\\\x00-\x1f\x7f]*$",
        description="a name without slashes that begins with no dot, or null for the data set's name",
    )
    # MLflow takes no slash and no colon, and has the name in quotes where it looks for versions.
    registered_model: str | None = Field(
        pattern=r"^[^/:'\"\x00-\x1f\x7f]+$",
        description="a name without slashes, colons and quotes, or null for the data set's name",
    )
    significance: float = Field(gt=0, le=0.5, description="a number above 0, at most 0.5")
    max_accuracy_drop: float = Field(ge=0, le=1, description="a number from 0 to 1")
    min_recall: float = Field(ge=0, le=1, description="a number from 0 to 1")

    def name_experiment(self, dataset_name: str) -> str:
        """The experiment that runs go to."""
        return self.experiment or _make_name(dataset_name)

    def name_model(self, dataset_name: str) -> str:
        """The registered model that versions go to."""
        return self.registered_model or _make_name(dataset_name)

    @property
    def criteria(self) -> Criteria:
        """What a candidate must meet."""
        return Criteria(self.significance, self.max_accuracy_drop, self.min_recall)


def _make_name(dataset_name: str) -> str:
    """A data set's name as MLflow takes it."""
    return re.sub(r"^[.]|[/\\:'\"\x00-\x1f\x7f]", "-", dataset_name)


def collect_metrics(reports_dir: Path) -> dict[str, float]:
    """What people compare: MLflow shows a few metrics at once, in the order of the alphabet.

    reports_dir: with metrics.json and parity/parity.json. An export that is withheld has no metrics.
    """
    metrics, parity = read_json(reports_dir / "metrics.json"), read_json(reports_dir / _PARITY_NAME)
    measured = read_measured(reports_dir)
    collected = {
        "accuracy/test": float(metrics["accuracy"]),
        "calibration_error/test": float(metrics["ece"]),
        "loss/test": float(metrics["loss"]),
    }
    exported = {name: report for name, report in parity.items() if not report["withheld"]}
    for name, report in exported.items():
        collected |= {f"export_{key}/{name}": float(report[key]) for key in ("accuracy", "bytes", "same_class")}
        if "microcontroller" in report:
            collected[f"export_arena_bytes/{name}"] = float(report["microcontroller"]["arena_bytes"])
            if measured.get("arena_bytes") is not None:  # TensorFlow Lite Micro is installed
                collected[f"export_measured_arena_bytes/{name}"] = float(measured["arena_bytes"])
    for name, errors in measured.get("max_abs_error", {}).items():
        if name in exported:
            collected[f"export_max_abs_error/{name}"] = max(errors.values())
    return collected


def list_withheld(reports_dir: Path) -> str:
    """The exports that are withheld, each with its reason, as a tag says it; empty if none is."""
    parity = read_json(reports_dir / _PARITY_NAME)
    return "\n".join(f"{name}: {report['withheld']}" for name, report in parity.items() if report["withheld"])


def has_required_exports(reports_dir: Path) -> bool:
    """Whether each export that is required is within its budget."""
    parity = read_json(reports_dir / _PARITY_NAME)
    return not any(report["required"] and report["withheld"] for report in parity.values())


def read_measured(reports_dir: Path) -> dict[str, Any]:
    """What `export` measured and nothing hashes; empty if it did so for other outputs, these being restored by DVC."""
    path = reports_dir / _MEASURED_NAME
    measured = read_json(path) if path.exists() else {}
    return measured if measured.get("parity_md5") == hash_output(reports_dir / _PARITY_NAME) else {}


def collect_history(reports_dir: Path) -> dict[str, list[float]]:
    """Each column of history.csv as a metric: `accuracy` is of the training split, `val_accuracy` of validation."""
    rows = read_csv(reports_dir / "history.csv")
    names = {
        "loss": "loss/train",
        "accuracy": "accuracy/train",
        "val_loss": "loss/validation",
        "val_accuracy": "accuracy/validation",
    }
    return {name: [float(row[column]) for row in rows] for column, name in names.items() if column in rows[0]}


def find_best_epoch(reports_dir: Path) -> dict[str, float]:
    """The number of the epoch whose weights early stopping kept, as a metric; none without early stopping."""
    best = [float(row["epoch"]) for row in read_csv(reports_dir / "history.csv") if row.get("best") == "1"]
    return {"best_epoch/train": best[0]} if best else {}


def collect_recalls(evaluation: Mapping[str, Any]) -> dict[str, float]:
    """Each class's share of test images that were recognized, 0..1; without classes that have no test image."""
    return {name: of_class["recall"] for name, of_class in evaluation["classes"].items() if of_class["images"]}


def describe_layers(train: Mapping[str, Any]) -> list[str]:
    """The layers that params ask for, for a run's name: `20`, or `conv 12+12-24+24, 20` with two blocks."""
    units = "-".join(map(str, train["hidden_units"]))
    blocks = "-".join("+".join(map(str, filters)) for filters in train["conv_blocks"])
    layers = ", ".join(filter(None, [blocks and f"conv {blocks}", units]))
    return [layers] if layers else []


def describe_run(state: State, dataset_name: str) -> RunRecord:
    """The run that stands for a state."""
    experiment = os.environ.get("DVC_EXP_NAME", "")
    test_data = hash_output(_RAW_TEST_DIR)
    times = read_times(load_params())
    return RunRecord(
        name=experiment or " ".join([dataset_name, *describe_layers(load_params()["train"]), state.digest[:7]]),
        state=state.digest,
        tags={
            "git.commits": find_state_commit(),
            "git.is_dirty": tell_dirty(),
            "dvc.experiment": experiment,
            "exports.withheld": list_withheld(_REPORTS_DIR),
            "machine.untested": find_untested_here(),
            **{f"md5/{path}": md5 for path, md5 in state.outputs.items()},
        },
        params=flatten_params(state.params),
        metrics=collect_metrics(_REPORTS_DIR) | find_best_epoch(_REPORTS_DIR) | describe_times(times),
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
            *([_REPORTS_DIR / _MEASURED_NAME] if read_measured(_REPORTS_DIR) else []),
        ],
    )


def describe_model() -> ModelRecord:
    """The exported ONNX model, an example of its input, and how it stands for promotion."""
    evaluation = read_json(_REPORTS_DIR / "evaluation/evaluation.json")
    golden = read_json(_EXPORT_DIR / "golden.json")
    image = np.frombuffer(bytes.fromhex(golden["images"][0]), np.uint8)
    shape = golden["image_size"] if golden.get("channels", 1) == 1 else [*golden["image_size"], 3]
    return ModelRecord(
        onnx_path=_EXPORT_DIR / "model.onnx",
        example=image.reshape(1, *shape),
        candidate=Candidate(
            task=describe_task(read_json(_DATASET_PATH)),
            accuracy=evaluation["accuracy"],
            test_data=hash_output(_RAW_TEST_DIR),
            accepted=evaluation["accepted"],
            has_parity=has_required_exports(_REPORTS_DIR),
            lowest_recall=min(((recall, name) for name, recall in collect_recalls(evaluation).items()), default=None),
            predictions=read_predictions(PREDICTIONS_PATH),
        ),
    )


def find_state_commit() -> str:
    """The commit that this state belongs to: an experiment's baseline, else HEAD; unknown where git does not tell."""
    return os.environ.get("DVC_EXP_BASELINE_REV") or (_is_in_head() and run_git("rev-parse", "HEAD")) or UNKNOWN


def tell_dirty() -> str:
    """Whether a tracked file is not as HEAD has it, as a tag says it: true, false, or unknown if git does not tell."""
    changed = run_git("status", "--porcelain", "--untracked-files=no")
    return UNKNOWN if changed is None or not _is_in_head() else str(bool(changed)).lower()


def _is_in_head() -> bool:
    """Whether the repository has this project: one around an unpacked archive, a home folder's say, has not."""
    return run_git("cat-file", "-e", "HEAD:./dvc.yaml") is not None


def run(params: TrackParams, state_path: Path = _REPORTS_DIR / "state.json") -> None:
    """Log the state unless it is logged, register its model unless it is registered, decide unless it is decided."""
    state = load_lock().state
    require_current(state, load_params(), _NEEDED, _LOGGED)
    dataset_name = read_json(_DATASET_PATH)["name"]
    experiment, model_name = params.name_experiment(dataset_name), params.name_model(dataset_name)
    model = describe_model()
    with open_store() as store:
        experiment_id = ensure_experiment(store, experiment)
        known = find_run(store, experiment_id, model_name, state.digest)
        own = known or log_run(store, experiment_id, describe_run(state, dataset_name), model)
        logged, version = register(store, experiment_id, model_name, own, model.candidate)
        is_new = known is None and logged.info.run_id == own.info.run_id
        add_commit(store, logged, find_state_commit())
        is_experiment = bool(os.environ.get("DVC_EXP_NAME"))
        decision = promote(store, logged, version, model.candidate, params.criteria, is_experiment=is_experiment)
    write_json(state_path, state._asdict())
    print(
        f"track: run {logged.info.run_name!r} {'logged' if is_new else 'was already there'}; {model_name} version "
        f"{version.version} is {'the champion' if decision.is_promoted else 'not promoted'}: {decision.reason}"
    )


if __name__ == "__main__":
    main("track", TrackParams, run, also_reads=_OTHER_SECTIONS)
