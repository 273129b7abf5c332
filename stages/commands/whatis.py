"""Find the pipeline state that a file belongs to, whatever the file is called and wherever it lies.

Reads   the file; dvc.lock of the work tree and of every commit; DVC's cache; the MLflow store, if there is one
Prints  what the file is, how that was found, and the params, dvc.lock entry, commits and MLflow runs of each such state
"""

import hashlib
import os
import re
import subprocess
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import click
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from stages.lib.core.dvc_lock import LOCK_PATH, State, drop_deps, read_listing, read_state
from stages.lib.core.errors import DataError, ParamsError, TrackingError, show_controls
from stages.lib.core.git import require_no_refusal, run_git
from stages.lib.core.hashing import hash_output
from stages.lib.core.params import flatten_params
from stages.lib.core.paths import find_root, resolve
from stages.lib.exports.checksums import CHECKSUMS_NAME
from stages.lib.exports.lineage import Upstream, digest_params, read_upstream

_WORK_TREE = "work tree"
_RAW_DATA = "data/raw"
_MODEL = "models/model.keras"
_EXPORTS = "models/export"
_CHECKSUM_WIDTH = 66  # of a line of SHA256SUMS before the name: the digest, a blank, and another or an asterisk
_SHORT_SHA = 7
_NAME_WIDTH = len("found by") + 2

_FOLDER_MD5 = re.compile(r"\b[0-9a-f]{32}\.dir\b")
_EXPERIMENT_REF = re.compile(r"exps/[0-9a-f]{2}/[0-9a-f]{38}/([^,]+)")
# A line of `git log --raw`: modes, then ids of the blobs, of each parent and at last of the commit, and what happened.
_BLOB_IDS = re.compile(r"^:+(?:[0-7]{6} )+((?:[0-9a-f]{40,} )+)[A-Z]+\t", re.MULTILINE)

Listing = dict[str, str]  # a folder's files: MD5 by relative path


class File(NamedTuple):
    """The file in question."""

    path: Path
    size: int  # bytes
    md5: str
    sha256: str


class Change(NamedTuple):
    """A commit that changed dvc.lock."""

    title: str  # short SHA, date, and the subject or DVC's name of the experiment
    blob: str  # git's id of dvc.lock after it
    before: list[str]  # git's ids of dvc.lock in its parents


class History(NamedTuple):
    """Every dvc.lock there is, the newest first."""

    texts: dict[str, str]  # without deps, by git's id of the blob or as `_WORK_TREE`
    changes: list[Change]


class Output(NamedTuple):
    """An output in a dvc.lock."""

    stage: str
    md5: str


class Lock(NamedTuple):
    """What a dvc.lock says."""

    state: State
    outputs: dict[str, Output]  # by path, those of all stages


class LoggedRun(NamedTuple):
    """A finished run in the MLflow store."""

    title: str
    state: str  # digest of the state
    outputs: dict[str, str]  # MD5 by path
    params: dict[str, str]  # dotted names
    versions: list[str]  # what is registered of it, with aliases


class Place(NamedTuple):
    """Where a state has the file."""

    path: str
    stage: str  # the one that made it; empty if unknown
    output: str  # path of the output in dvc.lock: the file itself or a folder around it
    md5: str  # of that output


class Match(NamedTuple):
    """A state that the file belongs to."""

    digest: str
    params: dict[str, Any]  # dotted names
    places: list[Place]
    commits: list[str]


class Verdict(NamedTuple):
    """How a file was found in a state."""

    ways: list[str]
    is_other: bool = False  # it says that it belongs there, but its bytes are others


@click.command()
@click.argument("path", metavar="FILE|REV", type=click.Path(path_type=Path))
def whatis(path: Path) -> None:
    """Find the params, dvc.lock entry, commits and MLflow runs that a file or a commit belongs to.

    FILE is any file that the pipeline made, under any name, anywhere. It is known by its bytes; an exported model is
    known by the digests inside it, too, also in a fresh clone. REV is a commit, branch or tag, if there is no such
    file. Nothing is written. Exit code 1 if no state has it.
    """
    commit = None if path.exists() else find_commit(str(path))
    lines = describe_commit(str(path), commit) if commit else describe_origin(path)
    print("\n".join(map(show_controls, lines)))  # files and stores may be anybody's


