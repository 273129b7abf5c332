"""Trials on Ray Tune, in processes of this machine or of a cluster.

Ray carries the code to each node; what a trial is and what it means, this module does not know.
"""

import logging
import os
import signal
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

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
from stages.lib.core.native_stderr import capture_native_stderr

__all__ = ["ASHAScheduler", "Ended", "OptunaSearch", "open_ray", "require_cluster", "run_trials", "tune"]

# How often a trial is tried again whose process or machine was lost; an error of the code itself would come again.
_MAX_RETRIES = 3
_CONNECT_SECONDS = 5.0
# The connection preface with an empty SETTINGS frame, and what a frame begins with.
_HTTP2_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
_FRAME_HEAD, _SETTINGS = 9, b"\x04"
# For a process to clear away a trial that was stopped, before the next begins.
_CLEAR_SECONDS = "60"
_OBJECT_STORE_BYTES = 100 * 2**20  # reports are small; it is near Ray's least
# Longest folder for Ray's sockets: their paths have 70 characters more, and the system's limit is 107.
_LONGEST_FOLDER = 36

# Runs a trial, with the folder in which Ray has put the code on that node, and a function that takes a report.
Work = Callable[[Any, Path, Callable[[Mapping[str, Any]], None]], None]


class Ended(NamedTuple):
    """What became of a trial."""

    trial: Any
    report: dict[str, Any]  # the last; empty if there is none
    problem: str  # why the trial could not be run
    retries: int  # how often its process or its machine was lost


@contextmanager
def open_ray(address: str | None, count: int, code_dir: Path, scratch_dir: Path) -> Iterator[int]:
    """Ray, whose processes get a copy of the folder `code_dir`, and import from it; gives its number of processors.

    address: HOST:PORT of a cluster that this machine is part of; without one, `count` processes of this machine.
    scratch_dir: for Ray's own files, removed by the caller.

    Raises:
        PipelineError: there is no such cluster, or Ray does not start.
    """
    where: dict[str, Any] = {"address": address}
    if address is None:
        where = {"address": "local", "include_dashboard": False, "num_cpus": count, "num_gpus": 0}
        where |= {"object_store_memory": _OBJECT_STORE_BYTES}
        if len(str(scratch_dir)) <= _LONGEST_FOLDER:
            where["_temp_dir"] = str(scratch_dir)
    handler, problem = signal.getsignal(signal.SIGTERM), ""
    try:
        with capture_native_stderr():  # Ray's C++ side repeats what the exception says
            try:
                ray.init(
                    **where, log_to_driver=False, logging_level="ERROR", runtime_env={"working_dir": str(code_dir)}
                )
            except (RayError, ConnectionError, RuntimeError, TimeoutError, ValueError) as error:
                problem = _describe(error)
        if problem:
            hint = "free memory (`free -h`) and disk space (`df /tmp /dev/shm`), or lower --workers, then run again"
            if address:
                hint = (
                    f"run on its head node, or `ray start --address={address}` here first; where the cluster asks for "
                    "a token, as `ray start` says, set RAY_AUTH_MODE=token"
                )
            raise PipelineError(f"--address {address}" if address else "Ray", f"it does not start: {problem}", hint)
        signal.signal(signal.SIGTERM, handler)  # Ray has put its own there
        logging.getLogger("ray").setLevel(logging.CRITICAL)  # what is lost is told here, in a line
        yield int(ray.cluster_resources().get("CPU", 1))
    finally:
        ray.shutdown()


def require_cluster(address: str) -> None:
    """Refuse an address at which no cluster can be: Ray itself would try for minutes.

    Ray's head speaks gRPC, which is HTTP/2: the server's first frame is SETTINGS, type 4 in the fourth byte
    (https://www.rfc-editor.org/rfc/rfc9113#section-3.4).

    Raises:
        PipelineError: nothing listens there, or something else.
    """
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        hint = "copy it from what `ray start --head` says"
        raise PipelineError("--address", expected="HOST:PORT", got=repr(address), hint=hint)
    try:
        with socket.create_connection((host.strip("[]"), int(port)), _CONNECT_SECONDS) as connection:
            connection.sendall(_HTTP2_PREFACE)
            if connection.recv(_FRAME_HEAD, socket.MSG_WAITALL)[3:4] != _SETTINGS:
                raise OSError("something else does")  # noqa: TRY301  # told as the system's own reasons are
    except (OSError, OverflowError) as error:
        hint = "give the address of a head node, start one with `ray start --head`, or leave --address out"
        raise PipelineError(f"--address {address}", f"no Ray cluster answers there: {error}", hint) from None


def run_trials(
    work: Work,
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
    tune.Tuner(
        tune.with_parameters(_train, work=work),
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
            lost = f"its process or its node was lost {trial.num_failures} times" if trial.status == trial.ERROR else ""
            retries = min(trial.num_failures, _MAX_RETRIES)
            self._on_end(Ended(trial.config["trial"], report, lost or report.get("problem", ""), retries))


def _train(config: dict[str, Any], *, work: Work) -> None:
    os.environ["TUNE_FUNCTION_THREAD_TIMEOUT_S"] = _CLEAR_SECONDS
    try:
        work(config["trial"], Path(__file__).parents[3], tune.report)  # where Ray has put the code
    except PipelineError as error:
        tune.report({"refusal": error})
    except Exception as error:  # noqa: BLE001  # it would come again: told for its trial, and the others go on
        tune.report({"problem": _describe(error)})


def _describe(error: BaseException) -> str:
    """The error in a line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
