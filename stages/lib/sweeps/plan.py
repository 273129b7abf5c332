"""What a sweep tries and what it looks for, as its YAML file says: a grid or a random search over params.yaml."""

import copy
import json
import math
import random
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from functools import reduce
from itertools import product
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import Field

from stages.lib.core.errors import ParamsError
from stages.lib.core.params import Section, flatten_params, load_mapping, suggest, validate_section

# Values that are drawn get this many digits: they read well, and another machine's last bit of `exp` is not seen.
_DIGITS = 4
# Draws for each trial that is wanted, before the ranges are taken to hold no other.
_DRAWS = 100

# Values by the dotted names of the keys that a sweep sets.
Settings = dict[str, Any]


class Span(NamedTuple):
    """Numbers to draw from, both ends included: whole ones where the key takes whole numbers."""

    low: float
    high: float
    is_log: bool  # whether their logarithm is drawn evenly


class Bounds(Section):
    """What a metric must be within."""

    min: float = Field(default=-math.inf, description="a number")
    max: float = Field(default=math.inf, description="a number")

    def holds(self, value: float | None) -> bool:
        """Whether the value is there and within; NaN is not."""
        return value is not None and self.min <= value <= self.max


class _Interval(Section):
    min: float = Field(description="a number")
    max: float = Field(description="a number")
    log: bool = Field(default=False, description="true, to draw the logarithm evenly, or false")


class _Common(Section):
    params: dict[str, Any] = Field(
        min_length=1, description="a mapping of at least one dotted name, such as train.epochs, to what to try"
    )
    minimize: str | None = Field(default=None, description="the name of a metric")
    maximize: str | None = Field(default=None, description="the name of a metric")
    where: dict[str, Any] = Field(default={}, description="a mapping of metrics to {min: …, max: …}")


class _Grid(_Common):
    search: Literal["grid"] = Field(description="grid or random")


class _Random(_Common):
    search: Literal["random"] = Field(description="grid or random")
    trials: int = Field(ge=1, description="a whole number of trials, at least 1")
    seed: int = Field(ge=0, description="a whole number, at least 0")


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

    keys: list[str]  # dotted, in the file's order
    trials: list[Settings]  # no two are the same
    duplicates: int  # trials that were left out for that
    goal: Goal


def read_plan(
    path: Path, base: Mapping[str, Any], sections: Mapping[str, type[Section]], metrics: Sequence[str]
) -> Plan:
    """The plan in a YAML file, every trial of it valid.

    base: all of params.yaml. sections: the classes of those whose keys may be swept. metrics: what a trial measures.

    Raises:
        ParamsError: naming what the file may not say, or what one of its trials may not be.
    """
    document = load_mapping(path, "search, params, and minimize or maximize")
    given = validate_section(document, _Random if document.get("search") == "random" else _Grid, f"{path}: ")
    goal = _read_goal(path, given, metrics)
    known = flatten_params({name: base[name] for name in sections if name in base})
    choices = {key: _read_choices(path, key, value, known, sections) for key, value in given.params.items()}
    alone = [
        {key: value}
        for key, choice in choices.items()
        for value in ((choice.low, choice.high) if isinstance(choice, Span) else choice)
    ]
    _require_valid(path, base, sections, alone)
    if isinstance(given, _Random):
        trials, duplicates = _drop_duplicates(_draw(choices, given.seed, given.trials), given.trials)
    else:
        spans = [key for key, choice in choices.items() if isinstance(choice, Span)]
        if spans:
            hint = "list its values, or say `search: random`"
            raise ParamsError(
                f"{path}: params.{spans[0]}", expected="a list, for this is a grid", got="a range", hint=hint
            )
        trials, duplicates = _drop_duplicates(_combine(choices), None)
    _require_valid(path, base, sections, trials)
    return Plan(list(choices), trials, duplicates, goal)


def apply_settings(base: Mapping[str, Any], settings: Settings) -> dict[str, Any]:
    """All sections of params.yaml with the settings in them."""
    params = copy.deepcopy(dict(base))
    for name, value in settings.items():
        set_param(params, name, value)
    return params


def set_param(params: Any, name: str, value: Any) -> None:  # noqa: ANN401  # a mapping of any kind, a value of any
    """Set the key of a dotted name in place."""
    *parents, key = name.split(".")
    reduce(lambda section, part: section[part], parents, params)[key] = value


def describe_settings(settings: Settings) -> str:
    """The settings in a line, as params.yaml would have them, without their sections."""
    return " ".join(f"{name.rpartition('.')[2]}={format_value(value)}" for name, value in settings.items())


def format_value(value: object) -> str:
    """A value in few letters."""
    return json.dumps(value, separators=(",", ":")) if isinstance(value, (list, bool)) else str(value)