def find_commit(revision: str) -> str | None:
    """The SHA of the commit that `revision` names; none if there is no such one."""
    return run_git("rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}")


def describe_commit(revision: str, commit: str) -> list[str]:
    """What dvc.lock says at a commit, and the runs of that state.

    Raises:
        DataError: there is no valid dvc.lock at that commit.
    """
    lock = parse_lock(run_git("show", f"{commit}:./{LOCK_PATH}") or "")
    if lock is None:
        raise DataError(
            f"{commit[:_SHORT_SHA]}:{LOCK_PATH}", expected="a valid one", got="none", hint="choose another commit"
        )
    runs, remark = read_runs()
    files = []
    for path, output in lock.outputs.items():
        files.append(f"{path}  md5 {output.md5}")
        if path == _EXPORTS:
            listing = read_listing(output.md5, find_root()) or {}
            files += [f"{path}/{name}  md5 {md5}" for name, md5 in listing.items()]
    fields = {
        "commit": [str(run_git("show", "--no-patch", "--format=%h %cs %s", commit))],
        "params": [f"{name}: {value}" for name, value in flatten_params(lock.state.params).items()],
        "dvc.lock": files,
        "MLflow": [remark] if remark else describe_runs([run for run in runs if run.state == lock.state.digest]),
    }
    lines = [line for name, values in fields.items() for line in format_field(name, values)]
    return [f"{revision}: the state {lock.state.digest[:_SHORT_SHA]} of the pipeline", *lines]


def describe_origin(path: Path) -> list[str]:
    """What a file is, how that was found, and the states that have it.

    Raises:
        DataError: it is no file, or none that this pipeline made.
    """
    file = read_file(path)
    history = read_history()
    runs, remark = read_runs()
    listings = collect_listings(history, runs)
    names = list_names(file, listings)
    matches = find_by_hash(names, history, runs)
    is_whole = bool(matches)
    upstream = None if is_whole else read_upstream(path)
    if upstream:
        matches = find_by_upstream(upstream, history)
    if not matches:
        raise DataError(
            str(path),
            expected="a file that this pipeline made",
            got=describe_search(file, names, upstream, history, listings, remark),
            hint="fetch the commit or the experiment that made it, or look in the clone where it was made",
        )
    if is_whole:
        verdicts = [describe_bytes(file, match) for match in matches]
        what = describe_places(matches)
    else:
        verdicts = [describe_claim(file, listings.get(match.places[0].md5)) for match in matches]
        what = describe_claims(verdicts)
    states = [
        {
            "found by": verdict.ways,
            "params": [f"{name}: {value}" for name, value in match.params.items()],
            "dvc.lock": list(dict.fromkeys(f"{place.output}  md5 {place.md5}" for place in match.places)),
            "commits": match.commits or ["none"],
            "MLflow": [remark] if remark else describe_runs([run for run in runs if run.state == match.digest]),
        }
        for match, verdict in zip(matches, verdicts, strict=True)
    ]
    return [f"{path}: {what}", *describe_file(file), *format_states(states)]


def read_file(path: Path) -> File:
    """The file's size and digests.

    Raises:
        DataError: it is none.
    """
    if not path.is_file():
        got = "a folder" if path.is_dir() else "something else" if path.exists() else "none"
        raise DataError(str(path), expected="a file", got=got, hint="name a file that the pipeline made")
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    return File(path, path.stat().st_size, hash_output(path), sha256)


def read_history() -> History:
    """The dvc.lock of the work tree and those of all commits of all refs, DVC's experiments among them.

    Raises:
        DataError: there is none.
    """
    changes = list_changes()
    texts = {_WORK_TREE: LOCK_PATH.read_text(encoding="utf-8", errors="replace")} if LOCK_PATH.is_file() else {}
    texts |= read_blobs(dict.fromkeys(change.blob for change in changes))
    if not texts:
        raise DataError(
            str(LOCK_PATH),
            expected="one in this folder or in a commit",
            got="none",
            hint="run in the project's root folder, after the first `dvc repro`",
        )
    # Two versions that differ in sources alone are the same without deps.
    return History({key: drop_deps(text) for key, text in texts.items()}, changes)


