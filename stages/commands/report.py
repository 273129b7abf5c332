"""Compare the working tree with a revision of git, as Markdown.

Reads   params.yaml, dvc.lock and reports/{metrics.json,classes.csv,parity.csv}, of the working tree and of the revision
Prints  the verdict, then what differs: params, metrics, parity of the exports, outputs by stage
"""

import json
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import click

from stages.lib.core.dvc_lock import LOCK_PATH, Lock, list_stale, load_lock, parse_lock
from stages.lib.core.errors import DataError, PipelineError, show_controls
from stages.lib.core.files import parse_csv, read_json
from stages.lib.core.git import find_commit, read_at, require_repository
from stages.lib.core.markdown import format_table
from stages.lib.core.params import PARAMS_PATH, flatten_params, load_params, parse_yaml

_METRICS_PATH = Path("reports/metrics.json")
_CLASSES_PATH = Path("reports/classes.csv")
_PARITY_PATH = Path("reports/parity.csv")
_REPORT_PATHS = (_METRICS_PATH, _CLASSES_PATH, _PARITY_PATH)
_RAW_DATA = "data/raw"  # the output that all metrics are measured on
_METRICS = ("accuracy", "loss", "ece")
_SHOWN_CLASSES = 3  # enough to see which classes the network got better or worse at
_SHORT_SHA = 7
_NONE = "-"


class Export(NamedTuple):
    """A row of parity.csv."""

    images: int
    same_class: int
    ties: int
    accuracy: float
    bytes: int
    required: bool
    withheld: str  # why, or ""
    max_abs_error: float  # allowed


class Snapshot(NamedTuple):
    """The pipeline at one time; what a file that is not there would say is empty."""

    params: dict[str, Any]
    metrics: dict[str, Any]
    recalls: dict[str, float]  # of each class by its name
    parity: dict[str, Export]  # by the file's name
    lock: Lock
    absent: list[str]  # files that are not there


@click.command()
@click.argument("revision", metavar="[REV]", default="HEAD")
def report(revision: str) -> None:
    """Compare the working tree with git revision REV (default: HEAD) and print Markdown.

    The verdict comes first, then the params, metrics, exports and outputs that differ. Nothing is run and nothing is
    written: what counts is params.yaml, dvc.lock and metrics.json, classes.csv and parity.csv in reports as they are.

    \b
    Exit code:
      0  the network is accepted and every required export is there
      1  it is not, or one is not, or there is nothing to report on
    """  # noqa: D301  # \b is click's mark for lines that stay apart
    now = read_working_tree()
    require_repository(hint="run in a clone of the project")
    commit = find_commit(revision)
    if commit is None:
        expected, hint = "a commit, branch or tag of this repository", "choose from `git log --all --oneline`"
        raise PipelineError("REV", expected=expected, got=repr(revision), hint=f"{hint}, or `git fetch` first")
    then = read_revision(commit)
    short = commit[:_SHORT_SHA]
    heading = f"Compared with {quote(short if commit.startswith(revision) else f'{revision} ({short})')}"
    absent = f", which has no {' and no '.join(then.absent)}" if then.absent else ""
    blocks = [
        [describe_verdict(now)],
        describe_stale(now),
        [f"{heading}{absent}."],
        ["### Params", "", *describe_params(now, then)],
        ["### Metrics", "", *describe_metrics(now, then)],
        ["### Exports against Keras", "", *describe_parity(now.parity, then.parity)],
        ["### Outputs", "", *describe_outputs(now, then)],
    ]
    lines = [line for block in blocks if block for line in [*block, ""]][:-1]
    print("\n".join(map(show_controls, lines)))  # a commit may be anybody's
    sys.exit(0 if is_accepted(now) and now.parity and not list_withheld(now, required=True) else 1)


def read_working_tree() -> Snapshot:
    """The pipeline as it is.

    Raises:
        DataError: a file is missing or damaged.
    """
    # The params first, for their error tells whoever is in another folder.
    params, metrics, hint = load_params(), read_json(_METRICS_PATH), "run `dvc repro`"
    for path in (_CLASSES_PATH, _PARITY_PATH):
        if not path.exists():
            raise DataError(str(path), "no such file", hint)
    recalls = parse(_CLASSES_PATH, read_recalls, _CLASSES_PATH.read_text(encoding="utf-8"), hint)
    parity = parse(_PARITY_PATH, read_parity, _PARITY_PATH.read_text(encoding="utf-8"), hint)
    return Snapshot(params, metrics, recalls, parity, load_lock(), absent=[])


