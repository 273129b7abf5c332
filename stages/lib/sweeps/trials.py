"""One function over many items on Ray: processes of this machine, or of a cluster, that all read the same data.

Ray carries the data to each node once and calls; which trial there is, and what it means, it does not know.
"""

import os
import re
import secrets
import shutil
import signal
import socket
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
from filelock import FileLock

# Read while the package is imported. No word to its makers.
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
# What its processes write is in their logs; here it would stand amid the progress.
os.environ["RAY_DEDUP_LOGS_SKIP_REGEX"] = "."
# Without a cluster everything listens on the loopback interface alone, as Ray has it by itself on macOS and Windows.
os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
# A cluster that does not answer is said to be so after seconds, not after a minute.
os.environ.setdefault("RAY_gcs_server_request_timeout_seconds", "10")
# As Ray announces it will be: a task that wants no GPU finds the variables of GPUs as they were.
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")

import ray
from ray.exceptions import (
    NodeDiedError,
    ObjectLostError,
    OutOfMemoryError,
    RayError,
    RayTaskError,
    WorkerCrashedError,
)
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from stages.lib.core.errors import PipelineError
from stages.lib.core.files import atomic_write, remove, require_space, write_text
from stages.lib.core.native_stderr import capture_native_stderr

# How often an item is tried again whose process or machine was lost; an error of the function itself would come again.
_MAX_RETRIES = 3
_LOST = (NodeDiedError, ObjectLostError, OutOfMemoryError, WorkerCrashedError)
_CONNECT_SECONDS = 5.0
_CLEAN_SECONDS = 20.0
# The connection preface with an empty SETTINGS frame, and what a frame begins with.
_HTTP2_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
_FRAME_HEAD, _SETTINGS = 9, b"\x04"
# Beside the data: what the calls themselves and their answers take, and Ray's least.
_OBJECT_STORE_ROOM = 100 * 2**20
# Longest folder for Ray's sockets: their paths have 70 characters more, and the system's limit is 107.
_LONGEST_FOLDER = 36

_FREEING = "or set TMPDIR to a folder on another disk"
_SCRATCH_NAME = re.compile(r"sweep-[0-9a-f]{12}")

T = TypeVar("T")
R = TypeVar("R")


class Answer(NamedTuple, Generic[T, R]):
    """What became of one item."""

    item: T
    result: R | None  # none if there is an error
    problem: str  # why there is no result
    retries: int  # how often its process or its machine was lost


class _Shared(NamedTuple):
    """Files in Ray's object store."""

    scratch: str  # name of the folder for what is temporary, in the temporary folder of each node
    paths: list[str]
    references: list[Any]  # the bytes of each


class Workers:
    """Processes that call a function, each with one item at a time."""

    def __init__(self, shared: _Shared) -> None:
        self._shared = shared
        self._waiting: dict[Any, tuple[Any, int]] = {}  # item and retries by reference

    @property
    def count(self) -> int:
        """How many calls there may be at a time, as of now: a cluster may grow."""
        return int(ray.cluster_resources().get("CPU", 0))

    def run(self, function: Callable[[T, Path, Path], R], items: Sequence[T]) -> Iterator[Answer[T, R]]:
        """Each item with what `function` made of it, in the order in which they are ready.

        function: of a module, so that the workers can import it; takes the item, the folder of the data and a folder
        for what is temporary, both of its node. A process serves many items, one after the other.

        Raises:
            PipelineError: Ray itself is lost.
        """
        for item in items:
            self._submit(function, item, 0)
        while self._waiting:
            (reference,), _ = ray.wait(list(self._waiting), num_returns=1)
            item, retries = self._waiting.pop(reference)
            try:
                yield Answer(item, ray.get(reference), "", retries)
            except _LOST as problem:
                if retries == _MAX_RETRIES:
                    yield Answer(item, None, f"lost {retries + 1} times: {_describe(problem)}", retries)
                else:
                    self._submit(function, item, retries + 1)
            except RayTaskError as problem:
                if isinstance(problem.cause, PipelineError):
                    raise problem.cause from None
                yield Answer(item, None, _describe(problem.cause), retries)
            except RayError as problem:
                hint = "run the same command again; what is done is kept"
                raise PipelineError("Ray", f"it stopped: {_describe(problem)}", hint) from None

    def _submit(self, function: Callable[[T, Path, Path], R], item: T, retries: int) -> None:
        self._waiting[_call.remote(function, item, self._shared)] = (item, retries)

    def stop(self) -> None:
        """Give up what has not ended."""
        for reference in self._waiting:
            ray.cancel(reference, force=True)
        self._waiting.clear()


@contextmanager
def make_scratch(note_path: Path) -> Iterator[Path]:
    """A folder for what is temporary, with a name that nobody can guess; workers make one of that name on their nodes.

    note_path: holds the name while the folder is there, so that the next call removes what a killed one left.
    """
    left = note_path.read_text(encoding="utf-8") if note_path.exists() else ""
    if _SCRATCH_NAME.fullmatch(left):
        _discard(left)
    name = f"sweep-{secrets.token_hex(6)}"
    write_text(note_path, name)
    try:
        _locate(name).mkdir(mode=0o700)
        yield _locate(name)
    finally:
        _discard(name)
        remove(note_path)