def list_changes() -> list[Change]:
    """The commits of all refs that changed dvc.lock, the newest first; none outside git.

    Raises:
        PipelineError: git does not open the repository.
    """
    require_no_refusal("a git repository, or none")
    log = run_git(
        *("-c", "log.showRoot=true", "log", "--all", "--full-history", "--diff-merges=combined"),
        *("--raw", "--no-abbrev", "--no-renames", "--no-color", "--no-show-signature"),
        *("--decorate-refs=refs/exps/*", "--format=%x00%H%x09%cs%x09%D%x09%s", "--", str(LOCK_PATH)),
    )
    changes = []
    for record in (log or "").split("\0")[1:]:
        head, _, difference = record.partition("\n")
        commit, date, refs, subject = head.split("\t", maxsplit=3)
        experiment = _EXPERIMENT_REF.search(refs)
        title = f"{commit[:_SHORT_SHA]} {date} {f'experiment {experiment[1]}' if experiment else subject}"
        ids = _BLOB_IDS.search(difference)
        if ids:  # a merge that leaves dvc.lock as one of its parents has it is listed, too
            *before, blob = ids[1].split()
            changes.append(Change(title, blob, before))
    return changes


def read_blobs(ids: Iterable[str]) -> dict[str, str]:
    """The texts of git's blobs by their ids, in their order; without those that are not there."""
    asked = "\n".join(ids).encode()
    if not asked:
        return {}
    answer = subprocess.run(["git", "cat-file", "--batch"], input=asked, capture_output=True, check=True).stdout  # noqa: S607
    texts: dict[str, str] = {}
    while answer:  # "ID blob SIZE", the content and an empty line; or "ID missing", as for a commit that deletes it
        head, _, answer = answer.partition(b"\n")
        name, kind, *size = head.decode().split()
        if size:
            content, answer = answer[: int(size[0])], answer[int(size[0]) + 1 :]
            if kind == "blob":
                texts[name] = content.decode(errors="replace")
    return texts


@cache
def parse_lock(text: str) -> Lock | None:
    """What the text of a dvc.lock says; none if it is damaged."""
    try:
        stages: Mapping[str, Any] = YAML(typ="safe", pure=True).load(text)["stages"]
        outputs = {
            str(out["path"]): Output(str(name), str(out["md5"]))
            for name, stage in stages.items()
            for out in stage.get("outs", [])
        }
        return Lock(read_state(text), outputs)
    except (AttributeError, LookupError, TypeError, ValueError, YAMLError):  # YAML, but not what DVC writes
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
            client = store.client
            experiments = {found.experiment_id: found.name for found in client.search_experiments()}
            criterion = f"tags.`{STATE_TAG}` LIKE '%' and attributes.status = 'FINISHED'"
            runs = read_pages(lambda token: client.search_runs(list(experiments), criterion, page_token=token))
            versions = list_versions(client, {run.info.run_id for run in runs})
    except (TrackingError, OSError) as problem:  # what is known without it is worth telling
        return [], f"not asked: {problem}"
    return [
        LoggedRun(
            f"{run.info.run_name} (run {run.info.run_id}, experiment {experiments[run.info.experiment_id]})",
            run.data.tags[STATE_TAG],
            {tag.removeprefix("md5/"): md5 for tag, md5 in run.data.tags.items() if tag.startswith("md5/")},
            run.data.params,
            versions.get(run.info.run_id, []),
        )
        for run in runs
    ], ""


def list_versions(client: Any, run_ids: set[str]) -> dict[str, list[str]]:  # noqa: ANN401  # MLflow is not imported
    """The registered model versions of these runs by run, each with its aliases."""
    found = read_pages(lambda token: client.search_model_versions(page_token=token))
    found = [version for version in found if version.run_id in run_ids]
    aliases = {name: client.get_registered_model(name).aliases for name in {version.name for version in found}}
    versions: dict[str, list[str]] = {}
    for version in found:
        names = [alias for alias, number in aliases[version.name].items() if str(number) == str(version.version)]
        title = ", ".join([f"{version.name} version {version.version}", *names])
        versions.setdefault(version.run_id, []).append(title)
    return versions


def read_pages(read_page: Callable[[str | None], Any]) -> list[Any]:
    """All items of MLflow's pages; the first one has no token."""
    page = read_page(None)
    items = list(page)
    while page.token:
        page = read_page(page.token)
        items += page
    return items