def read_revision(commit: str) -> Snapshot:
    """The pipeline as `commit` has it.

    Raises:
        DataError: a file is damaged there.
    """
    paths = (PARAMS_PATH, *_REPORT_PATHS, LOCK_PATH)
    texts = {path: read_at(commit, path) for path in paths}
    where, hint = commit[:_SHORT_SHA], "choose another revision"

    def take(path: Path, load: Callable[[str], Any], empty: str = "") -> dict[str, Any]:
        return parse(f"{where}:{path}", load, texts[path] or empty, hint)

    return Snapshot(
        take(PARAMS_PATH, parse_yaml, "{}"),
        take(_METRICS_PATH, json.loads, "{}"),
        take(_CLASSES_PATH, read_recalls),
        take(_PARITY_PATH, read_parity),
        parse_lock(texts[LOCK_PATH] or "{}", f"{where}:{LOCK_PATH}", hint),
        absent=[str(path) for path, text in texts.items() if text is None],
    )


def parse(where: Path | str, load: Callable[[str], Any], text: str, hint: str) -> dict[str, Any]:
    """What `load` makes of a file's text.

    Raises:
        DataError: it is damaged.
    """
    try:
        return dict(load(text))
    except KeyError as error:
        raise DataError(str(where), f"it is damaged: no column {error}", hint) from None
    except (TypeError, ValueError) as error:
        raise DataError(str(where), f"it is damaged: {error}", hint) from None


def read_recalls(text: str) -> dict[str, float]:
    """The recall of each class in the text of classes.csv."""
    return {row["class"]: float(row["recall"]) for row in parse_csv(text)}


def read_parity(text: str) -> dict[str, Export]:
    """Each export in the text of parity.csv."""
    return {
        row["export"]: Export(
            images=int(row["images"]),
            same_class=int(row["same_class"]),
            ties=int(row["ties"]),
            accuracy=float(row["accuracy"]),
            bytes=int(row["bytes"]),
            required=row["required"] == "True",
            withheld=row["withheld"],
            max_abs_error=float(row["max_abs_error"]),
        )
        for row in parse_csv(text)
    }


def is_accepted(now: Snapshot) -> bool:
    """Whether the accuracy is at least evaluate.min_accuracy, as the evaluate stage finds."""
    accuracy, floor = now.metrics.get("accuracy"), find_floor(now)
    return isinstance(accuracy, float) and isinstance(floor, (int, float)) and accuracy >= floor


def find_floor(now: Snapshot) -> float | str:
    """The least accuracy that was wanted."""
    floor: float | str = now.lock.state.params.get("evaluate", {}).get("min_accuracy", "unknown")
    return floor


def list_withheld(now: Snapshot, *, required: bool) -> list[str]:
    """The exports that are withheld, of those that are required or of the others."""
    return [name for name, export in now.parity.items() if export.withheld and export.required is required]


def describe_verdict(now: Snapshot) -> str:
    """Accepted or not, with the accuracy and the floor that it was held against, and whether the exports hold."""
    exports = "every export is within its limits" if now.parity else "there is no export"
    if others := list_withheld(now, required=False):
        exports = f"withheld: {', '.join(map(quote, others))}"
    if missing := list_withheld(now, required=True):
        exports = f"**required, but withheld**: {', '.join(map(quote, missing))}"
    return (
        f"**{'Accepted' if is_accepted(now) else 'NOT accepted'}**: "
        f"test accuracy {format_number(now.metrics.get('accuracy'))} (at least {find_floor(now)} is wanted); {exports}."
    )


def describe_stale(now: Snapshot) -> list[str]:
    """A warning for each section of params.yaml and each report that is another than dvc.lock says."""
    state = now.lock.state
    reports = {path.as_posix(): state.outputs.get(path.as_posix(), "none") for path in _REPORT_PATHS}
    problems = list_stale(state.params, now.params, reports, "run dvc repro")
    return [f"> **Warning:** stale reports: {quote(str(problem))}" for problem in problems]


