"""Find the run, the commits and the params that a file belongs to, whatever it is called and wherever it lies.

Reads   the file; dvc.lock of the work tree and of every commit; DVC's cache; the MLflow store, if there is one
Prints  what the file is, whether its state is the current one, its MLflow runs and commits, and how that was found
"""

import os
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import click

from stages.lib.core.dvc_lock import CACHE_DIR, LOCK_PATH, Lock, Output, parse_lock, read_listing
from stages.lib.core.errors import DataError, ParamsError, TrackingError, show_controls
from stages.lib.core.git import find_commit, read_at, require_no_refusal, run_git
from stages.lib.core.hashing import hash_output
from stages.lib.core.params import flatten_params
from stages.lib.core.paths import resolve
from stages.lib.exports.lineage import Upstream, digest_params, read_upstream
from stages.lib.verification.integrity import list_files

_RAW_DATA, _MODEL, _EXPORTS = "data/raw", "models/model.keras", "models/export"
_SHORT_SHA = 7
_CURRENT, _NOT_CURRENT = "yes, dvc.lock here has this state", "no, dvc.lock here has another state"
# A stage's deps as DVC writes them; nothing else in a stage stands this far to the left. Without them fewer versions of
# dvc.lock differ, and each is parsed in half the time.
_DEPS = re.compile(r"^    deps:\n(?:    - .*\n|      .*\n)*", re.MULTILINE)
_EXPERIMENT_REF = re.compile(r"exps/[0-9a-f]{2}/[0-9a-f]{38}/([^,]+)")
# The most that MLflow gives at once.
_MAX_RUNS, _MAX_VERSIONS, _MAX_MODELS = 50_000, 200_000, 1_000

Listings = Mapping[str, Mapping[str, str] | None]  # of each folder, by its MD5: its files' MD5s by relative path


class LockVersion(NamedTuple):
    """The dvc.lock of the work tree, or of a commit that changed it."""

    title: str  # of a commit: short SHA, date, and the subject or DVC's name of the experiment
    commit: str  # empty if it is the work tree's
    parents: list[str]  # the commits that changed it last before
    lock: Lock | None  # without deps; none if it is damaged


class LoggedRun(NamedTuple):
    """A finished run in the MLflow store."""

    title: str  # with what is registered of it
    state: str  # digest of the state
    outputs: dict[str, str]  # MD5 by path
    params: dict[str, str]  # dotted names


class Match(NamedTuple):
    """A state that has the file."""

    digest: str
    params: Mapping[str, Any]  # dotted names
    outputs: dict[str, Output]  # what dvc.lock has of it, the file itself or a folder around it, by the file's path
    commits: list[str]


@click.command()
@click.argument("name", metavar="FILE|REV", callback=lambda _context, _parameter, value: name_file(value))
@click.option("--params", "has_params", is_flag=True, help="List the params, too.")
def whatis(name: str | Path, has_params: bool) -> None:
    """Find the MLflow runs, commits, dvc.lock entry and params that a file or a commit belongs to.

    FILE is any file that the pipeline made, under any name, anywhere. It is known by its bytes; an exported model is
    known by the digests inside it, too, also in a fresh clone. REV is a commit, branch or tag, if there is no such
    file. Nothing is written. Exit code 1 if no state has it.
    """
    commit = find_commit(name) if isinstance(name, str) else None
    path = Path(name)
    if not (commit or path.is_file()):
        problem = "it is a folder" if path.is_dir() else "it is no ordinary file" if path.exists() else "no such file"
        raise DataError(str(path), problem, "name a file that the pipeline made")
    history, (runs, remark) = read_history(), read_runs()
    if commit:
        matches = [read_commit(commit)]
        what, way = f"the state {matches[0].digest[:_SHORT_SHA]} of the pipeline", "its commit"
    else:
        what, way, matches = identify(path, history, runs)
    count = f"; in {len(matches)} states, the newest first" if matches[1:] else ""
    here = history[0].lock if not history[0].commit else None
    states = [
        {
            "current": [_CURRENT if here and here.state.digest == match.digest else _NOT_CURRENT],
            "MLflow": [remark] if remark else [run.title for run in runs if run.state == match.digest] or ["none"],
            "commits": match.commits or ["none"],
            "found by": [way],
            "dvc.lock": list(dict.fromkeys(f"{output.path}  md5 {output.md5}" for output in match.outputs.values())),
            "params": [f"{key}: {value}" for key, value in match.params.items()],
        }
        for match in matches
    ]
    lines = [f"{name}: {what}{count}", *format_states(states, has_params)]
    print("\n".join(map(show_controls, lines)))  # files and stores may be anybody's


def name_file(value: str) -> str | Path:
    """The path, if that is one where it was typed; else the text."""
    return Path(value) if Path(value).exists() else value


