"""Runs in the MLflow store: one for each pipeline state, found by the state's digest, logged whole or not at all."""

import hashlib
import platform
import sys
import time
from collections.abc import Iterable, Mapping
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
from numpy.typing import NDArray

from stages.lib.core.files import require_space
from stages.lib.core.paths import find_root
from stages.lib.tracking.promotion import Challenger
from stages.lib.tracking.store import Run, Store, create_unless_there, mlflow, repeat_if_refused, to_path

STATE_TAG = "pipeline.state"
CLONE_TAG = "pipeline.clone"  # digest of the machine and the folder that logged the run
COMMITS_TAG = "git.commits"
UNKNOWN = "unknown"  # what a tag says where git does not tell
# MLflow's own tag: the run's colour in lists and charts.
COLOR_TAG = "mlflow.runColor"

# Okabe and Ito's palette, told apart by everyone (https://jfly.uni-koeln.de/color/), without the yellow, which is faint
# on white. MLflow itself draws a colour by the run's id, and on the page of a single metric it does so in spite of the
# tag: of three runs, two have the same in one case out of ten.
_COLORS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#000000")

# At most, of a run without its files: rows in the store, an example and a description of the model.
_RUN_BYTES = 1 << 20
# What the registered model needs to answer: MLflow would import the whole environment to find out.
_MODEL_REQUIREMENTS = [f"{package}=={version(package)}" for package in ("mlflow", "numpy", "onnx", "onnxruntime")]


class RunRecord(NamedTuple):
    """All that a run records of a pipeline state."""

    name: str
    state: str  # digest of the state
    tags: dict[str, str]
    params: dict[str, Any]  # dotted names
    metrics: dict[str, float]
    history: dict[str, list[float]]  # by metric, one value per epoch
    datasets: dict[str, tuple[str, str]]  # context: name and digest
    manifest: dict[str, Any]  # the machine and the programs, of which nothing is hashed
    artifacts: list[Path]  # files and folders of the project's root


class ModelRecord(NamedTuple):
    """The model that a run registers."""

    onnx_path: Path
    example: NDArray[np.uint8]  # raw images (N, H, W)
    probabilities: NDArray[np.float32]  # the answer to them (N, classes)
    challenger: Challenger


def ensure_experiment(store: Store, name: str) -> str:
    """The id of the experiment, created if need be.

    MLflow fixes an experiment's artifact folder, as an absolute path, when it creates it. Where the project's folder
    has moved since, the experiment of the old place keeps its runs under another name until it moves back.
    """
    location = (store.artifacts_dir / name).as_uri() if store.artifacts_dir else None
    experiment = store.client.get_experiment_by_name(name)
    if location and experiment and experiment.artifact_location != location:
        store.client.rename_experiment(experiment.experiment_id, _name_left(name, experiment.artifact_location))
        experiment = store.client.get_experiment_by_name(_name_left(name, location))
        if experiment:
            store.client.rename_experiment(experiment.experiment_id, name)
    if experiment is None:
        create_unless_there(lambda: store.client.create_experiment(name, location))
        experiment = store.client.get_experiment_by_name(name)
    assert experiment, "it was there or has been created"
    return str(experiment.experiment_id)


def _name_left(name: str, artifact_location: str) -> str:
    return f"{name} (artifacts in {to_path(artifact_location)})"


def find_run(store: Store, experiment_id: str, model_name: str, state: str) -> Run | None:
    """Find the finished run of a pipeline state, and delete what failed or interrupted attempts have left.

    Two clones that share a server may log the same state at the same moment. Then the run that was registered first
    counts: the registry numbers versions one after another, so that all clones agree on it. Each clone deletes its own
    later run.
    """
    runs = store.client.search_runs([experiment_id], f"tags.`{STATE_TAG}` = '{state}'")
    finished = [run for run in runs if run.info.status == "FINISHED"]
    if len(finished) > 1:
        numbers = {run.info.run_id: list_version_numbers(store, model_name, run) for run in finished}
        finished.sort(key=lambda run: (numbers[run.info.run_id] or [sys.maxsize], run.info.start_time, run.info.run_id))
    for run in runs:
        if run not in finished[:1] and _is_left(store, run):
            _delete_run(store, model_name, run)
    return finished[0] if finished else None


def _is_left(store: Store, run: Run) -> bool:
    """Whether to delete a run that does not count; one that another clone may be logging now stays."""
    if not store.is_shared:  # and no other process writes to it
        return str(run.info.status) != "FINISHED"
    return run.data.tags.get(CLONE_TAG) == _describe_clone() or run.info.status in ("FAILED", "KILLED")


def _describe_clone() -> str:
    """The digest that tells this clone from others of the team, without the names of its machine and folder."""
    return hashlib.sha256(f"{platform.node()}:{find_root()}".encode()).hexdigest()[:16]


