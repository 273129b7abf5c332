"""The MLflow store: one run per pipeline state, one model version per run, one champion."""

import hashlib
import logging
import os
import platform
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

import numpy as np
from numpy.typing import NDArray

from stages.lib.core.lean_imports import import_lean

# Read while the package is imported.
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
os.environ["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] = "false"
# A request that nobody answers is given up after a minute and a half; MLflow itself would try for a quarter of an hour.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
# A run's address on a server, which may have a password in it.
os.environ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] = "true"
# Neither bars nor the diary of the store's tables: a stage says in a line what it did.
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")

with import_lean():
    import mlflow
    import mlflow.onnx
    import onnx
    from alembic.script import ScriptDirectory
    from mlflow import MlflowClient
    from mlflow.data.code_dataset_source import CodeDatasetSource
    from mlflow.data.meta_dataset import MetaDataset
    from mlflow.entities import Metric, Param, Run
    from mlflow.entities.model_registry import ModelVersion
    from mlflow.exceptions import MlflowException
    from mlflow.models import infer_signature
    from sqlalchemy import Engine, event
    from sqlalchemy.engine.interfaces import DBAPIConnection
    from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from stages.lib.core.errors import DataError, TrackingError
from stages.lib.core.files import remove, require_space
from stages.lib.core.paths import find_root, resolve
from stages.lib.core.urls import hide_password
from stages.lib.tracking.promotion import (
    PREDICTIONS_PATH,
    Challenger,
    Champion,
    Criteria,
    Decision,
    Predictions,
    decide,
    read_predictions,
)
from stages.lib.tracking.sqlite_store import hold, require_usable

# MLflow prints what goes wrong in a store with its whole stack; here it is told in a line.
logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)

STATE_TAG = "pipeline.state"
CLONE_TAG = "pipeline.clone"  # digest of the machine and the folder that logged the run
COMMITS_TAG = "git.commits"
UNKNOWN = "unknown"  # what a tag says where git does not tell
DECISION_TAG = "promotion"
CHAMPION = "champion"
# Tags of a model version. They make the history of champions, which a version that is deleted leaves by itself.
_IS_PROMOTED_TAG = "is_promoted"
_ORDER_TAG = "champion.order"  # the first champion has 1, each later one a number more than any before it
_ROLLED_BACK_TAG = "rolled_back"  # digest of the version's state: a person has put an earlier champion in its place

_NOT_THERE = "RESOURCE_DOES_NOT_EXIST"  # MLflow's code for a run that there is none of
_IS_THERE = "RESOURCE_ALREADY_EXISTS"
_REFUSED = "BAD_REQUEST"  # the same for what its database refuses
# MLflow's own tag: the run's colour in lists and charts.
COLOR_TAG = "mlflow.runColor"

# Okabe and Ito's palette, told apart by everyone (https://jfly.uni-koeln.de/color/), without the yellow, which is faint
# on white. MLflow itself draws a colour by the run's id, and on the page of a single metric it does so in spite of the
# tag: of three runs, two have the same in one case out of ten.
_COLORS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#000000")

# One process of a clone at a time writes to a server, too.
_SERVER_LOCK = ".cache/mlflow.lock"
# Two attempts of ten seconds to find out whether a server is there at all.
FIRST_REQUEST = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10"}

# At most, of a run without its files: rows in the store, an example and a description of the model.
_RUN_BYTES = 1 << 20
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
    manifest: dict[str, Any]  # the machine and the programs, of which nothing is hashed
    artifacts: list[Path]  # files and folders of the project's root


class ModelRecord(NamedTuple):
    """The model that a run registers."""

    onnx_path: Path
    example: NDArray[np.uint8]  # raw images (N, H, W)
    probabilities: NDArray[np.float32]  # the answer to them (N, classes)
    challenger: Challenger


class Rollback(NamedTuple):
    """Which version is the champion, and which was until now."""

    champion: int
    left: int | None  # none if the alias was gone


class Store(NamedTuple):
    """An MLflow store, open."""

    client: MlflowClient
    artifacts_dir: Path | None  # where a SQLite store's artifacts lie; a server decides for itself

    @property
    def is_shared(self) -> bool:
        """Whether other clones may be writing to it at this moment."""
        return self.artifacts_dir is None