def collect_listings(history: History, runs: Sequence[LoggedRun]) -> dict[str, Listing | None]:
    """The files of every folder that is an output, by the folder's MD5: from DVC's cache, else from disk."""
    wanted = [md5 for text in history.texts.values() for md5 in _FOLDER_MD5.findall(text)]
    wanted += [md5 for run in runs for md5 in run.outputs.values() if md5.endswith(".dir")]
    root = find_root()
    listings = {md5: read_listing(md5, root) for md5 in dict.fromkeys(wanted)}
    lock = parse_lock(history.texts.get(_WORK_TREE, ""))
    for path, output in lock.outputs.items() if lock else ():
        if listings.get(output.md5, ...) is None and hash_output(Path(path)) == output.md5:
            files = (file for file in sorted(Path(path).rglob("*")) if file.is_file())
            listings[output.md5] = {file.relative_to(path).as_posix(): hash_output(file) for file in files}
    return listings


def list_names(file: File, listings: Mapping[str, Listing | None]) -> dict[str, list[str]]:
    """By the MD5 of each output that has the file: its relative paths in there; the empty one if it is the output."""
    names = {file.md5: [""]}
    for md5, listing in listings.items():
        inside = [name for name, digest in (listing or {}).items() if digest == file.md5]
        if inside:
            names[md5] = inside
    return names


def find_by_hash(names: Mapping[str, Sequence[str]], history: History, runs: Sequence[LoggedRun]) -> list[Match]:
    """The states that have the file's bytes, the newest first; then those that MLflow alone remembers.

    names: as `list_names` gives them.
    """

    def locate(outputs: Mapping[str, Output]) -> list[Place]:
        return [
            Place((PurePosixPath(path) / name).as_posix(), output.stage, path, output.md5)
            for path, output in outputs.items()
            for name in names.get(output.md5, ())
        ]

    matches = find_states(history, lambda text: any(md5 in text for md5 in names), lambda lock: locate(lock.outputs))
    known = {match.digest for match in matches}
    lock = parse_lock(history.texts.get(_WORK_TREE, ""))
    stages = {path: output.stage for path, output in lock.outputs.items()} if lock else {}
    for run in runs:
        places = locate({path: Output(stages.get(path, ""), md5) for path, md5 in run.outputs.items()})
        if places and run.state not in known:
            known.add(run.state)
            matches.append(Match(run.state, dict(run.params), places, []))
    return matches


def find_by_upstream(upstream: Upstream, history: History) -> list[Match]:
    """The states that have this upstream, the newest first."""

    def locate(lock: Lock) -> list[Place]:
        outputs = lock.state.outputs
        if _EXPORTS not in outputs or (outputs.get(_RAW_DATA), outputs.get(_MODEL)) != (upstream.data, upstream.model):
            return []
        try:
            is_given = digest_params(lock.state.params) == upstream.params
        except ParamsError:  # from before there was such a section
            return []
        return [Place(_EXPORTS, lock.outputs[_EXPORTS].stage, _EXPORTS, outputs[_EXPORTS])] if is_given else []

    return find_states(history, lambda text: upstream.data in text and upstream.model in text, locate)


def find_states(history: History, is_hit: Callable[[str], bool], locate: Callable[[Lock], list[Place]]) -> list[Match]:
    """The states in which `locate` finds places, the newest first, with the commits whose change led to them.

    is_hit: whether the text of a dvc.lock is worth parsing.
    """
    digests: dict[str, str] = {}  # of the states, by key in the history
    matches: dict[str, Match] = {}
    for key, text in history.texts.items():
        lock = parse_lock(text) if is_hit(text) else None
        places = locate(lock) if lock else []
        if lock and places:
            digest = digests[key] = lock.state.digest
            commits = [_WORK_TREE] if key == _WORK_TREE else []
            matches.setdefault(digest, Match(digest, flatten_params(lock.state.params), places, commits))
    for change in history.changes:
        change_digest = digests.get(change.blob)
        if change_digest and change_digest not in {digests.get(blob) for blob in change.before}:
            matches[change_digest].commits.append(change.title)
    return list(matches.values())