def read_commit(commit: str) -> Match:
    """The state that dvc.lock has at a commit, with all of its outputs.

    Raises:
        DataError: there is no valid dvc.lock at that commit.
    """
    where, hint = f"{commit[:_SHORT_SHA]}:{LOCK_PATH}", f"choose a commit of `git log {LOCK_PATH}`"
    text = read_at(commit, LOCK_PATH)
    if text is None:
        raise DataError(where, "no such file", hint)
    lock = parse_lock(text, where, hint)
    outputs = {output.path: output for output in lock.outputs}
    exports = read_listing(outputs[_EXPORTS].md5, CACHE_DIR) if _EXPORTS in outputs else None
    outputs |= {path: Output("", path, md5) for name, md5 in (exports or {}).items() for path in [f"{_EXPORTS}/{name}"]}
    commits = [str(run_git("show", "--no-patch", "--format=%h %cs %s", commit))]
    return Match(lock.state.digest, flatten_params(lock.state.params), outputs, commits)


def identify(path: Path, history: Sequence[LockVersion], runs: Sequence[LoggedRun]) -> tuple[str, str, list[Match]]:
    """What a file is, how that was found, and the states that have it.

    Raises:
        DataError: it is none that this pipeline made.
    """
    md5, listings = hash_output(path), collect_listings(history, runs)
    matches = find_by_hash(md5, listings, history, runs)
    if matches:
        stages = {name: output.stage for match in reversed(matches) for name, output in match.outputs.items()}
        kinds = [f"{name}, an output{f' of {stage}' if stage else ''}" for name, stage in stages.items()]
        return "; ".join(kinds), f"its MD5 {md5}", matches
    upstream = read_upstream(path)
    matches = find_by_upstream(upstream, history) if upstream else []
    if not matches:
        unlisted = list(listings.values()).count(None)
        found = (
            f"MD5 {md5}, unknown to dvc.lock (versions: {len(history)})"
            + (f" and to the MLflow store (runs: {len(runs)})" if runs else "")
            + (", exported from a state that is not here, as it says itself" if upstream else "")
            + (f" (listings of folders that DVC's cache does not have: {unlisted})" if unlisted else "")
        )
        get = "get the commit (`git fetch`) or experiment (`dvc exp pull`) that made it"
        hint = f"{get}, or look in the clone that did"
        raise DataError(str(path), f"no known state of this pipeline has it: {found}", hint)
    way = "the digests inside it; its own bytes"
    if all(listings.get(match.outputs[_EXPORTS].md5) for match in matches):  # it is none of these files
        what = f"NOT a file that the pipeline wrote, but what became of one of {_EXPORTS}: damaged or changed"
        return what, f"{way} are none that the listing of {_EXPORTS} names", matches
    why = f"for the listing of {_EXPORTS} is not in DVC's cache"
    return f"one of {_EXPORTS}, as it says itself", f"{way} were not compared, {why}", matches


def read_history() -> list[LockVersion]:
    """The dvc.lock of the work tree and those of all commits of all refs, DVC's experiments among them, newest first.

    Raises:
        PipelineError: there is none, or git does not open the repository.
    """
    require_no_refusal()
    log = run_git(
        *("log", "--all", "--full-history", "--parents", "--no-follow", "--no-color", "--no-show-signature"),
        *("--decorate-refs=refs/exps/*", "--format=%H%x09%P%x09%cs%x09%D%x09%s", "--", str(LOCK_PATH)),
    )
    records = [line.split("\t", maxsplit=4) for line in (log or "").split("\n") if line]
    history = []
    if LOCK_PATH.is_file():
        text = LOCK_PATH.read_text(encoding="utf-8", errors="replace")
        history.append(LockVersion("", "", [], parse_if_valid(_DEPS.sub("", text))))
    for commit, parents, date, refs, subject in records:
        experiment = _EXPERIMENT_REF.search(refs)
        title = f"{commit[:_SHORT_SHA]} {date} {f'experiment {experiment[1]}' if experiment else subject}"
        if committed := read_at(commit, LOCK_PATH):
            history.append(LockVersion(title, commit, parents.split(), parse_if_valid(_DEPS.sub("", committed))))
    if not history:
        raise DataError(str(LOCK_PATH), "there is none in this project or in a commit", "run `dvc repro` first")
    return history


@cache
def parse_if_valid(text: str) -> Lock | None:
    """What the text of a dvc.lock says; none if it is damaged."""
    try:
        return parse_lock(text)
    except DataError:
        return None