def describe_params(now: Snapshot, then: Snapshot) -> list[str]:
    """Each param that changed, came or went, by its dotted name, as JSON: the text "1" and the number 1 differ."""
    was, is_now = (
        {
            name: json.dumps(value, ensure_ascii=False, default=str)
            for name, value in flatten_params(side.params).items()
        }
        for side in (then, now)
    )
    rows = [
        [quote(name), *(quote(side[name]) if name in side else "not there" for side in (was, is_now))]
        for name in was | is_now
        if was.get(name) != is_now.get(name)
    ]
    return format_table(("param", "then", "now"), rows) if rows else ["No parameter differs."]


def describe_metrics(now: Snapshot, then: Snapshot) -> list[str]:
    """The metrics of the whole test split, then the recall of the classes where it changed most."""
    was, is_now = (
        {f"recall of {quote(name)}": recall for name, recall in side.recalls.items()} for side in (then, now)
    )
    changed = [name for name in is_now if was.get(name, is_now[name]) != is_now[name]]
    changed = sorted(changed, key=lambda name: -abs(is_now[name] - was[name]))[:_SHOWN_CLASSES]
    was, is_now = then.metrics | was, now.metrics | is_now
    rows = [
        (name, *map(format_number, pair), format_difference(*pair))
        for name in (*_METRICS, *changed)
        for pair in [(was.get(name), is_now.get(name))]
    ]
    data = [lock.state.outputs.get(_RAW_DATA) for lock in (then.lock, now.lock)]
    caution = ["", f"{_RAW_DATA} differs: if these are other test images, the metrics do not compare."]
    is_other = data[0] is not None and data[0] != data[1]
    return [*format_table(("metric", "then", "now", "difference"), rows), *(caution if is_other else [])]


def describe_parity(now: Mapping[str, Export], then: Mapping[str, Export]) -> list[str]:
    """How each export answers beside Keras, what changed in that, and which are withheld."""
    header = ["export", "same class", "ties", "accuracy", "bytes", "largest Δp", "exported", "Δ same class", "Δ bytes"]
    rows = [
        (
            quote(name),
            f"{export.same_class} of {export.images}",
            str(export.ties),
            format_number(export.accuracy),
            str(export.bytes),
            f"≤ {export.max_abs_error:g}",
            "**withheld**" if export.withheld else "yes",
            format_difference(then[name].same_class if name in then else None, export.same_class),
            format_difference(then[name].bytes if name in then else None, export.bytes),
        )
        for name, export in now.items()
    ]
    withheld = [f"- {quote(name)} is withheld: {export.withheld}." for name, export in now.items() if export.withheld]
    gone = [f"- {quote(name)} is no longer exported." for name in then if name not in now]
    return [*format_table(header, rows), *([""] if withheld or gone else []), *withheld, *gone]


def describe_outputs(now: Snapshot, then: Snapshot) -> list[str]:
    """The outputs whose MD5 is another, came or went, by stage."""
    stages = {output.path: output.stage for side in (then, now) for output in side.lock.outputs}
    was, is_now = then.lock.state.outputs, now.lock.state.outputs
    by_stage: dict[str, list[str]] = {}
    for path in is_now | was:
        if is_now.get(path) != was.get(path):
            change = " (new)" if path not in was else " (gone)" if path not in is_now else ""
            by_stage.setdefault(stages[path], []).append(quote(path) + change)
    return [f"- {stage}: {', '.join(paths)}" for stage, paths in by_stage.items()] or ["No output differs."]


def format_number(value: float | None) -> str:
    """A metric at the decimals of reports/metrics.json."""
    return _NONE if value is None else f"{value:.4f}"


def format_difference(then: float | None, now: float | None) -> str:
    """The signed difference of two metrics or of two counts."""
    if then is None or now is None:
        return _NONE
    if now == then:
        return "0"
    return f"{now - then:+d}" if isinstance(now - then, int) else f"{now - then:+.4f}"


def quote(text: str) -> str:
    """Text as Markdown code, which a table takes, whatever is in it."""
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    inner = " ".join(text.replace("|", "\\|").split())
    return f"{fence} {inner} {fence}" if "`" in inner else f"{fence}{inner}{fence}"
