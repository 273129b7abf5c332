"""What trials gave: kept on disk as each one ends, ranked, tabulated."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from stages.lib.core.errors import DataError
from stages.lib.core.files import atomic_write, read_json, write_csv, write_json
from stages.lib.sweeps.plan import Goal, Settings, format_value

_RESULT_NAME = "result.json"
# What every table has beside what the sweep asks for.
ACCURACY = "accuracy/test"
INT8_BYTES = "export_bytes/model_int8.tflite"
_COLUMNS = (ACCURACY, INT8_BYTES, "export_arena_bytes/model_int8.tflite", "export_same_class/model_int8.tflite")


class Result(NamedTuple):
    """What a trial gave, beside its reports."""

    problem: str  # why the pipeline refuses it, such as a network that diverged; empty if it does not
    outputs: dict[str, str]  # MD5 by path, as dvc.lock would have it; of those that there are
    seconds: dict[str, float]  # of work, by stage
    retries: int  # how often its process or its machine was lost

    @property
    def status(self) -> str:
        """In a word."""
        return "failed" if self.problem else "finished"


class Scored(NamedTuple):
    """A trial with what it measured."""

    number: int  # in the order of the plan
    settings: Settings
    result: Result
    metrics: Mapping[str, float]  # by name; those that it came to measure

    def meets(self, goal: Goal) -> bool:
        """Whether it may be the best."""
        return (
            not self.result.problem
            and goal.metric in self.metrics
            and all(bounds.holds(self.metrics.get(metric)) for metric, bounds in goal.bounds.items())
        )


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
    """The best first: those that meet the goal, those that do not, those that failed.

    Of equally good ones the more accurate on the validation split, if there is one, comes first, then the smaller, then
    the earlier in the plan.
    """

    def judge(trial: Scored) -> tuple[float, ...]:
        value = trial.metrics.get(goal.metric, float("-inf") if goal.is_maximized else float("inf"))
        return (
            not trial.meets(goal),
            bool(trial.result.problem),
            -value if goal.is_maximized else value,
            -trial.metrics.get("accuracy/validation", trial.metrics.get(ACCURACY, 0.0)),
            trial.metrics.get(INT8_BYTES, float("inf")),
            trial.number,
        )

    return sorted(trials, key=judge)


def find_front(points: Sequence[tuple[float, float]]) -> list[int]:
    """The positions of the points (cost, merit) than which none is both cheaper and better, the cheapest first.

    The Pareto front: of equal points the first one stands for all.
    """
    front: list[int] = []
    for position in sorted(range(len(points)), key=lambda at: (points[at][0], -points[at][1], at)):
        if not front or points[position][1] > points[front[-1]][1]:
            front.append(position)
    return front


def list_columns(goal: Goal) -> list[str]:
    """The metrics that a table shows: what the sweep asks for, then what is always of interest."""
    return list(dict.fromkeys([goal.metric, *goal.bounds, *_COLUMNS]))


def format_metric(value: float | None) -> str:
    """A metric in few letters: counts and bytes are whole numbers."""
    if value is None:
        return ""
    return str(int(value)) if float(value).is_integer() and abs(value) > 1 else f"{value:.4f}"


def write_table(path: Path, ranked: Sequence[Scored], goal: Goal, outputs: Sequence[str]) -> None:
    """Write a row for each trial, with nothing in it that differs between equal sweeps.

    outputs: paths of which the MD5 is shown.
    """
    metrics = list_columns(goal)
    keys = list(ranked[0].settings)
    write_csv(
        path,
        ["trial", *keys, "status", "meets_goal", *metrics, *(f"md5/{output}" for output in outputs), "error"],
        (
            [
                trial.number,
                *(format_value(trial.settings[key]) for key in keys),
                trial.result.status,
                "yes" if trial.meets(goal) else "no",
                *(format_metric(trial.metrics.get(metric)) for metric in metrics),
                *(trial.result.outputs.get(output, "") for output in outputs),
                trial.result.problem,
            ]
            for trial in ranked
        ),
    )


def tabulate(ranked: Sequence[Scored], goal: Goal) -> Iterator[list[str]]:
    """The header and a row for each trial, for a person."""
    metrics = list_columns(goal)
    keys = list(ranked[0].settings)
    yield [*(key.rpartition(".")[2] for key in keys), *metrics]
    for trial in ranked:
        yield [
            *(format_value(trial.settings[key]) for key in keys),
            *(format_metric(trial.metrics.get(metric)) for metric in metrics),
        ]