@contextmanager
def open_workers(
    address: str | None, count: int, source_dir: Path, data: Mapping[str, Path], scratch_dir: Path
) -> Iterator[Workers]:
    """Workers that import from the folder `source_dir` and read the same `data`; afterwards none of them is left.

    address: HOST:PORT of a cluster that this machine is part of; without one, `count` processes of this machine.
    data: files, by the path that they have in the folder which the function is given. scratch_dir: of `make_scratch`.

    Raises:
        PipelineError: there is no such cluster, or no room for the data in this machine's temporary folder.
    """
    handler = signal.getsignal(signal.SIGTERM)
    size = sum(path.stat().st_size for path in data.values())
    require_space(scratch_dir, size, _FREEING)
    try:
        _start(address, count, source_dir, size, scratch_dir)
        signal.signal(signal.SIGTERM, handler)  # Ray has put its own there
        workers = Workers(_Shared(scratch_dir.name, list(data), [_put(path) for path in data.values()]))
        try:
            yield workers
        finally:
            workers.stop()
            if address:
                _clean_nodes(scratch_dir.name)
    finally:
        ray.shutdown()


def _locate(scratch: str) -> Path:
    """Where it is on this node."""
    return Path(tempfile.gettempdir()) / scratch


def _discard(scratch: str) -> None:
    """Remove it from this node, as far as no process that is being killed still writes to it."""
    shutil.rmtree(_locate(scratch), ignore_errors=True)


def _start(address: str | None, count: int, source_dir: Path, data_bytes: int, scratch_dir: Path) -> None:
    where: dict[str, Any] = {"address": address}
    if address is None:
        where = {
            "address": "local",
            "include_dashboard": False,
            "num_cpus": count,
            "num_gpus": 0,
            "object_store_memory": data_bytes + data_bytes // 8 + _OBJECT_STORE_ROOM,
        }
        if len(str(scratch_dir)) <= _LONGEST_FOLDER:
            where["_temp_dir"] = str(scratch_dir)
    problem = None
    with capture_native_stderr():  # Ray's C++ side repeats what the exception says
        try:
            ray.init(**where, log_to_driver=False, logging_level="ERROR", runtime_env={"working_dir": str(source_dir)})
        except (RayError, ConnectionError, RuntimeError, TimeoutError, ValueError) as error:
            problem = _describe(error)
    if problem and address is None:
        hint = "free memory (`free -h`) and disk space (`df /tmp /dev/shm`), or lower --workers, then run again"
        raise PipelineError("Ray", f"it does not start on this machine: {problem}", hint)
    if problem:
        raise PipelineError(
            f"--address {address}",
            f"this machine is in no Ray cluster there: {problem}",
            f"run on its head node, or `ray start --address={address}` here first; where the cluster asks for a "
            "token, as `ray start` says, set RAY_AUTH_MODE=token",
        )


def require_cluster(address: str) -> None:
    """Refuse an address at which no cluster can be: Ray itself would try for a minute.

    Ray's head speaks gRPC, which is HTTP/2: the server's first frame is SETTINGS, type 4 in the fourth byte
    (https://www.rfc-editor.org/rfc/rfc9113#section-3.4).

    Raises:
        PipelineError: nothing listens there, or something else.
    """
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        raise PipelineError(
            "--address", expected="HOST:PORT", got=repr(address), hint="copy it from what `ray start --head` says"
        )
    try:
        with socket.create_connection((host.strip("[]"), int(port)), _CONNECT_SECONDS) as connection:
            connection.sendall(_HTTP2_PREFACE)
            answer = connection.recv(_FRAME_HEAD, socket.MSG_WAITALL)
            problem = "" if answer[3:4] == _SETTINGS else "something else does"
    except (OSError, OverflowError) as error:
        problem = str(error)
    if problem:
        hint = "give the address of a head node, start one with `ray start --head`, or leave --address out"
        raise PipelineError(f"--address {address}", f"no Ray cluster answers there: {problem}", hint)


def _put(path: Path) -> Any:  # noqa: ANN401  # Ray's reference
    """A file's bytes in the object store, straight from the disk."""
    return ray.put(np.memmap(path, np.uint8, mode="r").view(np.ndarray))


@ray.remote(num_cpus=1, max_retries=0)  # lost ones are tried again, and counted, in `run`
def _call(function: Callable[[T, Path, Path], R], item: T, shared: _Shared) -> R:
    return function(item, _place(shared), _locate(shared.scratch))


def _place(shared: _Shared) -> Path:
    """The folder of the data on this node, written by the first who comes."""
    folder = _locate(shared.scratch) / "data"
    folder.parent.mkdir(mode=0o700, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            contents = ray.get(shared.references)
            require_space(folder, sum(content.nbytes for content in contents), _FREEING)
            with atomic_write(folder) as partial:
                for name, content in zip(shared.paths, contents, strict=True):
                    (partial / name).parent.mkdir(parents=True, exist_ok=True)
                    (partial / name).write_bytes(content)  # from the node's shared memory, without a copy
    return folder


def _clean_nodes(scratch: str) -> None:
    """Remove the folder on every node that is alive; one that does not answer keeps it."""
    nodes = [NodeAffinitySchedulingStrategy(node["NodeID"], soft=False) for node in ray.nodes() if node["Alive"]]
    tasks = [_discard_there.options(scheduling_strategy=node).remote(scratch) for node in nodes]
    with suppress(RayError):
        ray.wait(tasks, num_returns=len(tasks), timeout=_CLEAN_SECONDS)


@ray.remote(num_cpus=0, max_retries=0)
def _discard_there(scratch: str) -> None:
    _discard(scratch)


def _describe(error: BaseException) -> str:
    """The error in a line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
