"""Trials on Ray Tune: in processes of this machine, or of a cluster, that all read the same data.

Ray carries the code and the data to each node; what a trial is and what it means, this module does not know.
"""

import logging
import os
import signal
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

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
# Results are kept by this project, not in Tune's own files; an interruption ends Tune as it ends all else.
os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"
os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"
# The other way writes its settings to the terminal, however quiet it is told to be.
os.environ["RAY_AIR_NEW_OUTPUT"] = "0"
# Sizes and test accuracy are known at the end alone, and the loss by which a trial is stopped before that alone.
os.environ["TUNE_DISABLE_STRICT_METRIC_CHECKING"] = "1"

import ray
from ray import tune
from ray.exceptions import RayError
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search.optuna import OptunaSearch

from stages.lib.core.errors import PipelineError
from stages.lib.core.files import atomic_write, require_space
from stages.lib.core.native_stderr import capture_native_stderr

__all__ = ["ASHAScheduler", "Data", "Ended", "OptunaSearch", "open_ray", "require_cluster", "run_trials"]

# How often a trial is tried again whose process or machine was lost; an error of the code itself would come again.
_MAX_RETRIES = 3
_CONNECT_SECONDS = 5.0
# For a process to clear away a trial that was stopped, before the next begins.
_CLEAR_SECONDS = "60"
# Beside the data: what the calls themselves and their answers take, and Ray's least.
_OBJECT_STORE_ROOM = 100 * 2**20
# Longest folder for Ray's sockets: their paths have 70 characters more, and the system's limit is 107.
_LONGEST_FOLDER = 36
_FREEING = "or set TMPDIR to a folder on another disk"

# Runs a trial with the folder of the data, a folder for what is temporary, and a function that takes a report.
Work = Callable[[Any, Path, Path, Callable[[Mapping[str, Any]], None]], None]


class Data(NamedTuple):
    """What all trials read."""

    digest: str  # by which a node knows that it has them
    files: Mapping[str, Path]  # by the path that they have in the folder which a trial is given


class Ended(NamedTuple):
    """What became of a trial."""

    trial: Any
    report: dict[str, Any]  # the last; empty if there is none
    problem: str  # why the trial could not be run
    retries: int  # how often its process or its machine was lost


@contextmanager
def open_ray(address: str | None, count: int, source_dir: Path, data: Data, scratch_dir: Path) -> Iterator[int]:
    """Ray, whose processes import from a copy of the folder `source_dir`; gives how many processors it has.

    address: HOST:PORT of a cluster that this machine is part of; without one, `count` processes of this machine.
    scratch_dir: for Ray's own files, removed by the caller.

    Raises:
        PipelineError: there is no such cluster, Ray does not start, or the disk has no room for the data.
    """
    size = sum(path.stat().st_size for path in data.files.values())
    require_space(scratch_dir, size, _FREEING)
    where: dict[str, Any] = {"address": address}
    if address is None:
        room = size + size // 8 + _OBJECT_STORE_ROOM
        where = {"address": "local", "include_dashboard": False, "num_cpus": count, "num_gpus": 0}
        where |= {"object_store_memory": room}
        if len(str(scratch_dir)) <= _LONGEST_FOLDER:
            where["_temp_dir"] = str(scratch_dir)
    handler = signal.getsignal(signal.SIGTERM)
    problem = None
    try:
        with capture_native_stderr():  # Ray's C++ side repeats what the exception says
            try:
                environment = {"working_dir": str(source_dir)}
                ray.init(**where, log_to_driver=False, logging_level="ERROR", runtime_env=environment)
            except (RayError, ConnectionError, RuntimeError, TimeoutError, ValueError) as error:
                problem = _describe(error)
        if problem and address is None:
            hint = "free memory (`free -h`) and disk space (`df /tmp /dev/shm`), or lower --workers, then run again"
            raise PipelineError("Ray", f"it does not start on this machine: {problem}", hint)
        if problem:
            hint = (
                f"run on its head node, or `ray start --address={address}` here first; where the cluster asks for a "
                "token, as `ray start` says, set RAY_AUTH_MODE=token"
            )
            raise PipelineError(f"--address {address}", f"this machine is in no Ray cluster there: {problem}", hint)
        signal.signal(signal.SIGTERM, handler)  # Ray has put its own there
        logging.getLogger("ray").setLevel(logging.CRITICAL)  # what is lost is told here, in a line
        yield int(ray.cluster_resources().get("CPU", 1))
    finally:
        ray.shutdown()


