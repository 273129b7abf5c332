"""Whether the outputs on disk and in DVC's cache have the bytes that dvc.lock promises, each hashed anew.

DVC itself takes a read-only cache object for sound, and a file for unchanged whose time and size it remembers.
"""

import shlex
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from stages.lib.core.dvc_lock import Output, locate_object, read_listing
from stages.lib.core.errors import DataError
from stages.lib.core.hashing import hash_output


class ExpectedFile(NamedTuple):
    """One file of an output."""

    md5: str
    source: Path | None  # where these bytes lie, on disk or in the cache


class Audit(NamedTuple):
    """What hashing everything found."""

    problems: list[DataError]
    files: dict[str, dict[str, ExpectedFile]]  # by path of the output: by path; empty if a listing is not known
    file_count: int  # of those that dvc.lock promises
    object_count: int  # of DVC's cache


def find_uncached(graph: Mapping[str, Any]) -> set[str]:
    """The outputs that DVC's cache does not have, as the stages in dvc.yaml say, and dvc.lock does not."""
    entries = [
        entry for stage in graph.values() for kind in ("outs", "metrics", "plots") for entry in stage.get(kind, [])
    ]
    given = [entry for entry in entries if isinstance(entry, dict)]
    return {path for entry in given for path, options in entry.items() if options.get("cache") is False}


def audit(outputs: Sequence[Output], uncached: Collection[str], cache_dir: Path) -> Audit:
    """Hash every output on disk, relative to the current folder, and its objects in DVC's cache.

    uncached: paths of the outputs that are not in the cache.
    """
    cached = [output for output in outputs if output.path not in uncached]  # git may hold the others
    places = [path for output in cached for path in (Path(output.path), locate_object(cache_dir, output.md5))]
    if cached and not any(place.exists() for place in places):
        missing = "none of its outputs is on disk or in DVC's cache"
        problem = DataError("dvc.lock", missing, "run `dvc pull` if there is a remote, else `dvc repro`")
        return Audit([problem], {output.path: {} for output in outputs}, 0, 0)
    objects: dict[Path, str] = {}  # what their hash is, so that what several outputs share is hashed and told of once
    problems: list[DataError] = []
    files = {}
    for output in outputs:
        found, files[output.path] = _examine(output, output in cached, cache_dir, objects)
        problems += found
    return Audit(problems, files, sum(map(len, files.values())), len(objects))


def list_files(output: Output, root: Path) -> dict[str, ExpectedFile]:
    """The files of an output as they lie below `root`, by their paths in the project."""
    path = root / output.path
    found = sorted(path.rglob("*")) if path.is_dir() else [path]
    return {
        file.relative_to(root).as_posix(): ExpectedFile(hash_output(file), file) for file in found if file.is_file()
    }


def _examine(
    output: Output, is_cached: bool, cache_dir: Path, objects: dict[Path, str]
) -> tuple[list[DataError], dict[str, ExpectedFile]]:
    """The errors of one output and its files, all hashed; `objects` is added to."""
    on_disk = {path: file.md5 for path, file in list_files(output, Path()).items()}
    is_valid = hash_output(Path(output.path)) == output.md5
    problems: list[DataError] = []

    def check(md5: str, name: str) -> Path | None:
        """The object if it is valid; else an error, the first time."""
        path = locate_object(cache_dir, md5)
        is_known = path in objects
        got = objects.setdefault(path, hash_output(path))
        if got == md5.removesuffix(".dir"):
            return path
        if not is_known:
            problems.append(_describe_object(path, name, md5, got, output.path if is_valid else None))
        return None

    own = check(output.md5, output.path) if is_cached else None
    if output.md5.endswith(".dir"):
        listing = read_listing(output.md5, cache_dir) if own else None
        expected = {f"{output.path}/{name}": md5 for name, md5 in (listing or {}).items()}
        expected = expected or (on_disk if is_valid else {})
        cached = {path: check(md5, path) for path, md5 in expected.items()} if is_cached else {}
    else:
        expected, cached = {output.path: output.md5}, {output.path: own}
    if not is_valid:
        can_checkout = own is not None and None not in cached.values()
        problems += _describe_disk(output, expected, on_disk, can_checkout)  # after the cache's, which DVC would take
    files = {
        path: ExpectedFile(md5, Path(path) if is_valid or on_disk.get(path) == md5 else cached.get(path))
        for path, md5 in expected.items()
    }
    return problems, files


def _describe_object(path: Path, name: str, md5: str, got: str, valid_output: str | None) -> DataError:
    """A cache object that is not there or not what its name says.

    valid_output: the output that can fill the cache again.
    """
    remove = "" if got == "nothing" else f"rm -f {shlex.quote(str(path))}"
    if valid_output:
        hint = f"`{' && '.join(filter(None, [remove, f'dvc commit {shlex.quote(valid_output)}']))}`"
    else:
        hint = f"{f'`{remove}`, then ' if remove else ''}`dvc fetch` if there is a remote, else `dvc repro`"
    return DataError(f"{path} ({name})", expected=f"MD5 {md5.removesuffix('.dir')}", got=got, hint=hint)


def _describe_disk(
    output: Output, expected: Mapping[str, str], on_disk: Mapping[str, str], can_checkout: bool
) -> Iterator[DataError]:
    """The files of an output that are not there or others than dvc.lock promises; the folder if no file is known."""
    command = "dvc repro"
    if can_checkout:
        # Several files of a folder may be wrong: without --force DVC asks about each of the others.
        force = "--force " if output.md5.endswith(".dir") else ""
        command = f"dvc checkout {force}{shlex.quote(output.path)}"
    if not expected or not Path(output.path).exists():
        expected, on_disk = {output.path: output.md5}, {output.path: hash_output(Path(output.path))}
    for path in sorted(expected.keys() | on_disk.keys()):
        md5, got = expected.get(path), on_disk.get(path, "nothing")
        if md5 != got:
            hint = command if got == "nothing" else f"rm -rf {shlex.quote(path)} && {command}"
            yield DataError(path, expected=f"MD5 {md5}" if md5 else "nothing", got=got, hint=f"`{hint}`")
