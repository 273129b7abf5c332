"""What a sweep tries and what it looks for, as its YAML file says: a grid, or settings that a sampler chooses."""

import copy
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from functools import reduce
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import Field

from stages.lib.core.errors import ParamsError
from stages.lib.core.params import Section, flatten_params, load_mapping, suggest, validate_section

STOPPING_METRIC = "loss/validation"  # finer than the accuracy of a small split

# Values by the dotted names of the keys that a sweep sets.
Settings = dict[str, Any]


class Range(Section):
    """Numbers to choose from, both ends included: whole ones where the key takes whole numbers."""

    min: float = Field(description="a number")
    max: float = Field(description="a number")
    log: bool = Field(default=False, description="true, to draw the logarithm evenly, or false")


Choices = list[Any] | Range


class Bounds(Section):
    """What a metric must be within."""

    min: float = Field(default=-math.inf, description="a number")
    max: float = Field(default=math.inf, description="a number")

    def measure_violation(self, value: float | None) -> float:
        """How far the value is outside, 0 if it is within; infinite for a metric that is not there or NaN."""
        return math.inf if value is None or math.isnan(value) else max(0.0, self.min - value, value - self.max)


class Asha(Section):
    """When a poor trial is stopped early (asynchronous successive halving, https://arxiv.org/abs/1810.05934)."""

    grace_period: int = Field(ge=1, description="a whole number of epochs that every trial gets, at least 1")
    reduction_factor: int = Field(ge=2, description="a whole number, at least 2: one trial of so many goes on")


class _Grid(Section):
    search: Literal["grid", "random", "tpe"] = Field(description="grid, random or tpe")
    params: dict[str, Any] = Field(
        min_length=1, description="a mapping of at least one dotted name, such as train.epochs, to what to try"
    )
    minimize: str | None = Field(default=None, description="the name of a metric")
    maximize: str | None = Field(default=None, description="the name of a metric")
    where: dict[str, Any] = Field(default={}, description="a mapping of metrics to {min: …, max: …}")
    asha: dict[str, Any] = Field(default={}, description="the keys grace_period and reduction_factor")


class _Sampled(_Grid):
    trials: int = Field(ge=1, description="a whole number of trials, at least 1")
    seed: int = Field(ge=0, lt=2**32, description="a whole number from 0 to 4294967295")


class Goal(NamedTuple):
    """What makes one trial better than another."""

    metric: str
    is_maximized: bool
    bounds: dict[str, Bounds]  # by metric

    def describe(self) -> str:
        """In a line."""
        bounds = [
            f"{metric} {sign} {limit:g}"
            for metric, bound in self.bounds.items()
            for sign, limit in (("≥", bound.min), ("≤", bound.max))
            if math.isfinite(limit)
        ]
        goal = f"{'largest' if self.is_maximized else 'smallest'} {self.metric}"
        return f"{goal} with {' and '.join(bounds)}" if bounds else goal


class Plan(NamedTuple):
    """What a sweep's file asks for."""

    search: Literal["grid", "random", "tpe"]
    choices: dict[str, Choices]  # by dotted key, in the file's order; no value of a list is there twice
    trials: int  # at most: no two are the same
    seed: int
    goal: Goal
    asha: Asha | None
    max_epochs: int  # of any trial


def read_plan(
    path: Path, base: Mapping[str, Any], sections: Mapping[str, type[Section]], metrics: Sequence[str]
) -> Plan:
    """The plan in a YAML file, every value of it valid.

    base: all of params.yaml. sections: the classes of those whose keys may be swept. metrics: what a trial measures.

    Raises:
        ParamsError: naming what the file may not say, or what is no value of a key.
    """
    document = load_mapping(path, "search, params, and minimize or maximize")
    is_sampled = document.get("search") in ("random", "tpe")
    given = validate_section(document, _Sampled if is_sampled else _Grid, f"{path}: ")
    goal = _read_goal(path, given, metrics)
    known = flatten_params({name: base[name] for name in sections if name in base})
    choices = {key: _read_choices(path, key, value, known, sections) for key, value in given.params.items()}
    _require_valid(path, base, sections, choices)
    ranges = [key for key, choice in choices.items() if isinstance(choice, Range)]
    if ranges and not is_sampled:
        hint = "list its values, or say `search: random` or `search: tpe`"
        raise ParamsError(
            f"{path}: params.{ranges[0]}", expected="a list, for this is a grid", got="a range", hint=hint
        )
    asha = validate_section(given.asha, Asha, f"{path}: asha.") if given.asha else None
    if asha and STOPPING_METRIC not in metrics:
        hint = "raise normalize.validation_fraction, or leave asha out"
        raise ParamsError(f"{path}: asha", f"there is no {STOPPING_METRIC} by which to stop a trial", hint)
    count = math.inf if ranges else math.prod(len(choice) for choice in choices.values() if isinstance(choice, list))
    trials, seed = (given.trials, given.seed) if isinstance(given, _Sampled) else (count, 0)
    epochs = choices.get("train.epochs", [known.get("train.epochs", 1)])
    max_epochs = int(epochs.max) if isinstance(epochs, Range) else max(epochs)
    return Plan(given.search, choices, int(min(trials, count)), seed, goal, asha, max_epochs)