@contextmanager
def open_store(
    *, create: bool = True, again: str = "`python -m stages.track`; nothing is logged twice"
) -> Iterator[Store]:
    """The store at MLFLOW_TRACKING_URI, else mlflow.db in the project's root.

    A relative path of a SQLite store is relative to that root, too: DVC runs experiments in folders that it removes.
    It runs several at once, too: the store is open to one process of a clone at a time, the others wait.

    create: whether a SQLite store that is not there is created. again: what to do once an error is fixed.

    Raises:
        TrackingError: there is no store, or whatever goes wrong with it inside the block.
    """
    given_uri = os.environ.get("MLFLOW_TRACKING_URI")
    kind, _, name = (given_uri or "sqlite:///mlflow.db").partition(":///")
    path = resolve(name) if kind == "sqlite" else None
    uri = f"sqlite:///{path}" if path else str(given_uri)
    where = f"the MLflow store {hide_password(uri)}"
    if path and not create and not path.exists():
        hint = "run `dvc repro` first, or name another in MLFLOW_TRACKING_URI"
        raise TrackingError(where, "no such file", hint)
    mlflow.set_tracking_uri(uri)
    try:
        with hold(Path(f"{path}.lock") if path else resolve(_SERVER_LOCK), where, again):
            if path:
                _prepare_file(path, where, again)
            else:
                _require_answer(uri)
            yield Store(MlflowClient(uri), resolve("mlartifacts") if path else None)
    except (MlflowException, SQLAlchemyError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # of a file here; one without a number is the server's answer to an artifact, as `requests` raises it
        reason = hide_password(uri, str(_find_cause(error)).splitlines()[0])
        check = "free disk space (`df`)" if path else "check MLFLOW_TRACKING_URI and the log of its server"
        raise TrackingError(where, f"it failed: {reason}", f"{check}, then {again}") from error
    finally:
        # MLflow has put the address into the environment: it must not pass for one that was given.
        mlflow.set_tracking_uri(given_uri)  # type: ignore[arg-type]  # None takes it out again


def _find_cause(error: BaseException) -> BaseException:
    """What a database itself said, where SQLAlchemy and MLflow have wrapped it in lines of theirs; else the error."""
    cause: BaseException | None = error
    while cause:
        if isinstance(cause, DBAPIError) and cause.orig:
            return cause.orig
        cause = cause.__cause__ or cause.__context__
    return error


def _prepare_file(path: Path, where: str, again: str) -> None:
    """See that the SQLite store is there, whole, and of the installed MLflow."""
    if not path.exists():
        _create_store(path)
        return
    scripts = ScriptDirectory(str(Path(mlflow.__file__).parent / "store/db_migrations"))
    newest = scripts.get_current_head()
    assert newest, "MLflow has migrations, in one line"
    require_usable(path, where, again, {script.revision for script in scripts.walk_revisions()}, newest)


@contextmanager
def leave_out_syncs() -> Iterator[None]:
    """Let SQLite not wait for the disk after each of hundreds of steps: for a file that counts once it is whole.

    https://www.sqlite.org/pragma.html#pragma_synchronous
    """

    def set_pragma(connection: DBAPIConnection, _record: object) -> None:
        connection.cursor().execute("PRAGMA synchronous = OFF")

    event.listen(Engine, "connect", set_pragma)
    try:
        yield
    finally:
        event.remove(Engine, "connect", set_pragma)


def _create_store(path: Path) -> None:
    """Create a SQLite store whole or not at all.

    MLflow takes seconds to do so, table by table; a store that it was killed over can be neither opened nor completed.
    In a folder of its own, for SQLite would apply a journal that is left beside the file to the next of that name.
    """
    partial_dir = path.with_name(f".{path.name}.partial")
    remove(partial_dir)
    partial_dir.mkdir(parents=True)
    try:
        with leave_out_syncs():
            MlflowClient(f"sqlite:///{partial_dir / path.name}").search_experiments(max_results=1)
        with (partial_dir / path.name).open("rb") as file:
            os.fsync(file.fileno())
        (partial_dir / path.name).replace(path)
    finally:
        remove(partial_dir)


def _require_answer(uri: str) -> None:
    """Raise MLflow's error within seconds if the server does not answer.

    Later requests have more time: a busy server may be slow to store something, and what was begun deserves a wait.
    """
    patient = {name: os.environ[name] for name in FIRST_REQUEST}
    os.environ.update(FIRST_REQUEST)
    try:
        MlflowClient(uri).search_experiments(max_results=1)
    finally:
        os.environ.update(patient)


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
        _create_unless_there(lambda: store.client.create_experiment(name, location))
        experiment = store.client.get_experiment_by_name(name)
    assert experiment, "it was there or has been created"
    return str(experiment.experiment_id)


def _create_unless_there(create: Callable[[], object]) -> None:
    """Create what another clone may have created since it was looked for."""
    try:
        create()
    except MlflowException as error:
        if error.error_code != _IS_THERE:
            raise


def _repeat_if_refused(write: Callable[[], object]) -> None:
    """Write what another clone may be writing at this moment.

    MLflow looks for a row and then inserts it if there is none. If another clone's comes in between, the database
    refuses this one; the second time MLflow finds it.
    """
    try:
        write()
    except MlflowException as error:
        if error.error_code != _REFUSED:
            raise
        write()


def _set_run_tag(store: Store, run: Run, tag: str, value: str) -> None:
    _repeat_if_refused(lambda: store.client.set_tag(run.info.run_id, tag, value))


def _set_version_tag(store: Store, name: str, number: int, tag: str, value: str) -> None:
    _repeat_if_refused(lambda: store.client.set_model_version_tag(name, str(number), tag, value))


def _set_alias(store: Store, name: str, number: int) -> None:
    _repeat_if_refused(lambda: store.client.set_registered_model_alias(name, CHAMPION, str(number)))


def _name_left(name: str, artifact_location: str) -> str:
    return f"{name} (artifacts in {_to_path(artifact_location)})"


def find_run(store: Store, experiment_id: str, model_name: str, state: str) -> Run | None:
    """The finished run of a pipeline state; what an attempt that failed, or one of this clone's, left is deleted.

    Two clones that share a server may log the same state at the same moment. Then the run that was registered first is
    the one: the registry numbers versions one after another, whoever asks, so that all agree on which that is, and each
    clone deletes its own later one.
    """
    runs = store.client.search_runs([experiment_id], f"tags.`{STATE_TAG}` = '{state}'")
    finished = [run for run in runs if run.info.status == "FINISHED"]
    if len(finished) > 1:
        numbers = {run.info.run_id: _list_numbers(store, model_name, run) for run in finished}
        finished.sort(key=lambda run: (numbers[run.info.run_id] or [sys.maxsize], run.info.start_time, run.info.run_id))
    for run in runs:
        if run not in finished[:1] and _is_left(store, run):
            _delete_run(store, model_name, run)
    return finished[0] if finished else None


def _is_left(store: Store, run: Run) -> bool:
    """Whether a run that does not count is to be deleted; not what another clone may be logging at this moment."""
    if not store.is_shared:  # and no other process writes to it
        return str(run.info.status) != "FINISHED"
    return run.data.tags.get(CLONE_TAG) == _describe_clone() or run.info.status in ("FAILED", "KILLED")


def _describe_clone() -> str:
    """What tells this clone from others of the same team: a digest, for the names are nobody's business."""
    return hashlib.sha256(f"{platform.node()}:{find_root()}".encode()).hexdigest()[:16]


def _list_numbers(store: Store, model_name: str, run: Run) -> list[int]:
    """The registered versions of a run, the first one first."""
    found = store.client.search_model_versions(f"name = '{model_name}' and run_id = '{run.info.run_id}'")
    return sorted(int(version_.version) for version_ in found)


def _delete_run(store: Store, model_name: str, run: Run) -> None:
    """Delete a run with its models: MLflow would leave those in the registry and among the experiment's models."""
    for number in _list_numbers(store, model_name, run):
        store.client.delete_model_version(model_name, str(number))
    for model in store.client.search_logged_models([run.info.experiment_id], f"source_run_id = '{run.info.run_id}'"):
        store.client.delete_logged_model(model.model_id)
    store.client.delete_run(run.info.run_id)


def log_run(store: Store, experiment_id: str, record: RunRecord, model: ModelRecord) -> Run:
    """A new run with everything in it; it counts as finished only once all is there.

    Raises:
        DataError: there is no room for its files on the disk of a store of this machine.
    """
    if store.artifacts_dir:
        require_space(
            store.artifacts_dir, estimate_size(record, model), "delete runs in MLflow's pages, then `mlflow gc`"
        )
    marks = {STATE_TAG: record.state, CLONE_TAG: _describe_clone(), COLOR_TAG: _choose_color(store, experiment_id)}
    tags = {**record.tags, **marks}
    with mlflow.start_run(experiment_id=experiment_id, run_name=record.name, tags=tags) as run:
        run_id = run.info.run_id
        mlflow.log_params(record.params)
        log_metrics(store, run_id, record.metrics, record.history)
        for context, (name, digest) in record.datasets.items():
            source = CodeDatasetSource({"mlflow.source.name": "dvc"})
            dataset = MetaDataset(source, name, digest)  # type: ignore[abstract]  # instantiable, as documented
            _repeat_if_refused(partial(mlflow.log_input, dataset, context=context))
        store.client.log_dict(run_id, record.manifest, "manifest.json")
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


def estimate_size(record: RunRecord, model: ModelRecord) -> int:
    """Bytes that a run takes of a disk: its files, the registered model, and what the store and MLflow add to them."""
    folders = [path for path in record.artifacts if path.is_dir()]
    paths = [*record.artifacts, model.onnx_path, *(path for folder in folders for path in folder.rglob("*"))]
    return _RUN_BYTES + sum(path.stat().st_size for path in paths if path.is_file())


def log_params(store: Store, run_id: str, params: Mapping[str, Any]) -> None:
    """Add params to a run."""
    store.client.log_batch(run_id, params=[Param(name, str(value)) for name, value in params.items()])


def log_metrics(
    store: Store, run_id: str, metrics: Mapping[str, float], history: Mapping[str, Iterable[float]]
) -> None:
    """Add metrics to a run, and those of `history` once for each epoch."""
    now = int(time.time() * 1000)  # milliseconds
    values = [Metric(name, value, now, 0) for name, value in metrics.items()]
    values += [
        Metric(name, value, now, epoch) for name, of in history.items() for epoch, value in enumerate(of, start=1)
    ]
    store.client.log_batch(run_id, metrics=values)


def _choose_color(store: Store, experiment_id: str) -> str:
    """The colour that follows that of the newest run of a state."""
    newest = store.client.search_runs([experiment_id], f"tags.`{STATE_TAG}` LIKE '%'", max_results=1)
    color = newest[0].data.tags.get(COLOR_TAG) if newest else None
    return _COLORS[(_COLORS.index(color) + 1) % len(_COLORS)] if color in _COLORS else _COLORS[0]


def add_commit(store: Store, run: Run, commit: str) -> None:
    """Note that this commit, too, leads to the run's state."""
    commits = run.data.tags.get(COMMITS_TAG, "").split()
    known = [known for known in commits if known != UNKNOWN]
    if commit not in [*commits, UNKNOWN]:
        _set_run_tag(store, run, COMMITS_TAG, " ".join([*known, commit]))


def ensure_model_version(store: Store, name: str, run: Run, challenger: Challenger) -> ModelVersion:
    """The registered version of the run's model, registered if need be; the first, should there be several."""
    if not store.client.search_registered_models(f"name = '{name}'"):
        _create_unless_there(lambda: store.client.create_registered_model(name))
    if not _list_numbers(store, name, run):
        assert run.outputs, "a finished run has its model"
        (output,) = run.outputs.model_outputs
        created = store.client.create_model_version(
            name,
            source=f"models:/{output.model_id}",
            run_id=run.info.run_id,
            model_id=output.model_id,
            tags={"test_accuracy": f"{challenger.accuracy:.4f}", "test_data": challenger.test_data},
        )
        if _list_numbers(store, name, run)[0] != int(created.version):  # another clone has registered the same run
            store.client.delete_model_version(name, created.version)
    return store.client.get_model_version(name, str(_list_numbers(store, name, run)[0]))


def register(store: Store, experiment_id: str, name: str, run: Run, challenger: Challenger) -> tuple[Run, ModelVersion]:
    """Register the run's model, and look once more whether this state's run is another clone's by now."""
    version_ = ensure_model_version(store, name, run, challenger)
    first = find_run(store, experiment_id, name, run.data.tags[STATE_TAG])
    assert first, "the run has finished"
    if first.info.run_id == run.info.run_id:
        return run, version_
    return first, ensure_model_version(store, name, first, challenger)


def promote(store: Store, run: Run, version_: ModelVersion, challenger: Challenger, criteria: Criteria) -> Decision:
    """Decide whether the version becomes the champion, and record the decision with its reason.

    A version's decision stands, unless there is no champion any more whose files could be read. A state that was rolled
    back is never promoted again here, be it as another version or for want of a champion: a person has decided.
    """
    name = version_.name
    champion = _find_champion(store, name)
    recorded = version_.tags.get(DECISION_TAG)
    rolled_back = _find_rolled_back(store, name, run.data.tags[STATE_TAG])
    if rolled_back is not None:
        again = f"`pipeline rollback --to {rolled_back}` makes it the champion again"
        decision = Decision(False, f"version {rolled_back} of this state was rolled back; {again}")
    elif recorded and champion is not None:
        decision = Decision(version_.tags[_IS_PROMOTED_TAG] == "true", recorded)
    else:
        decision = decide(challenger, None if champion is None else _describe_champion(store, champion), criteria)
    if recorded and (rolled_back is not None or champion is not None):
        return decision
    if decision.is_promoted:
        _set_champion(store, name, int(version_.version))
    _add_line(store, name, int(version_.version), decision.reason)
    _set_run_tag(store, run, DECISION_TAG, decision.reason)
    for tag, value in ((_IS_PROMOTED_TAG, str(decision.is_promoted).lower()), (DECISION_TAG, decision.reason)):
        _set_version_tag(store, name, int(version_.version), tag, value)
    return decision


def roll_back(store: Store, name: str, target: int | None = None) -> Rollback:
    """Make the champion before the present one, or `target`, the champion again, and record it on both versions.

    Champions later than the target count as rolled back from then on: they leave the history and `promote` leaves them
    alone. A target that was rolled back itself comes back as the newest champion, and none leaves.

    Raises:
        TrackingError: there is no such model, no earlier champion, or `target` never was one or has lost its files.
    """
    where = f"registered model {name}"
    if not store.client.search_registered_models(f"name = '{name}'"):
        hint = "run `dvc repro`, or set track.registered_model to the name of one that is there"
        raise TrackingError(where, "it is not in the store", hint)
    versions = _list_versions(store, name)
    left = _find_alias(store, name)
    history = _list_champions(versions.values())
    if target is None:
        earlier = history[: history.index(left)] if left in history else history
        if not earlier:
            raise TrackingError(
                where,
                "there is no champion before the present one" if left else "it never had a champion",
                f"keep version {left}, or train another" if left else "run `dvc repro`",
            )
        target = earlier[-1]
    _require_former_champion(store, name, target, left, versions)
    later = history[history.index(target) + 1 :] if target in history else []
    if left is not None and left not in history:  # the alias was set by hand
        later.append(left)
    for number in later:
        _set_version_tag(store, name, number, _ROLLED_BACK_TAG, _find_state(store, versions[number]))
    if target in history:
        _set_alias(store, name, target)
    else:
        store.client.delete_model_version_tag(name, str(target), _ROLLED_BACK_TAG)
        _set_champion(store, name, target)
    today = datetime.now(UTC).date()
    place = f", in place of version {left}" if left else ""
    _add_line(store, name, target, f"{today}: the champion again{place}")
    for number in later:
        _add_line(store, name, number, f"{today}: rolled back to version {target}")
    if left and left not in later:
        _add_line(store, name, left, f"{today}: version {target} is the champion again")
    return Rollback(target, left)


def _require_former_champion(
    store: Store, name: str, target: int, present: int | None, versions: dict[int, ModelVersion]
) -> None:
    """Refuse a target of a rollback that is none."""
    former = [number for number in sorted(versions) if _was_promoted(versions[number]) and number != present]
    where = f"registered model {name}, version {target}"
    if target not in former:
        if target == present:
            got = "the champion itself"
        elif target in versions:
            got = f"one that never was: {versions[target].tags.get(DECISION_TAG, 'no decision is recorded')}"
        else:
            got = "no such version"
        if not former:
            problem = f"{got}, and there is no former champion to go back to"
            raise TrackingError(where, problem, "train another model with `dvc repro`")
        expected = f"a former champion ({', '.join(map(str, former))})"
        raise TrackingError(where, expected=expected, got=got, hint="name one of these with --to")
    if not _has_files(store, name, target):
        raise TrackingError(where, "its files are not where the store looks for them", "name another with --to")


def _list_versions(store: Store, name: str) -> dict[int, ModelVersion]:
    return {int(found.version): found for found in store.client.search_model_versions(f"name = '{name}'")}


def _list_champions(versions: Iterable[ModelVersion]) -> list[int]:
    """The versions that became champion and were not rolled back, in the order in which they did."""
    standing = [found for found in versions if _was_promoted(found) and _ROLLED_BACK_TAG not in found.tags]
    return [int(found.version) for found in sorted(standing, key=lambda found: (_get_order(found), int(found.version)))]


def _was_promoted(version_: ModelVersion) -> bool:
    return bool(version_.tags.get(_IS_PROMOTED_TAG) == "true")


def _get_order(version_: ModelVersion) -> int:
    """The place in the order of champions; 0 for those of a store from before there was one: their numbers are it."""
    return int(version_.tags.get(_ORDER_TAG, "0"))


def _set_champion(store: Store, name: str, number: int) -> None:
    """Point the alias to the version, the newest champion."""
    order = 1 + max(map(_get_order, _list_versions(store, name).values()))
    _set_version_tag(store, name, number, _ORDER_TAG, str(order))
    _set_alias(store, name, number)


def _add_line(store: Store, name: str, number: int, line: str) -> None:
    """Add a line to the version's description."""
    description = store.client.get_model_version(name, str(number)).description
    store.client.update_model_version(name, str(number), "\n\n".join(filter(None, [description, line])))


def _find_state(store: Store, version_: ModelVersion) -> str:
    """The digest of the state that the version is of; `unknown` if its run is gone, or if it never had one."""
    try:
        run = store.client.get_run(version_.run_id) if version_.run_id else None
    except MlflowException as error:
        if error.error_code != _NOT_THERE:
            raise
        run = None
    return str(run.data.tags.get(STATE_TAG, "unknown")) if run else "unknown"


def _find_rolled_back(store: Store, name: str, state: str) -> int | None:
    """The version of this state that a person has rolled back; none if there is none, or it is the champion again."""
    found = store.client.search_model_versions(f"name = '{name}' and tags.`{_ROLLED_BACK_TAG}` = '{state}'")
    numbers = {int(version_.version) for version_ in found} - {_find_alias(store, name)}
    return max(numbers, default=None)


def _find_alias(store: Store, name: str) -> int | None:
    """The version that the alias points to."""
    number = store.client.get_registered_model(name).aliases.get(CHAMPION)
    return None if number is None else int(number)


def _find_champion(store: Store, name: str) -> ModelVersion | None:
    """The version that the alias points to; none if there is no alias or its files are gone."""
    number = _find_alias(store, name)
    if number is None or not _has_files(store, name, number):
        return None
    return store.client.get_model_version(name, str(number))


def _has_files(store: Store, name: str, number: int) -> bool:
    """Whether the version's files are there; those on a server are taken for granted."""
    location = store.client.get_model_version_download_uri(name, str(number))
    return not location.startswith("file:") or _to_path(location).exists()


def _describe_champion(store: Store, champion: ModelVersion) -> Champion:
    """The champion as it stands; one that was registered by hand says of no test data that it was measured on it."""
    return Champion(
        version=int(champion.version),
        accuracy=float(champion.tags.get("test_accuracy", "0")),
        test_data=champion.tags.get("test_data", "none"),
        predictions=_fetch_predictions(store, champion.run_id) if champion.run_id else "are gone",
    )


def _fetch_predictions(store: Store, run_id: str) -> Predictions | str:
    """What the run's model predicted of its test images, or what became of that.

    Only the store's own answer that they are not there counts as such: a store out of reach decides nothing.
    """
    try:
        names = [item.path for item in store.client.list_artifacts(run_id, PREDICTIONS_PATH.parent.as_posix())]
    except MlflowException as error:
        if error.error_code != _NOT_THERE:
            raise
        names = []
    if PREDICTIONS_PATH.as_posix() not in names:
        return "are gone"
    with TemporaryDirectory() as folder:
        path = Path(store.client.download_artifacts(run_id, PREDICTIONS_PATH.as_posix(), folder))
        try:
            return read_predictions(path)
        except DataError:
            return "cannot be read"


def _to_path(uri: str) -> Path:
    return Path(unquote(urlsplit(uri).path))