def _read_goal(path: Path, given: _Common, metrics: Sequence[str]) -> Goal:
    wanted = [name for name in (given.minimize, given.maximize) if name is not None]
    if len(wanted) != 1:
        if wanted:
            raise ParamsError(str(path), "it has both minimize and maximize", "remove one of them")
        hint = f"add `maximize: {metrics[0]}`, or another metric, to say which trial is the best"
        raise ParamsError(str(path), "it has neither minimize nor maximize", hint)
    bounds = {}
    for metric, value in given.where.items():
        where = f"{path}: where.{metric}"
        bounds[metric] = validate_section(value, Bounds, f"{where}.")
        if not value or bounds[metric].min > bounds[metric].max:
            hint = "write {min: …}, {max: …} or {min: …, max: …}, the smaller number as min"
            raise ParamsError(where, expected="min, max or both, min at most max", got=repr(value), hint=hint)
    for metric in (*wanted, *bounds):
        if metric not in metrics:
            hint = suggest(metric, metrics, "choose one of these")
            raise ParamsError(str(path), expected=f"a metric of {', '.join(metrics)}", got=repr(metric), hint=hint)
    return Goal(wanted[0], given.maximize is not None, bounds)


def _read_choices(
    path: Path, key: str, value: object, known: Mapping[str, Any], sections: Mapping[str, type[Section]]
) -> list[Any] | Span:
    """The list or the range that the file gives for a key."""
    where = f"{path}: params.{key}"
    if key not in known:
        raise ParamsError(
            where,
            expected=f"a dotted key of {', '.join(sections)} in params.yaml (trials share the data made before)",
            got=repr(key),
            hint=suggest(key, known, "choose a key of these sections"),
        )
    if isinstance(value, list) and value:
        return value
    kind = _find_type(key, sections)
    if not isinstance(value, dict) or kind not in (int, float):
        numbers = " or a range {min: …, max: …}" if kind in (int, float) else ""
        hint = "write the values to try in [ ]" if value != [] else "name a value to try, or remove the key"
        raise ParamsError(where, expected=f"a list of values to try{numbers}", got=repr(value), hint=hint)
    found = validate_section(value, _Interval, f"{where}.")
    if found.min > found.max or (found.log and found.min <= 0):
        expected = "min at most max, and above 0 with log"
        hint = "swap the two" if found.min > found.max else "raise min above 0, or leave log out"
        raise ParamsError(where, expected=expected, got=f"min {found.min:g}, max {found.max:g}", hint=hint)
    if kind is int and not (found.min.is_integer() and found.max.is_integer()):
        raise ParamsError(where, expected="whole numbers", got=f"{found.min:g}, {found.max:g}", hint="round both")
    return Span(kind(found.min), kind(found.max), found.log)


def _find_type(key: str, sections: Mapping[str, type[Section]]) -> Any:  # noqa: ANN401  # whatever is annotated
    """The type of a key's value, as its section's class has it."""
    first, *rest = key.split(".")
    found: Any = sections[first]
    for part in rest:
        found = found.model_fields[part].annotation
    return typing.get_origin(found) if isinstance(found, types.GenericAlias) else found


def _combine(choices: Mapping[str, Any]) -> Iterator[Settings]:
    """Every combination, the last key's values changing first."""
    for values in product(*choices.values()):
        yield dict(zip(choices, values, strict=True))


def _draw(choices: Mapping[str, list[Any] | Span], seed: int, count: int) -> Iterator[Settings]:
    """Settings without end but for a search that finds nothing new: the same for the same seed, in any Python.

    Python promises for `random()` alone that a seed gives the same numbers in every version
    (https://docs.python.org/3/library/random.html#notes-on-reproducibility).
    """
    generator = random.Random(seed)  # noqa: S311  # no secret
    for _ in range(_DRAWS * count):
        yield {key: _pick(choice, generator.random()) for key, choice in choices.items()}


def _pick(choice: list[Any] | Span, position: float) -> Any:  # noqa: ANN401  # a value of any kind
    """The value at a position, 0 to below 1, of a list or a range."""
    if isinstance(choice, list):
        return choice[int(position * len(choice))]
    low, high = choice.low, choice.high
    if isinstance(low, int):  # each whole number has its own share
        high += 1
    value = low * (high / low) ** position if choice.is_log else low + (high - low) * position
    value = math.floor(value) if isinstance(low, int) else float(f"{value:.{_DIGITS}g}")
    return min(max(value, choice.low), choice.high)


def _drop_duplicates(drawn: Iterator[Settings], count: int | None) -> tuple[list[Settings], int]:
    """The first `count` different settings, all of them by default, and how many were left out before the last."""
    kept: dict[str, Settings] = {}
    duplicates = 0
    for settings in drawn:
        if len(kept) == count:
            break
        key = json.dumps(settings)
        duplicates += key in kept
        kept.setdefault(key, settings)
    return list(kept.values()), duplicates


def _require_valid(
    path: Path, base: Mapping[str, Any], sections: Mapping[str, type[Section]], trials: Sequence[Settings]
) -> None:
    """Refuse trials that a stage would refuse, each error told once."""
    problems: dict[str, ParamsError] = {}
    for settings in trials:
        params = apply_settings(base, settings)
        for name in sorted({key.partition(".")[0] for key in settings}):
            try:
                validate_section(params[name], sections[name], f"{path}: {name}.")
            except ParamsError as problem:
                problems.setdefault(str(problem), problem)
    if problems:
        raise ParamsError.join(list(problems.values()))
