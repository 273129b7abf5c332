"""Compare the working tree with a revision of git, as Markdown.

Reads   params.yaml, dvc.lock, reports/metrics.json and reports/parity.json, of the working tree and of the revision
Prints  the verdict, then what differs: params, metrics, parity of the exports, outputs by stage
"""

import json
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import click
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from stages.lib.core.dvc_lock import LOCK_PATH, State, read_state
from stages.lib.core.errors import DataError, PipelineError, show_controls
from stages.lib.core.files import read_json
from stages.lib.core.git import require_repository, run_git
from stages.lib.core.hashing import hash_output
from stages.lib.core.markdown import format_table
from stages.lib.core.params import PARAMS_PATH, flatten_params, load_params

_METRICS_PATH = Path("reports/metrics.json")
_PARITY_PATH = Path("reports/parity.json")
_RAW_DATA = "data/raw"  # the output that all metrics are measured on

_METRICS = ("accuracy", "loss", "expected_calibration_error")
_SHOWN_CLASSES = 3  # enough to see which classes the network got better or worse at
_SHORT_SHA = 7
_NONE = "-"

T = TypeVar("T")


class Lock(NamedTuple):
    """What a dvc.lock says."""

    state: State
    stages: dict[str, str]  # name of the stage by path of the output


class Snapshot(NamedTuple):
    """The pipeline at one time; what a file that is not there would say is empty."""

    params: dict[str, Any]
    metrics: dict[str, Any]
    parity: dict[str, Any]
    lock: Lock
    absent: list[Path]  # files that are not there


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
    now = read_working_tree()
    commit = find_commit(revision)
    lines = compose_report(now, read_revision(commit), name_revision(revision, commit), find_stale(now))
    print("\n".join(map(show_controls, lines)))  # a commit may be anybody's
    sys.exit(0 if is_valid(now) else 1)


def read_working_tree() -> Snapshot:
    """The pipeline as it lies on disk.

    Raises:
        PipelineError: a file is missing or damaged.
    """
    params = load_params()  # first, because it tells whoever is in another folder
    if not LOCK_PATH.exists():
        raise DataError(str(LOCK_PATH), "no such file", "run `dvc repro`")
    lock = _parse(
        LOCK_PATH.read_text(encoding="utf-8"), parse_lock, str(LOCK_PATH), hint=f"run `git checkout {LOCK_PATH}`"
    )
    return Snapshot(params, read_json(_METRICS_PATH), read_json(_PARITY_PATH), lock, absent=[])


def find_commit(revision: str) -> str:
    """The SHA of the commit that `revision` names.

    Raises:
        PipelineError: there is no git repository here, git does not open it, or it has no such commit.
    """
    require_repository(hint="run in a clone of the project")
    commit = run_git("rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}")
    if commit is None:
        raise PipelineError(
            "REV",
            expected="a commit, branch or tag of this repository",
            got=repr(revision),
            hint="choose from `git log --all --oneline`, or `git fetch` first",
        )
    return commit


def name_revision(revision: str, commit: str) -> str:
    """What was asked for and the short SHA of the commit that it is; a SHA alone is not said twice."""
    short = commit[:_SHORT_SHA]
    return short if commit.startswith(revision) else f"{revision} ({short})"


def read_revision(commit: str) -> Snapshot:
    """The pipeline as `commit` has it.

    Raises:
        DataError: a file is damaged there.
    """
    paths = (PARAMS_PATH, _METRICS_PATH, _PARITY_PATH, LOCK_PATH)
    # A path that begins with a dot is relative to this folder, which need not be the repository's root.
    texts = {path: run_git("show", f"{commit}:./{path.as_posix()}") for path in paths}

    def read(path: Path, parse: Callable[[str], T]) -> T:
        where = f"{commit[:_SHORT_SHA]}:{path.as_posix()}"
        return _parse(texts[path] or "{}", parse, where, hint="choose another revision")

    return Snapshot(
        read(PARAMS_PATH, parse_yaml),
        read(_METRICS_PATH, parse_json),
        read(_PARITY_PATH, parse_json),
        read(LOCK_PATH, parse_lock),
        absent=[path for path in paths if texts[path] is None],
    )


def _parse(text: str, parse: Callable[[str], T], where: str, hint: str) -> T:
    try:
        return parse(text)
    except (AttributeError, LookupError, TypeError, ValueError, YAMLError) as error:  # sound YAML, but something else
        raise DataError(where, f"it is damaged: {error}", hint) from None


