"""The MLflow store: one run per pipeline state, one model version per run, one champion."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

# Read while the package is imported.
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
os.environ["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] = "false"
# A server that does not answer is said to be so after seconds, not after minutes.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")
# Neither bars nor the diary of the store's tables: a stage says in a line what it did.
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")

import mlflow
import mlflow.onnx
import onnx
from mlflow import MlflowClient
from mlflow.data.code_dataset_source import CodeDatasetSource
from mlflow.data.meta_dataset import MetaDataset
from mlflow.entities import Metric, Run
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.models import infer_signature
from sqlalchemy.exc import SQLAlchemyError

from stages.lib.errors import TrackingError
from stages.lib.places import resolve
from stages.lib.promotion import Contender, Decision, decide
from stages.lib.urls import hide_password

STATE_TAG = "pipeline.state"
COMMITS_TAG = "git.commits"
DECISION_TAG = "promotion"
CHAMPION = "champion"
# MLflow's own tag: the run's colour in lists and charts.
COLOR_TAG = "mlflow.runColor"

# Okabe and Ito's palette, told apart by everyone (https://jfly.uni-koeln.de/color/), without the yellow, which is faint
# on white. MLflow itself draws a colour by the run's id: of three runs, two have the same in one case out of ten.
_COLORS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#000000")

# What the registered model needs to answer: MLflow would import the whole environment to find out.
_MODEL_REQUIREMENTS = [f"{package}=={version(package)}" for package in ("mlflow", "numpy", "onnx", "onnxruntime")]


class RunRecord(NamedTuple):
    """All that one run says of a pipeline state."""

    name: str
    state: str  # digest of the state
    tags: dict[str, str]
    params: dict[str, Any]  # dotted names
    metrics: dict[str, float]
    history: dict[str, list[float]]  # by metric, one value per epoch
    datasets: dict[str, tuple[str, str]]  # context: name and digest
    artifacts: list[Path]  # files and folders of the project's root


class ModelRecord(NamedTuple):
    """The model that a run registers."""

    onnx_path: Path
    example: NDArray[np.uint8]  # raw images (N, H, W)
    probabilities: NDArray[np.float32]  # the answer to them (N, classes)
    contender: Contender


class Store(NamedTuple):
    """An MLflow store, open."""

    client: MlflowClient
    artifacts_dir: Path | None  # where a SQLite store's artifacts lie; a server decides for itself


@contextmanager
def open_store() -> Iterator[Store]:
    """The store at MLFLOW_TRACKING_URI, else mlflow.db in the project's root.

    A relative path of a SQLite store is relative to that root, too: DVC runs experiments in folders that it removes.
    It runs several at once, too: a SQLite store is open to one of them at a time, the others wait.

    Raises:
        TrackingError: whatever goes wrong with it inside the block.
    """
    given_uri = os.environ.get("MLFLOW_TRACKING_URI")
    kind, _, path = (given_uri or "sqlite:///mlflow.db").partition(":///")
    is_local = kind == "sqlite"
    uri = f"sqlite:///{resolve(path)}" if is_local else str(given_uri)
    mlflow.set_tracking_uri(uri)
    try:
        with FileLock(f"{resolve(path)}.lock") if is_local else nullcontext():
            yield Store(MlflowClient(uri), resolve("mlartifacts") if is_local else None)
    except (MlflowException, SQLAlchemyError) as error:
        raise TrackingError(
            f"the MLflow store {hide_password(uri)}",
            expected="it to take the run",
            got=str(error).splitlines()[0],
            do="put that right, then `python -m stages.track`; nothing is logged twice",
        ) from error
    finally:
        # MLflow has put the address into the environment: it must not pass for one that was given.
        mlflow.set_tracking_uri(given_uri)  # type: ignore[arg-type]  # None takes it out again


def ensure_experiment(store: Store, name: str) -> str:
    """The id of the experiment, created if need be.

    MLflow fixes an experiment's artifact folder, as an absolute path, when it creates it. Where the project's folder
    has moved since, the experiment of the old place keeps its runs under another name until it moves back.
    """
    experiment = store.client.get_experiment_by_name(name)
    if store.artifacts_dir is None:
        return str(experiment.experiment_id if experiment else store.client.create_experiment(name))
    location = (store.artifacts_dir / name).as_uri()
    if experiment and experiment.artifact_location != location:
        store.client.rename_experiment(experiment.experiment_id, _name_left(name, experiment.artifact_location))
        experiment = store.client.get_experiment_by_name(_name_left(name, location))
        if experiment:
            store.client.rename_experiment(experiment.experiment_id, name)
    return str(experiment.experiment_id if experiment else store.client.create_experiment(name, location))


def _name_left(name: str, artifact_location: str) -> str:
    return f"{name} (artifacts in {_to_path(artifact_location)})"


def find_run(store: Store, experiment_id: str, state: str) -> Run | None:
    """The finished run of a pipeline state; what an interrupted attempt left is deleted."""
    finished = None
    for run in store.client.search_runs([experiment_id], f"tags.`{STATE_TAG}` = '{state}'"):
        if run.info.status == "FINISHED":
            finished = run
        else:
            store.client.delete_run(run.info.run_id)
    return finished


def log_run(store: Store, experiment_id: str, record: RunRecord, model: ModelRecord) -> Run:
    """A new run with everything in it; it counts as finished only once all is there."""
    tags = {**record.tags, STATE_TAG: record.state, COLOR_TAG: _choose_color(store, experiment_id)}
    with mlflow.start_run(experiment_id=experiment_id, run_name=record.name, tags=tags) as run:
        run_id = run.info.run_id
        mlflow.log_params(record.params)
        store.client.log_batch(run_id, metrics=list(_iterate_metrics(record)))
        for context, (name, digest) in record.datasets.items():
            source = CodeDatasetSource({"mlflow.source.name": "dvc"})
            dataset = MetaDataset(source, name, digest)  # type: ignore[abstract]  # instantiable, as documented
            mlflow.log_input(dataset, context=context)
        for path in record.artifacts:
            store.client.log_artifact(run_id, path, str(path.parent) if path.parent.name else None)
        mlflow.onnx.log_model(
            onnx.load(model.onnx_path),
            name="classifier",
            signature=infer_signature(model.example, model.probabilities),
            input_example=model.example,
            pip_requirements=_MODEL_REQUIREMENTS,
            save_as_external_data=False,  # one file, and none with a random name
            onnx_execution_providers=["CPUExecutionProvider"],
        )
    return store.client.get_run(run_id)


def _choose_color(store: Store, experiment_id: str) -> str:
    """The colour that follows the newest run's."""
    newest = store.client.search_runs([experiment_id], max_results=1)
    color = newest[0].data.tags.get(COLOR_TAG) if newest else None
    return _COLORS[(_COLORS.index(color) + 1) % len(_COLORS)] if color in _COLORS else _COLORS[0]