def describe_search(
    file: File,
    names: Iterable[str],
    upstream: Upstream | None,
    history: History,
    listings: Mapping[str, Listing | None],
    remark: str,
) -> str:
    """Where the file was looked for in vain."""
    commits = {change.blob: change.title.split()[0] for change in reversed(history.changes)}
    damaged = [
        commits.get(key, key)
        for key, text in history.texts.items()
        if any(md5 in text for md5 in names) and parse_lock(text) is None
    ]
    unlisted = list(listings.values()).count(None)
    return "".join(
        [
            f"MD5 {file.md5}, unknown to dvc.lock (versions: {len(history.texts)})",
            "" if remark else " and to the MLflow store",
            ", exported from a state that is not here, as it says itself" if upstream else "",
            f", but in a damaged dvc.lock ({', '.join(damaged)})" if damaged else "",
            f" (listings of folders that DVC's cache does not have: {unlisted})" if unlisted else "",
        ]
    )


def describe_bytes(file: File, match: Match) -> Verdict:
    """How a file was found by its hash."""
    ways = [
        f"its MD5 {file.md5}, "
        + (f"that of {place.output}" if place.path == place.output else f"in the listing of {place.output}")
        for place in match.places
    ]
    return Verdict(list(dict.fromkeys(ways)))


def describe_claim(file: File, listing: Listing | None) -> Verdict:
    """How a file was found by the digests inside it, and what is known of its own bytes.

    listing: the exports of the state that it claims. The file is none of them: it was not found by its hash.
    """
    way = "the digests inside it; "
    if listing is not None:
        return Verdict([f"{way}its own bytes are none that the listing of {_EXPORTS} names"], is_other=True)
    path = file.path.parent / CHECKSUMS_NAME
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []
    digests = {line[_CHECKSUM_WIDTH:]: line[: len(file.sha256)] for line in lines}
    if file.sha256 in digests.values():
        return Verdict([f"{way}its own bytes were compared with {CHECKSUMS_NAME} beside it alone"])
    if file.path.name in digests:
        return Verdict([f"{way}its own bytes are not those that {CHECKSUMS_NAME} beside it names"], is_other=True)
    return Verdict([f"{way}its own bytes were not compared, for the listing of {_EXPORTS} is not in DVC's cache"])


def describe_places(matches: Sequence[Match]) -> str:
    """What a file is in the states that have its bytes."""
    stages: dict[str, str] = {}  # by path
    for place in (place for match in matches for place in match.places):
        stages.setdefault(place.path, place.stage)
    kinds = [f"{path}, an output{f' of {stage}' if stage else ''}" for path, stage in stages.items()]
    return "; ".join(kinds) + describe_count(matches)


def describe_claims(verdicts: Sequence[Verdict]) -> str:
    """What a file is that was found by the digests inside it."""
    if all(verdict.is_other for verdict in verdicts):
        claim = f"NOT a file that the pipeline wrote, but what became of one of {_EXPORTS}: damaged or changed"
    else:
        claim = f"one of {_EXPORTS}, as it says itself"
    return claim + describe_count(verdicts)


def describe_count(states: Sequence[object]) -> str:
    """The number of states, as the end of a sentence, if there are several."""
    return f"; in {len(states)} states, the newest first" if len(states) > 1 else ""


def describe_file(file: File) -> list[str]:
    """The file's size and its digest."""
    return [*format_field("size", [f"{file.size:,} bytes"]), *format_field("SHA-256", [file.sha256])]


def describe_runs(runs: Sequence[LoggedRun]) -> list[str]:
    """A line for each run, with what is registered of it."""
    return [", ".join([run.title, *run.versions]) for run in runs] or ["none"]


def format_states(states: Sequence[Mapping[str, Sequence[str]]]) -> list[str]:
    """The lines that all states have, once; then for each state those that differ.

    states: lines by name of the field. Params are compared line by line, other fields as a whole.
    """
    first, *others = states
    shared = {
        name: [line for line in lines if all(line in state[name] for state in others)]
        if name == "params" or all(state[name] == lines for state in others)
        else []
        for name, lines in first.items()
    }
    output = [line for name, lines in shared.items() for line in format_field(name, lines)]
    for number, state in enumerate(states if others else [], start=1):
        output.append(f"state {number} of {len(states)}")
        for name, lines in state.items():
            output += format_field(name, [line for line in lines if line not in shared[name]])
    return output


def format_field(name: str, lines: Sequence[str]) -> list[str]:
    """A field's lines with its name before the first; nothing without lines."""
    return [f"  {name if number == 0 else '':<{_NAME_WIDTH}} {line}" for number, line in enumerate(lines)]
