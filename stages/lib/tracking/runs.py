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
from numpy.typing import NDArray

from stages.lib.core.paths import find_root
from stages.lib.tracking.promotion import Candidate
from stages.lib.tracking.store import Run, Store, create_unless_there, mlflow, repeat_if_refused, to_path

STATE_TAG = "pipeline.state"
CLONE_TAG = "pipeline.clone"  # digest of the machine and the folder that logged the run
COMMITS_TAG = "git.commits"
UNKNOWN = "unknown"  # what a tag says where git does not tell
# What the registered model needs to answer: MLflow would import the whole environment to find out.
_MODEL_REQUIREMENTS = [f"{package}=={version(package)}" for package in ("mlflow", "numpy", "onnxruntime", "pandas")]
# Asked for with a request, it is answered in place of images.
_ABOUT = mlflow.types.ParamSpec("about", mlflow.types.DataType.boolean, default=False)


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
    example: NDArray[np.uint8]  # raw images (N, H, W) or (N, H, W, 3)
    candidate: Candidate


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
    """Log a new run, which counts as finished only once everything is in it."""
    tags = {**record.tags, STATE_TAG: record.state, CLONE_TAG: _describe_clone()}
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
        mlflow.pyfunc.log_model(
            name="classifier",
            python_model=str(Path(__file__).with_name("served_model.py")),
            artifacts={"onnx": str(model.onnx_path)},
            # No inputs: MLflow would cast what a person sends to their type, 0.9 to 0, before the model sees it.
            signature=mlflow.models.ModelSignature(params=mlflow.types.ParamSchema([_ABOUT])),
            input_example=model.example,
            metadata={"task": model.candidate.task},
            pip_requirements=_MODEL_REQUIREMENTS,
        )
    return store.client.get_run(run_id)


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


def add_commit(store: Store, run: Run, commit: str) -> None:
    """Add a commit to those that lead to the run's state."""
    commits = run.data.tags.get(COMMITS_TAG, "").split()
    known = [known for known in commits if known != UNKNOWN]
    if commit not in [*commits, UNKNOWN]:
        set_run_tag(store, run, COMMITS_TAG, " ".join([*known, commit]))


def set_run_tag(store: Store, run: Run, tag: str, value: str) -> None:
    """Set a tag of a run."""
    repeat_if_refused(lambda: store.client.set_tag(run.info.run_id, tag, value))