def require_cluster(address: str) -> None:
    """Refuse an address at which nothing listens: Ray itself would try for a minute.

    Raises:
        PipelineError: it is no address, or nobody answers there.
    """
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        hint = "copy it from what `ray start --head` says"
        raise PipelineError("--address", expected="HOST:PORT", got=repr(address), hint=hint)
    try:
        socket.create_connection((host.strip("[]"), int(port)), _CONNECT_SECONDS).close()
    except (OSError, OverflowError) as error:
        hint = "give the address of a head node, start one with `ray start --head`, or leave --address out"
        raise PipelineError(f"--address {address}", f"no Ray cluster answers there: {error}", hint) from None


def run_trials(
    work: Work,
    data: Data,
    search: OptunaSearch,
    scheduler: ASHAScheduler | None,
    count: int,
    scratch_dir: Path,
    on_end: Callable[[Ended], None],
) -> None:
    """Run each trial that `search` suggests as `{"trial": …}`, at most `count` at a time, each on one processor.

    work: a function of a module, so that the workers can import it; a process serves many trials, one after the other.
    An error of it is the trial's problem, but for a PipelineError, which ends all.

    Raises:
        PipelineError: of `work`, or of `on_end`, which is called in this thread as each trial ends.
    """
    contents = {name: np.memmap(path, np.uint8, mode="r").view(np.ndarray) for name, path in data.files.items()}
    tune.Tuner(
        tune.with_parameters(_train, work=work, contents=contents, digest=data.digest),
        tune_config=tune.TuneConfig(
            search_alg=search,
            scheduler=scheduler,
            num_samples=-1,  # until the search has no more
            max_concurrent_trials=count,
            reuse_actors=True,
            trial_dirname_creator=lambda trial: trial.trial_id,
        ),
        run_config=tune.RunConfig(
            name="tune",
            storage_path=str(scratch_dir),
            callbacks=[_Ends(on_end)],
            failure_config=tune.FailureConfig(max_failures=_MAX_RETRIES),
            verbose=0,
        ),
    ).fit()


class _Ends(tune.Callback):  # type: ignore[misc]  # Ray's types are not read
    """Tells of each trial as it ends; after the step, for Tune would take an error amid it for the trial's own."""

    def __init__(self, on_end: Callable[[Ended], None]) -> None:
        self._on_end = on_end
        self._ended: list[Any] = []

    def on_trial_complete(self, trial: Any, **_: Any) -> None:  # noqa: ANN401  # Ray's
        self._ended.append(trial)

    on_trial_error = on_trial_complete

    def on_step_end(self, **_: Any) -> None:  # noqa: ANN401
        while self._ended:
            trial = self._ended.pop(0)
            report = trial.last_result
            if "refusal" in report:
                raise report["refusal"]
            lost = f"lost {trial.num_failures} times: {_describe(trial.get_error())}" if trial.get_error() else ""
            retries = min(trial.num_failures, _MAX_RETRIES)
            self._on_end(Ended(trial.config["trial"], report, lost or report.get("problem", ""), retries))


def _train(config: dict[str, Any], *, work: Work, contents: Mapping[str, NDArray[np.uint8]], digest: str) -> None:
    os.environ["TUNE_FUNCTION_THREAD_TIMEOUT_S"] = _CLEAR_SECONDS
    node_dir = Path(__file__).parents[3]  # where Ray has put the code; it clears that away
    try:
        work(config["trial"], _place(contents, node_dir / f"data-{digest}"), node_dir, tune.report)
    except PipelineError as error:
        tune.report({"refusal": error})
    except Exception as error:  # noqa: BLE001  # it would come again: told for its trial, and the others go on
        tune.report({"problem": _describe(error)})


def _place(contents: Mapping[str, NDArray[np.uint8]], folder: Path) -> Path:
    """The folder of the data on this node, written by the first who comes."""
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            require_space(folder, sum(content.nbytes for content in contents.values()), _FREEING)
            with atomic_write(folder) as partial:
                for name, content in contents.items():
                    (partial / name).parent.mkdir(parents=True, exist_ok=True)
                    (partial / name).write_bytes(content)  # from the node's shared memory, without a copy
    return folder


def _describe(error: BaseException) -> str:
    """The error in a line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