def parse_yaml(text: str) -> dict[str, Any]:
    """The YAML mapping in `text`; ValueError or YAMLError if it is none."""
    return _require_mapping(YAML(typ="safe", pure=True).load(text) or {})


def parse_json(text: str) -> dict[str, Any]:
    """The JSON object in `text`; ValueError if it is none."""
    return _require_mapping(json.loads(text))


def parse_lock(text: str) -> Lock:
    """What a dvc.lock's text says; ValueError or YAMLError if it is none."""
    stages = parse_yaml(text).get("stages", {})
    owners = {out["path"]: name for name, stage in stages.items() for out in stage.get("outs", [])}
    return Lock(read_state(text), owners)


def _require_mapping(value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"no mapping but {type(value).__name__}")  # noqa: TRY004  # the text is wrong, not the call
    return value


def find_stale(now: Snapshot) -> list[str]:
    """What on disk is not what dvc.lock was written for: sections of params.yaml, and reports."""
    state = now.lock.state
    return [
        *(f"{PARAMS_PATH}: {section}" for section, value in state.params.items() if now.params.get(section) != value),
        *(
            path.as_posix()
            for path in (_METRICS_PATH, _PARITY_PATH)
            if state.outputs.get(path.as_posix()) != hash_output(path)
        ),
    ]


def is_valid(now: Snapshot) -> bool:
    """Whether the network is accepted and every export is within its budget."""
    return is_accepted(now.metrics) and bool(now.parity) and not list_over_budget(now.parity)


def is_accepted(metrics: Mapping[str, Any]) -> bool:
    """Whether the accuracy is at least evaluate.min_accuracy, as the evaluate stage found."""
    return metrics.get("accepted") is True


def list_over_budget(parity: Mapping[str, Any]) -> list[str]:
    """The exports that do not answer as Keras does."""
    return [name for name, export in parity.items() if export.get("within_budget") is not True]


def compose_report(now: Snapshot, then: Snapshot, revision: str, stale: Sequence[str]) -> list[str]:
    """The whole report as lines of Markdown."""
    blocks = [
        [describe_verdict(now)],
        describe_stale(stale),
        [f"Compared with {quote(revision)}{describe_absent(then)}."],
        ["### Params", "", *describe_params(now, then)],
        ["### Metrics", "", *describe_metrics(now.metrics, then.metrics)],
        describe_other_data(now, then),
        ["### Exports against Keras", "", *describe_parity(now.parity, then.parity)],
        ["### Outputs", "", *describe_outputs(now, then)],
    ]
    return [line for block in blocks if block for line in [*block, ""]][:-1]


def describe_verdict(now: Snapshot) -> str:
    """Accepted or not, with the accuracy and the floor that it was held against, and whether the exports hold."""
    floor = now.lock.state.params.get("evaluate", {}).get("min_accuracy", "unknown")
    over_budget = list_over_budget(now.parity)
    if over_budget:
        exports = f"**outside its budget**: {', '.join(map(quote, over_budget))}"
    else:
        exports = "every export is within its budget" if now.parity else "there is no export"
    return (
        f"**{'Accepted' if is_accepted(now.metrics) else 'NOT accepted'}**: "
        f"test accuracy {format_number(now.metrics.get('accuracy'))} (at least {floor} is wanted); {exports}."
    )


def describe_stale(stale: Sequence[str]) -> list[str]:
    """One line of warning if the reports are not of these params."""
    if not stale:
        return []
    return [f"> **Warning:** dvc.lock does not match {', '.join(map(quote, stale))}: stale reports, run `dvc repro`."]


def describe_absent(then: Snapshot) -> str:
    """What the revision does not have, as the end of a sentence."""
    if not then.absent:
        return ""
    has_any = any((then.params, then.metrics, then.parity, then.lock.state.outputs))
    end = "" if has_any else ": there is nothing to compare with"
    return f", which has no {' and no '.join(path.as_posix() for path in then.absent)}{end}"


def describe_params(now: Snapshot, then: Snapshot) -> list[str]:
    """Each param that changed, came or went, by its dotted name."""
    if PARAMS_PATH in then.absent:
        return ["Nothing to compare with."]
    flat_now, flat_then = flatten_params(now.params), flatten_params(then.params)
    names = [name for name in flat_then | flat_now if flat_now.get(name, ...) != flat_then.get(name, ...)]
    if not names:
        return ["No parameter differs."]
    return format_table(
        ("param", "then", "now"),
        [
            (
                quote(name),
                format_value(flat_then[name]) if name in flat_then else "not there",
                format_value(flat_now[name]) if name in flat_now else "not there",
            )
            for name in names
        ],
    )


