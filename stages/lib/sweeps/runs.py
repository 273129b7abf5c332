"""A sweep in the MLflow store: one run for all of it, and below that one for each trial.

They are no pipeline states: nothing finds them by a state, registers or promotes them.
"""

import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

from stages.lib.core.params import flatten_params
from stages.lib.sweeps.plan import format_value
from stages.lib.sweeps.results import Result, Trial
from stages.lib.tracking.runs import ensure_experiment, log_metrics, log_params
from stages.lib.tracking.store import Store, open_store

SWEEP_TAG = "sweep"  # digest of what it tries and of its goal
TRIAL_TAG = "sweep.trial"  # digest of what the trial is made of
# MLflow's own tags (https://mlflow.org/docs/latest/ml/tracking/tracking-api/#system-tags).
PARENT_TAG = "mlflow.parentRunId"
_NOTE_TAG = "mlflow.note.content"
_MAX_RUNS = 50_000  # of one search: MLflow's own limit
_STATUS = {"finished": "FINISHED", "failed": "FAILED", "stopped": "KILLED"}


class Log(NamedTuple):
    """Where the sweep is in the MLflow store."""

    experiment_id: str
    run_id: str
    trial_keys: set[str]  # of the trials that have their run


@contextmanager
def open_sweep_store() -> Iterator[Store]:
    """The MLflow store, as short as can be, for a pipeline may run meanwhile.

    Ctrl-C and SIGTERM are put off to the end of the block: a transaction that they cut short leaves SQLite locked.
    """
    received: list[int] = []

    def note(number: int, _frame: FrameType | None) -> None:
        received.append(number)

    handlers = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with open_store(again="the same `pipeline sweep`; what has ended is kept") as store:
            yield store
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    if received:
        signal.raise_signal(received[0])


def open_log(experiment: str, name: str, digest: str, params: Mapping[str, Any]) -> Log:
    """The sweep's run, which an interrupted or an equal sweep before this one may have left.

    A trial's run that was being written when its sweep was killed is deleted.
    """
    with open_sweep_store() as store:
        experiment_id = ensure_experiment(store, experiment)
        found = store.client.search_runs([experiment_id], f"tags.`{SWEEP_TAG}` = '{digest}'", max_results=1)
        run = found[0] if found else store.client.create_run(experiment_id, tags={SWEEP_TAG: digest}, run_name=name)
        run_id = str(run.info.run_id)
        if found:
            store.client.update_run(run_id, status="RUNNING")
        else:
            log_params(store, run_id, params)
        log = Log(experiment_id, run_id, set())
        where = f"tags.`{PARENT_TAG}` = '{run_id}'"
        for child in store.client.search_runs([experiment_id], where, max_results=_MAX_RUNS):
            if child.info.status == "RUNNING":
                store.client.delete_run(child.info.run_id)
            else:
                log.trial_keys.add(str(child.data.tags[TRIAL_TAG]))
    return log


def log_trial(
    log: Log, trial: Trial, result: Result, metrics: Mapping[str, float], history: Mapping[str, Sequence[float]]
) -> None:
    """Log a run below the sweep's, which counts only once everything is in it; nothing if it is there.

    history: by metric, one value for each epoch.
    """
    if trial.key in log.trial_keys:
        return
    ended = int(time.time() * 1000)  # milliseconds
    tags = {
        PARENT_TAG: log.run_id,
        TRIAL_TAG: trial.key,
        "sweep.status": result.status,
        "sweep.retries": str(result.retries),
        **({"sweep.problem": result.problem} if result.problem else {}),
        **{f"md5/{path}": md5 for path, md5 in result.outputs.items()},
    }
    with open_sweep_store() as store:
        run = store.client.create_run(
            log.experiment_id,
            start_time=ended - int(sum(result.seconds.values()) * 1000),
            tags=tags,
            run_name=f"{trial.number}: {' '.join(map(format_value, trial.settings.values()))}",
        )
        log_params(store, run.info.run_id, flatten_params(trial.params))
        log_metrics(store, run.info.run_id, metrics, history)
        store.client.set_terminated(run.info.run_id, _STATUS[result.status], ended)
    log.trial_keys.add(trial.key)


def close_log(
    log: Log, status: str, note: str = "", metrics: Mapping[str, float] | None = None, artifacts: Sequence[Path] = ()
) -> None:
    """End the sweep's run with what came of it. status: FINISHED, FAILED or KILLED."""
    with open_sweep_store() as store:
        log_metrics(store, log.run_id, metrics or {}, {})
        if note:
            store.client.set_tag(log.run_id, _NOTE_TAG, note)
        for path in artifacts:
            store.client.log_artifact(log.run_id, path)
        store.client.set_terminated(log.run_id, status)
