"""Compare the working tree with a revision of git, as Markdown.

Reads   params.yaml, dvc.lock, reports/metrics.json and reports/parity.json, of the working tree and of the revision
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
from stages.lib.core.files import read_json
from stages.lib.core.git import find_commit, read_at, require_repository
from stages.lib.core.markdown import format_table
from stages.lib.core.params import PARAMS_PATH, flatten_params, load_params, parse_yaml

_METRICS_PATH = Path("reports/metrics.json")
_PARITY_PATH = Path("reports/parity.json")
_RAW_DATA = "data/raw"  # the output that all metrics are measured on
_METRICS = ("accuracy", "loss", "expected_calibration_error")
_SHOWN_CLASSES = 3  # enough to see which classes the network got better or worse at
_SHORT_SHA = 7
_NONE = "-"


class Snapshot(NamedTuple):
    """The pipeline at one time; what a file that is not there would say is empty."""

    params: dict[str, Any]
    metrics: dict[str, Any]
    parity: dict[str, Any]
    lock: Lock
    absent: list[str]  # files that are not there


@click.command()
@click.argument("revision", metavar="[REV]", default="HEAD")
def report(revision: str) -> None:
    """Compare the working tree with git revision REV (default: HEAD) and print Markdown.

    The verdict comes first, then the params, metrics, exports and outputs that differ. Nothing is run and nothing is
    written: what counts is params.yaml, dvc.lock, reports/metrics.json and reports/parity.json as they are.

    \b
    Exit code:
      0  the network is accepted and every export is within its budget
      1  it is not, or an export is not, or there is nothing to report on
    """  # noqa: D301  # \b is click's mark for lines that stay apart
    # The params first, for their error tells whoever is in another folder.
    now = Snapshot(load_params(), read_json(_METRICS_PATH), read_json(_PARITY_PATH), load_lock(), absent=[])
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
    sys.exit(0 if is_accepted(now) and now.parity and not list_over_budget(now) else 1)


def read_revision(commit: str) -> Snapshot:
    """The pipeline as `commit` has it.

    Raises:
        DataError: a file is damaged there.
    """
    texts = {path: read_at(commit, path) for path in (PARAMS_PATH, _METRICS_PATH, _PARITY_PATH, LOCK_PATH)}
    where, hint = commit[:_SHORT_SHA], "choose another revision"

    def parse(path: Path, load: Callable[[str], Any]) -> dict[str, Any]:
        try:
            return dict(load(texts[path] or "{}"))
        except (TypeError, ValueError) as error:
            raise DataError(f"{where}:{path}", f"it is damaged: {error}", hint) from None

    return Snapshot(
        parse(PARAMS_PATH, parse_yaml),
        parse(_METRICS_PATH, json.loads),
        parse(_PARITY_PATH, json.loads),
        parse_lock(texts[LOCK_PATH] or "{}", f"{where}:{LOCK_PATH}", hint),
        absent=[str(path) for path, text in texts.items() if text is None],
    )


def is_accepted(now: Snapshot) -> bool:
    """Whether the accuracy is at least evaluate.min_accuracy, as the evaluate stage found."""
    return now.metrics.get("accepted") is True


def list_over_budget(now: Snapshot) -> list[str]:
    """The exports that do not answer as Keras does."""
    return [name for name, export in now.parity.items() if export.get("within_budget") is not True]


def describe_verdict(now: Snapshot) -> str:
    """Accepted or not, with the accuracy and the floor that it was held against, and whether the exports hold."""
    floor = now.lock.state.params.get("evaluate", {}).get("min_accuracy", "unknown")
    exports = "every export is within its budget" if now.parity else "there is no export"
    if over_budget := list_over_budget(now):
        exports = f"**outside its budget**: {', '.join(map(quote, over_budget))}"
    return (
        f"**{'Accepted' if is_accepted(now) else 'NOT accepted'}**: "
        f"test accuracy {format_number(now.metrics.get('accuracy'))} (at least {floor} is wanted); {exports}."
    )


def describe_stale(now: Snapshot) -> list[str]:
    """A warning for each section of params.yaml and each report that is another than dvc.lock says."""
    state = now.lock.state
    reports = {path.as_posix(): state.outputs.get(path.as_posix(), "none") for path in (_METRICS_PATH, _PARITY_PATH)}
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
        {f"recall of {quote(name)}": of_class["recall"] for name, of_class in side.metrics.get("classes", {}).items()}
        for side in (then, now)
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


def describe_parity(now: Mapping[str, Any], then: Mapping[str, Any]) -> list[str]:
    """How each export answers beside Keras, and what changed in that."""
    rows = [
        (
            quote(name),
            f"{export.get('same_class', _NONE)} of {export.get('images', _NONE)}",
            str(export.get("ties", _NONE)),
            format_number(export.get("accuracy")),
            str(export.get("bytes", _NONE)),
            f"≤ {export['budget']['max_abs_error']:g}" if export.get("budget") else _NONE,
            "yes" if export.get("within_budget") is True else "**NO**",
            *(format_difference(then.get(name, {}).get(key), export.get(key)) for key in ("same_class", "bytes")),
        )
        for name, export in now.items()
    ]
    header = (
        "export",
        "same class",
        "ties",
        "accuracy",
        "bytes",
        "largest Δp",
        "within budget",
        "Δ same class",
        "Δ bytes",
    )
    gone = [f"No longer exported: {quote(name)}." for name in then if name not in now]
    return [*format_table(header, rows), *([""] if gone else []), *gone]


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
