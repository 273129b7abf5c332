"""A sweep in the MLflow store: one run for all of it, and below that one for each trial.

They are no pipeline states: nothing finds them by a state, registers or promotes them.
"""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from stages.lib.core.params import flatten_params
from stages.lib.tracking.runs import log_metrics, log_params
from stages.lib.tracking.store import Store

SWEEP_TAG = "sweep"  # digest of its trials and its goal
TRIAL_TAG = "sweep.trial"  # digest of what the trial is made of
# MLflow's own tags (https://mlflow.org/docs/latest/ml/tracking/tracking-api/#system-tags).
PARENT_TAG = "mlflow.parentRunId"
_NOTE_TAG = "mlflow.note.content"
_MAX_RUNS = 50_000  # of one search: MLflow's own limit


class TrialRun(NamedTuple):
    """All that one run says of a trial."""

    name: str
    key: str  # digest of what the trial is made of
    is_failed: bool
    tags: dict[str, str]
    params: Mapping[str, Any]  # by section
    metrics: dict[str, float]
    history: dict[str, list[float]]  # by metric, one value per epoch
    seconds: float


def ensure_sweep_run(store: Store, experiment_id: str, name: str, digest: str, params: Mapping[str, Any]) -> str:
    """The id of the sweep's run, which an interrupted or an equal sweep before this one may have left."""
    found = store.client.search_runs([experiment_id], f"tags.`{SWEEP_TAG}` = '{digest}'", max_results=1)
    if found:
        run_id = str(found[0].info.run_id)
        store.client.update_run(run_id, status="RUNNING")
        return run_id
    run = store.client.create_run(experiment_id, tags={SWEEP_TAG: digest}, run_name=name)
    log_params(store, run.info.run_id, params)
    return str(run.info.run_id)


def find_logged_trials(store: Store, experiment_id: str, sweep_run: str) -> set[str]:
    """The keys of the trials that have their run; one that was being logged when its sweep was killed is deleted."""
    keys = set()
    for run in store.client.search_runs([experiment_id], f"tags.`{PARENT_TAG}` = '{sweep_run}'", max_results=_MAX_RUNS):
        if run.info.status == "RUNNING":
            store.client.delete_run(run.info.run_id)
        else:
            keys.add(str(run.data.tags[TRIAL_TAG]))
    return keys


def log_trial(store: Store, experiment_id: str, sweep_run: str, trial: TrialRun) -> None:
    """Log a run below the sweep's, which counts only once everything is in it."""
    ended = int(time.time() * 1000)  # milliseconds
    run = store.client.create_run(
        experiment_id,
        start_time=ended - int(trial.seconds * 1000),
        tags={**trial.tags, PARENT_TAG: sweep_run, TRIAL_TAG: trial.key},
        run_name=trial.name,
    )
    run_id = run.info.run_id
    log_params(store, run_id, flatten_params(trial.params))
    log_metrics(store, run_id, trial.metrics, trial.history)
    store.client.set_terminated(run_id, "FAILED" if trial.is_failed else "FINISHED", ended)


def end_sweep_run(
    store: Store, sweep_run: str, status: str, note: str, metrics: Mapping[str, float], artifacts: Sequence[Path]
) -> None:
    """Write what came of the sweep to its run. status: FINISHED, FAILED or KILLED."""
    log_metrics(store, sweep_run, metrics, {})
    if note:
        store.client.set_tag(sweep_run, _NOTE_TAG, note)
    for path in artifacts:
        store.client.log_artifact(sweep_run, path)
    store.client.set_terminated(sweep_run, status)