def list_version_numbers(store: Store, model_name: str, run: Run) -> list[int]:
    """The numbers of a run's registered versions, ascending."""
    versions = store.client.search_model_versions(f"name = '{model_name}' and run_id = '{run.info.run_id}'")
    return sorted(int(found.version) for found in versions)


def _delete_run(store: Store, model_name: str, run: Run) -> None:
    """Delete a run with its models, which MLflow would leave in the registry and among the experiment's models."""
    for number in list_version_numbers(store, model_name, run):
        store.client.delete_model_version(model_name, str(number))
    for model in store.client.search_logged_models([run.info.experiment_id], f"source_run_id = '{run.info.run_id}'"):
        store.client.delete_logged_model(model.model_id)
    store.client.delete_run(run.info.run_id)


def log_run(store: Store, experiment_id: str, record: RunRecord, model: ModelRecord) -> Run:
    """Log a new run, which counts as finished only once everything is in it.

    Raises:
        DataError: the disk has no room for its files, if the store is on this machine.
    """
    if store.artifacts_dir:
        require_space(
            store.artifacts_dir, estimate_size(record, model), "delete runs in MLflow's pages, then `mlflow gc`"
        )
    tags = {
        **record.tags,
        STATE_TAG: record.state,
        CLONE_TAG: _describe_clone(),
        COLOR_TAG: _choose_color(store, experiment_id),
    }
    with mlflow.start_run(experiment_id=experiment_id, run_name=record.name, tags=tags) as run:
        run_id = run.info.run_id
        mlflow.log_params(record.params)
        log_metrics(store, run_id, record.metrics, record.history)
        for context, (name, digest) in record.datasets.items():
            dataset = mlflow.data.meta_dataset.MetaDataset(  # type: ignore[abstract]  # instantiable, as documented
                mlflow.data.code_dataset_source.CodeDatasetSource({"mlflow.source.name": "dvc"}), name, digest
            )
            repeat_if_refused(partial(mlflow.log_input, dataset, context=context))
        store.client.log_dict(run_id, record.manifest, "manifest.json")
        for path in record.artifacts:
            store.client.log_artifact(run_id, path, str(path.parent) if path.parent.name else None)
        mlflow.onnx.log_model(
            onnx.load(model.onnx_path),
            name="classifier",
            signature=mlflow.models.infer_signature(model.example, model.probabilities),
            input_example=model.example,
            pip_requirements=_MODEL_REQUIREMENTS,
            save_as_external_data=False,  # one file, and none with a random name
            onnx_execution_providers=["CPUExecutionProvider"],
        )
    return store.client.get_run(run_id)


def estimate_size(record: RunRecord, model: ModelRecord) -> int:
    """Bytes of disk that a run takes: its files, the registered model, and what MLflow adds."""
    folders = [path for path in record.artifacts if path.is_dir()]
    paths = [*record.artifacts, model.onnx_path, *(path for folder in folders for path in folder.rglob("*"))]
    return _RUN_BYTES + sum(path.stat().st_size for path in paths if path.is_file())


def log_params(store: Store, run_id: str, params: Mapping[str, Any]) -> None:
    """Add params to a run."""
    store.client.log_batch(run_id, params=[mlflow.entities.Param(name, str(value)) for name, value in params.items()])


def log_metrics(
    store: Store, run_id: str, metrics: Mapping[str, float], history: Mapping[str, Iterable[float]]
) -> None:
    """Add metrics to a run, and those of `history` once for each epoch."""
    now = int(time.time() * 1000)  # milliseconds
    values = [mlflow.entities.Metric(name, value, now, 0) for name, value in metrics.items()]
    values += [
        mlflow.entities.Metric(name, value, now, epoch)
        for name, of in history.items()
        for epoch, value in enumerate(of, start=1)
    ]
    store.client.log_batch(run_id, metrics=values)


def _choose_color(store: Store, experiment_id: str) -> str:
    """The colour that follows the one of the newest run of any state."""
    newest = store.client.search_runs([experiment_id], f"tags.`{STATE_TAG}` LIKE '%'", max_results=1)
    color = newest[0].data.tags.get(COLOR_TAG) if newest else None
    return _COLORS[(_COLORS.index(color) + 1) % len(_COLORS)] if color in _COLORS else _COLORS[0]


def add_commit(store: Store, run: Run, commit: str) -> None:
    """Add a commit to those that lead to the run's state."""
    commits = run.data.tags.get(COMMITS_TAG, "").split()
    known = [known for known in commits if known != UNKNOWN]
    if commit not in [*commits, UNKNOWN]:
        set_run_tag(store, run, COMMITS_TAG, " ".join([*known, commit]))


def set_run_tag(store: Store, run: Run, tag: str, value: str) -> None:
    """Set a tag of a run."""
    repeat_if_refused(lambda: store.client.set_tag(run.info.run_id, tag, value))
