"""What trials gave: kept on disk as each one ends, ranked, tabulated."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from stages.lib.core.errors import DataError
from stages.lib.core.files import atomic_write, read_json, write_csv, write_json
from stages.lib.sweeps.plan import Goal, Settings, format_value

_RESULT_NAME = "result.json"
# What every table has beside what the sweep asks for.
ACCURACY = "accuracy/test"
INT8_BYTES = "export_bytes/model_int8.tflite"
_COLUMNS = (ACCURACY, INT8_BYTES, "export_arena_bytes/model_int8.tflite", "export_same_class/model_int8.tflite")


# Whether the pipeline refuses the trial, or it was stopped early.
Status = Literal["finished", "failed", "stopped"]


class Trial(NamedTuple):
    """One setting of the pipeline, as a worker gets it."""

    number: int  # in the order in which the sweep asks for them, from 1
    settings: Settings
    params: dict[str, Any]  # by section
    packages: dict[str, str]  # version by name
    key: str  # digest of all that it is made of


class Result(NamedTuple):
    """What a trial gave, beside its reports."""

    status: Status
    problem: str  # why it is not finished
    outputs: dict[str, str]  # MD5 by path, as dvc.lock would have it; of those that there are
    seconds: dict[str, float]  # of work, by stage
    retries: int  # how often its process or its machine was lost


class Scored(NamedTuple):
    """A trial with what it measured."""

    number: int
    settings: Settings
    result: Result
    metrics: Mapping[str, float]  # by name; those that it came to measure

    def meets(self, goal: Goal) -> bool:
        """Whether it may be the best."""
        bounds = goal.bounds.items()
        is_measured = self.result.status == "finished" and goal.metric in self.metrics
        return is_measured and not any(bound.measure_violation(self.metrics.get(metric)) for metric, bound in bounds)


def keep_result(folder: Path, result: Result, reports: Mapping[str, bytes]) -> None:
    """Write the result and its reports, all or nothing.

    folder: named for what the trial was made of. reports: by their paths in it.
    """
    with atomic_write(folder) as partial:
        partial.mkdir()
        for name, content in reports.items():
            (partial / name).parent.mkdir(exist_ok=True)
            (partial / name).write_bytes(content)
        write_json(partial / _RESULT_NAME, result._asdict())


def read_result(folder: Path) -> Result | None:
    """A kept result; none if there is none that can be read, so that the trial runs again."""
    try:
        return Result(**read_json(folder / _RESULT_NAME))
    except (DataError, TypeError):
        return None


def rank(trials: Sequence[Scored], goal: Goal) -> list[Scored]:
    """The best first: those that meet the goal, those that do not, those that were stopped or failed.

    Of equally good ones the more accurate on the validation split, if there is one, comes first, then the smaller, then
    the earlier.
    """

    def judge(trial: Scored) -> tuple[float, ...]:
        value = trial.metrics.get(goal.metric, float("-inf") if goal.is_maximized else float("inf"))
        return (
            not trial.meets(goal),
            ("finished", "stopped", "failed").index(trial.result.status),
            -value if goal.is_maximized else value,
            -trial.metrics.get("accuracy/validation", trial.metrics.get(ACCURACY, 0.0)),
            trial.metrics.get(INT8_BYTES, float("inf")),
            trial.number,
        )

    return sorted(trials, key=judge)


def format_metric(value: float | None) -> str:
    """A metric in few letters: counts and bytes are whole numbers."""
    if value is None:
        return ""
    return str(int(value)) if float(value).is_integer() and abs(value) > 1 else f"{value:.4f}"


def list_columns(goal: Goal) -> list[str]:
    """The metrics that a table shows: what the sweep asks for, then what is always of interest."""
    return list(dict.fromkeys([goal.metric, *goal.bounds, *_COLUMNS]))


def write_table(path: Path, ranked: Sequence[Scored], goal: Goal, outputs: Sequence[str]) -> list[list[str]]:
    """Write a row for each trial, with nothing in it that differs between equal sweeps; gives what people read of it.

    outputs: paths of which the MD5 is shown.
    """
    keys, metrics = list(ranked[0].settings), list_columns(goal)
    shown = [[*(key.rpartition(".")[2] for key in keys), "status", *metrics]]
    rows = []
    for trial in ranked:
        cells = [*(format_value(trial.settings[key]) for key in keys), trial.result.status]
        measured = [format_metric(trial.metrics.get(metric)) for metric in metrics]
        md5s = [trial.result.outputs.get(output, "") for output in outputs]
        rows.append(
            [trial.number, *cells, "yes" if trial.meets(goal) else "no", *measured, *md5s, trial.result.problem]
        )
        shown.append([*cells, *measured])
    header = ["trial", *keys, "status", "meets_goal", *metrics, *(f"md5/{output}" for output in outputs), "error"]
    write_csv(path, header, rows)
    return shown