def describe_metrics(now: Mapping[str, Any], then: Mapping[str, Any]) -> list[str]:
    """The metrics of the whole test split, then the recall of the classes where it changed most."""
    rows = [(name, then.get(name), now.get(name)) for name in _METRICS]
    rows += [
        (f"recall of {quote(name)}", recall_then, recall_now)
        for name, recall_then, recall_now in list_recall_changes(now, then)[:_SHOWN_CLASSES]
    ]
    return format_table(
        ("metric", "then", "now", "difference"),
        [
            (name, format_number(was), format_number(is_now), format_difference(was, is_now))
            for name, was, is_now in rows
        ],
    )


def list_recall_changes(now: Mapping[str, Any], then: Mapping[str, Any]) -> list[tuple[str, float, float]]:
    """Each class whose recall changed, with its recall then and now; the largest change first."""
    recalls_then, recalls_now = (
        {name: of_class["recall"] for name, of_class in metrics.get("classes", {}).items()} for metrics in (then, now)
    )
    changes = [
        (name, recalls_then[name], recall)
        for name, recall in recalls_now.items()
        if recalls_then.get(name, recall) != recall
    ]
    return sorted(changes, key=lambda change: -abs(change[2] - change[1]))


def describe_other_data(now: Snapshot, then: Snapshot) -> list[str]:
    """One line of caution if the metrics may be of other images."""
    md5 = then.lock.state.outputs.get(_RAW_DATA)
    if md5 is None or md5 == now.lock.state.outputs.get(_RAW_DATA):
        return []
    return [f"{_RAW_DATA} differs: if these are other test images, the metrics do not compare."]


def describe_parity(now: Mapping[str, Any], then: Mapping[str, Any]) -> list[str]:
    """How each export answers beside Keras, and what changed in that."""
    table = format_table(
        ("export", "same class", "ties", "accuracy", "bytes", "largest Δp", "within budget", "Δ same class", "Δ bytes"),
        [describe_export(name, export, then.get(name, {})) for name, export in now.items()],
    )
    gone = [f"No longer exported: {quote(name)}." for name in then if name not in now]
    return [*table, *([""] if gone else []), *gone]


def describe_export(name: str, now: Mapping[str, Any], then: Mapping[str, Any]) -> list[str]:
    """One row of the table of exports."""
    return [
        quote(name),
        f"{now.get('same_class', _NONE)} of {now.get('images', _NONE)}",
        str(now.get("ties", _NONE)),
        format_number(now.get("accuracy")),
        str(now.get("bytes", _NONE)),
        format_budget(now.get("budget")),
        "yes" if now.get("within_budget") is True else "**NO**",
        *(format_difference(then.get(key), now.get(key)) for key in ("same_class", "bytes")),
    ]


def describe_outputs(now: Snapshot, then: Snapshot) -> list[str]:
    """The outputs whose MD5 is another, came or went, by stage."""
    if LOCK_PATH in then.absent:
        return ["Nothing to compare with."]
    stages = then.lock.stages | now.lock.stages
    by_stage: dict[str, list[str]] = {}
    was, is_now = then.lock.state.outputs, now.lock.state.outputs
    for path in is_now | was:
        if is_now.get(path) != was.get(path):
            change = " (new)" if path not in was else " (gone)" if path not in is_now else ""
            by_stage.setdefault(stages[path], []).append(quote(path) + change)
    lines = [f"- {stage}: {', '.join(paths)}" for stage, paths in by_stage.items()]
    return lines or ["No output differs."]


def format_budget(budget: Mapping[str, Any] | None) -> str:
    """What |Δp| may be at most."""
    return f"≤ {budget['max_abs_error']:g}" if budget else _NONE


def format_value(value: object) -> str:
    """A param's value as JSON, so that the text "1" and the number 1 look different."""
    return quote(json.dumps(value, ensure_ascii=False, default=str))


def format_number(value: float | None) -> str:
    """A metric at the decimals of reports/metrics.json."""
    return _NONE if value is None else f"{value:.4f}"


def format_difference(then: float | None, now: float | None) -> str:
    """The signed difference of two metrics or of two counts."""
    if then is None or now is None:
        return _NONE
    difference = now - then
    if difference == 0:
        return "0"
    return f"{difference:+d}" if isinstance(difference, int) else f"{difference:+.4f}"


def quote(text: str) -> str:
    """Text as Markdown code, which a table takes, whatever is in it."""
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    inner = " ".join(text.replace("|", "\\|").split())
    return f"{fence} {inner} {fence}" if "`" in inner else f"{fence}{inner}{fence}"
