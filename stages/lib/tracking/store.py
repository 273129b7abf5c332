"""The MLflow store, opened for one process of this clone at a time; the only module that imports MLflow."""

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, TypeVar
from urllib.parse import unquote, urlsplit

from stages.lib.core.errors import TrackingError
from stages.lib.core.files import remove
from stages.lib.core.lean_imports import import_lean
from stages.lib.core.paths import resolve
from stages.lib.core.urls import hide_password
from stages.lib.tracking.sqlite_store import hold, require_usable

# Read while the package is imported.
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
os.environ["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] = "false"
# A request that nobody answers is given up after a minute and a half; MLflow itself would try for a quarter of an hour.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
# A run's address on a server, which may have a password in it.
os.environ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] = "true"
# Neither bars nor, below, the diary of MLflow: a stage says in a line what it did.
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")

with import_lean():
    import mlflow
    import mlflow.data.code_dataset_source
    import mlflow.data.meta_dataset
    import mlflow.models
    import mlflow.pyfunc
    import mlflow.types
    from alembic.script import ScriptDirectory
    from mlflow import MlflowClient
    from mlflow.entities import Run
    from mlflow.entities.model_registry import ModelVersion
    from mlflow.exceptions import MlflowException
    from sqlalchemy import Engine, event
    from sqlalchemy.engine.interfaces import DBAPIConnection
    from sqlalchemy.exc import DBAPIError, SQLAlchemyError

__all__ = [
    "ModelVersion",
    "Run",
    "Store",
    "create_unless_there",
    "get_if_there",
    "mlflow",
    "open_store",
    "repeat_if_refused",
    "to_path",
]

logging.getLogger("mlflow").setLevel(logging.WARNING)
# MLflow prints what goes wrong in a store with its whole stack; here it is reported in one line.
logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)

# MLflow's codes for errors.
_NOT_THERE = "RESOURCE_DOES_NOT_EXIST"
_IS_THERE = "RESOURCE_ALREADY_EXISTS"
_REFUSED = "BAD_REQUEST"  # by its database

_Found = TypeVar("_Found")

# One process of a clone at a time writes to a server, too.
_SERVER_LOCK = ".cache/mlflow.lock"
# Two attempts of ten seconds to find out whether a server is there at all.
FIRST_REQUEST = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10"}


class Store(NamedTuple):
    """An open MLflow store."""

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
    """Open the store at MLFLOW_TRACKING_URI, or mlflow.db in the project's root, as long as the block lasts.

    A relative path of a SQLite store is relative to that root, too: DVC runs experiments in folders that it removes.
    DVC runs several at once: the store is open to one process of a clone at a time, the others wait.

    create: whether to create a SQLite store that is missing. again: the last part of every hint, which says how to
    go on once the error is fixed.

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
    """The database's own error, which SQLAlchemy and MLflow wrap in lines of theirs; without one, the error itself."""
    cause: BaseException | None = error
    while cause:
        if isinstance(cause, DBAPIError) and cause.orig:
            return cause.orig
        cause = cause.__cause__ or cause.__context__
    return error


def _prepare_file(path: Path, where: str, again: str) -> None:
    """Create the SQLite store if it is missing, and refuse one that the installed MLflow cannot use."""
    if not path.exists():
        _create_store(path)
        return
    scripts = ScriptDirectory(str(Path(mlflow.__file__).parent / "store/db_migrations"))
    newest = scripts.get_current_head()
    assert newest, "MLflow has migrations, in one line"
    require_usable(path, where, again, {script.revision for script in scripts.walk_revisions()}, newest)


@contextmanager
def leave_out_syncs() -> Iterator[None]:
    """Let SQLite write without waiting for the disk after each step, as long as the block lasts.

    For a file that counts only once it is whole. With it, a new store takes half the time.
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

    MLflow takes seconds to do so, table by table. If it is killed meanwhile, it can neither open nor complete what is
    left. The new store has a folder of its own, because SQLite would apply a journal that is left beside a file to
    the next file of that name.
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

    Later requests have more time: a busy server may be slow to store something.
    """
    patient = {name: os.environ[name] for name in FIRST_REQUEST}
    os.environ.update(FIRST_REQUEST)
    try:
        MlflowClient(uri).search_experiments(max_results=1)
    finally:
        os.environ.update(patient)


def create_unless_there(create: Callable[[], object]) -> None:
    """Create what was not there, unless another clone has created it meanwhile."""
    try:
        create()
    except MlflowException as error:
        if error.error_code != _IS_THERE:
            raise


def repeat_if_refused(write: Callable[[], object]) -> None:
    """Write a row, and once more if the database refuses it because another clone has just written the same row.

    MLflow looks for a row and inserts it if there is none. Another clone may insert it in between; the second time
    MLflow finds it.
    """
    try:
        write()
    except MlflowException as error:
        if error.error_code != _REFUSED:
            raise
        write()


def get_if_there(get: Callable[[], _Found]) -> _Found | None:
    """The store's answer, or none if it says that there is no such thing; a store out of reach is an error."""
    try:
        return get()
    except MlflowException as error:
        if error.error_code != _NOT_THERE:
            raise
        return None


def to_path(uri: str) -> Path:
    """The path that a file's address names."""
    return Path(unquote(urlsplit(uri).path))