def apply_settings(base: Mapping[str, Any], settings: Settings) -> dict[str, Any]:
    """All sections of params.yaml with the settings in them."""
    params = copy.deepcopy(dict(base))
    for name, value in settings.items():
        *parents, key = name.split(".")
        reduce(lambda section, part: section[part], parents, params)[key] = value
    return params


def describe_settings(settings: Settings) -> str:
    """The settings in a line, as params.yaml would have them, without their sections."""
    return " ".join(f"{name.rpartition('.')[2]}={format_value(value)}" for name, value in settings.items())


def format_value(value: object) -> str:
    """A value in few letters."""
    return json.dumps(value, separators=(",", ":")) if isinstance(value, (list, bool)) else str(value)


def _read_goal(path: Path, given: _Grid, metrics: Sequence[str]) -> Goal:
    wanted = [name for name in (given.minimize, given.maximize) if name is not None]
    if len(wanted) != 1:
        hint = f"write `maximize: {metrics[0]}`, or another metric, to say which trial is the best"
        problem = f"it has {'both' if wanted else 'neither'} of minimize and maximize"
        raise ParamsError(str(path), problem, "remove one of them" if wanted else hint)
    for metric in (*wanted, *given.where):
        if metric not in metrics:
            hint = suggest(metric, metrics, "choose one of these")
            raise ParamsError(str(path), expected=f"a metric of {', '.join(metrics)}", got=repr(metric), hint=hint)
    bounds = {name: validate_section(of, Bounds, f"{path}: where.{name}.") for name, of in given.where.items()}
    return Goal(wanted[0], given.maximize is not None, bounds)


def _read_choices(path: Path, key: str, value: object, known: Mapping[str, Any], sections: Iterable[str]) -> Choices:
    """The list or the range that the file gives for a key. known: values of params.yaml by dotted key."""
    where = f"{path}: params.{key}"
    if key not in known:
        expected = f"a dotted key of {', '.join(sections)} in params.yaml (trials share the data made before)"
        hint = suggest(key, known, "choose a key of these sections")
        raise ParamsError(where, expected=expected, got=repr(key), hint=hint)
    if isinstance(value, list) and value:
        return list({json.dumps(item, default=str): item for item in value}.values())
    # Where null is one of the values, a number may be another.
    kind = float if known[key] is None else type(known[key])
    if not isinstance(value, dict) or kind not in (int, float):
        numbers = " or a range {min: …, max: …}" if kind in (int, float) else ""
        hint = "write the values to try in [ ], one at least"
        raise ParamsError(where, expected=f"a list of values to try{numbers}", got=repr(value), hint=hint)
    found = validate_section(value, Range, f"{where}.")
    is_whole = found.min.is_integer() and found.max.is_integer()
    if found.min > found.max or (found.log and found.min <= 0) or (kind is int and not is_whole):
        expected = f"min at most max{', above 0 with log' * found.log}{', whole numbers' * (kind is int)}"
        raise ParamsError(
            where, expected=expected, got=f"min {found.min:g}, max {found.max:g}", hint="change these two"
        )
    return found.model_copy(update={"min": kind(found.min), "max": kind(found.max)})


def _require_valid(
    path: Path, base: Mapping[str, Any], sections: Mapping[str, type[Section]], choices: Mapping[str, Choices]
) -> None:
    """Refuse values that a stage would refuse, each error told once; a range is judged by its ends."""

    def find_problem(key: str, value: object) -> ParamsError | None:
        name = key.partition(".")[0]
        try:
            validate_section(apply_settings(base, {key: value})[name], sections[name], f"{path}: {name}.")
        except ParamsError as problem:
            return problem
        return None

    problems: dict[str, ParamsError] = {}
    for key, choice in choices.items():
        for value in (choice.min, choice.max) if isinstance(choice, Range) else choice:
            problem = find_problem(key, value)
            if problem and isinstance(choice, list) and not find_problem(key, choice):
                problem = ParamsError(
                    f"{path}: params.{key}",
                    expected="a list of values to try",
                    got=f"one value, {format_value(choice)}",
                    hint=f"write it in [ ]: {format_value([choice])}",
                )
            if problem:
                problems.setdefault(str(problem), problem)
    if problems:
        raise ParamsError.join(list(problems.values()))