def _iterate_metrics(record: RunRecord) -> Iterator[Metric]:
    now = int(time.time() * 1000)  # milliseconds
    for name, value in record.metrics.items():
        yield Metric(name, value, now, 0)
    for name, values in record.history.items():
        for epoch, value in enumerate(values, start=1):
            yield Metric(name, value, now, epoch)


def add_commit(store: Store, run: Run, commit: str) -> None:
    """Note that this commit, too, leads to the run's state."""
    commits = run.data.tags.get(COMMITS_TAG, "").split()
    if commit and commit not in commits:
        store.client.set_tag(run.info.run_id, COMMITS_TAG, " ".join([*commits, commit]))


def ensure_model_version(store: Store, name: str, run: Run, contender: Contender) -> ModelVersion:
    """The registered version of the run's model, registered if need be."""
    if not store.client.search_registered_models(f"name = '{name}'"):
        store.client.create_registered_model(name)
    known = store.client.search_model_versions(f"name = '{name}' and run_id = '{run.info.run_id}'")
    if known:
        return store.client.get_model_version(name, known[0].version)
    assert run.outputs, "a finished run has its model"
    (output,) = run.outputs.model_outputs
    return store.client.create_model_version(
        name,
        source=f"models:/{output.model_id}",
        run_id=run.info.run_id,
        model_id=output.model_id,
        tags={"test_accuracy": f"{contender.accuracy:.4f}", "test_data": contender.test_data},
    )


def promote(store: Store, run: Run, version_: ModelVersion, contender: Contender) -> Decision:
    """Decide whether the version becomes the champion, and record the decision with its reason.

    A version's decision stands, unless there is no champion any more whose files could be read.
    """
    champion = _find_champion(store, version_.name)
    recorded = version_.tags.get(DECISION_TAG)
    if recorded and champion:
        return Decision(version_.tags["is_promoted"] == "true", recorded)
    decision = decide(contender, champion)
    if decision.is_promoted:
        store.client.set_registered_model_alias(version_.name, CHAMPION, version_.version)
    store.client.update_model_version(version_.name, version_.version, description=decision.reason)
    store.client.set_tag(run.info.run_id, DECISION_TAG, decision.reason)
    store.client.set_model_version_tag(
        version_.name, version_.version, "is_promoted", str(decision.is_promoted).lower()
    )
    store.client.set_model_version_tag(version_.name, version_.version, DECISION_TAG, decision.reason)
    return decision


def _find_champion(store: Store, name: str) -> Contender | None:
    """The model that the alias points to; none if there is no alias or its files are gone."""
    version_ = store.client.get_registered_model(name).aliases.get(CHAMPION)
    if version_ is None:
        return None
    champion = store.client.get_model_version(name, version_)
    location = store.client.get_model_version_download_uri(name, version_)
    if location.startswith("file:") and not _to_path(location).exists():
        return None
    return Contender(float(champion.tags["test_accuracy"]), champion.tags["test_data"], True, True)


def _to_path(uri: str) -> Path:
    return Path(unquote(urlsplit(uri).path))