def read_runs() -> tuple[list[LoggedRun], str]:
    """The runs in the MLflow store, the newest first; and why there are none, if the store cannot be asked."""
    kind, _, path = (os.environ.get("MLFLOW_TRACKING_URI") or "sqlite:///mlflow.db").partition(":///")
    if kind == "sqlite" and not resolve(path).exists():  # to open it would create it
        return [], "no store here"
    from stages.lib.tracking.runs import STATE_TAG  # noqa: PLC0415  # MLflow takes seconds
    from stages.lib.tracking.store import open_store  # noqa: PLC0415

    try:
        with open_store(create=False, again="`pipeline whatis` again") as store:
            experiments = {found.experiment_id: found.name for found in store.client.search_experiments()}
            criterion = f"tags.`{STATE_TAG}` LIKE '%' and attributes.status = 'FINISHED'"
            runs = store.client.search_runs(list(experiments), criterion, max_results=_MAX_RUNS)
            models = store.client.search_registered_models(max_results=_MAX_MODELS)
            versions = store.client.search_model_versions(max_results=_MAX_VERSIONS)
    except (TrackingError, OSError) as problem:  # what is known without it is worth telling
        return [], f"not asked: {problem}"
    aliases = defaultdict(list)  # of each version
    for model in models:
        for alias, number in model.aliases.items():
            aliases[model.name, str(number)].append(alias)
    registered: dict[str | None, str] = defaultdict(str)  # by run
    for version in versions:
        title = f"{version.name} version {version.version}"
        registered[version.run_id] += ", ".join(["", title, *aliases[version.name, str(version.version)]])
    return [
        LoggedRun(
            f"{run.info.run_name} (run {run.info.run_id}, experiment {experiments[run.info.experiment_id]})"
            + registered[run.info.run_id],
            run.data.tags[STATE_TAG],
            {tag.removeprefix("md5/"): md5 for tag, md5 in run.data.tags.items() if tag.startswith("md5/")},
            run.data.params,
        )
        for run in runs
    ], ""


def collect_listings(history: Sequence[LockVersion], runs: Sequence[LoggedRun]) -> Listings:
    """The files of every folder that is an output, from DVC's cache, else from disk."""
    locks = [version.lock for version in history if version.lock]
    md5s = [output.md5 for lock in locks for output in lock.outputs] + [
        md5 for run in runs for md5 in run.outputs.values()
    ]
    listings = {md5: read_listing(md5, CACHE_DIR) for md5 in dict.fromkeys(md5s) if md5.endswith(".dir")}
    for output in history[0].lock.outputs if history[0].lock else ():
        if listings.get(output.md5, ...) is None and hash_output(Path(output.path)) == output.md5:
            files = list_files(output, Path())
            listings[output.md5] = {path.removeprefix(f"{output.path}/"): file.md5 for path, file in files.items()}
    return listings


def find_by_hash(
    md5: str, listings: Listings, history: Sequence[LockVersion], runs: Sequence[LoggedRun]
) -> list[Match]:
    """The states that have a file of this MD5, the newest first; then those that MLflow alone remembers."""
    ends = {md5: [""]}  # of the paths in an output that have the file, by the output's MD5
    for folder, files in listings.items():
        ends[folder] = [f"/{name}" for name, of in (files or {}).items() if of == md5]

    def locate(outputs: Iterable[Output]) -> dict[str, Output]:
        return {f"{output.path}{end}": output for output in outputs for end in ends.get(output.md5, ())}

    matches = find_states(history, lambda lock: locate(lock.outputs))
    known = {match.digest for match in matches}
    for run in runs:
        outputs = locate(Output("", path, md5) for path, md5 in run.outputs.items())
        if outputs and run.state not in known:
            known.add(run.state)
            matches.append(Match(run.state, run.params, outputs, []))
    return matches


def find_by_upstream(upstream: Upstream, history: Sequence[LockVersion]) -> list[Match]:
    """The states that have this upstream, the newest first."""

    def locate(lock: Lock) -> dict[str, Output]:
        try:
            params, outputs = digest_params(lock.state.params), lock.state.outputs
        except ParamsError:  # from before there was such a section
            return {}
        is_given = (params, outputs.get(_RAW_DATA), outputs.get(_MODEL)) == upstream
        return {output.path: output for output in lock.outputs if is_given and output.path == _EXPORTS}

    return find_states(history, locate)


def find_states(history: Sequence[LockVersion], locate: Callable[[Lock], dict[str, Output]]) -> list[Match]:
    """The states in which `locate` finds outputs, the newest first, with the commits whose change led to them."""
    digests: dict[str, str] = {}  # of the states, by commit
    matches: dict[str, Match] = {}
    for version in history:
        if version.lock and (outputs := locate(version.lock)):
            state = version.lock.state
            digests[version.commit] = state.digest
            matches.setdefault(state.digest, Match(state.digest, flatten_params(state.params), outputs, []))
    for version in history:
        digest = digests.get(version.commit)
        if version.commit and digest and digest not in map(digests.get, version.parents):
            matches[digest].commits.append(version.title)
    return list(matches.values())


def format_states(states: Sequence[Mapping[str, list[str]]], has_params: bool) -> list[str]:
    """The fields of the newest state, then of each older one what it has and the newest has not."""
    lines = []
    for number, fields in enumerate(states, start=1):
        lines += [f"state {number} of {len(states)}, where it differs"] if number > 1 else []
        for field, values in fields.items():
            shown = [value for value in values if number == 1 or value not in states[0][field]]
            if field == "params" and number == 1 and not has_params:
                shown = [f"{len(values)}, which --params lists"]
            lines += [f"  {field if line == 0 else '':<10} {value}" for line, value in enumerate(shown)]
    return lines
