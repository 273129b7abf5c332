"""What dvc.lock and dvc.yaml say: outputs, and the pipeline state that a run stands for."""

import hashlib
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict, ValidationError

from stages.lib.core.errors import DataError, ParamsError
from stages.lib.core.hashing import hash_output
from stages.lib.core.params import PARAMS_PATH, load_mapping, parse_yaml

LOCK_PATH = Path("dvc.lock")
GRAPH_PATH = Path("dvc.yaml")
# DVC's own, unless its config says otherwise.
CACHE_DIR = Path(".dvc/cache")

# The stage that tells the world of a state is no part of it.
_TELLING_STAGE = "track"


class State(NamedTuple):
    """A pipeline state: what the stages were given and what they made of it."""

    params: dict[str, dict[str, Any]]  # by section
    outputs: dict[str, str]  # MD5 by path, as DVC writes it
    digest: str  # SHA-256 of the two, hexadecimal


class Output(NamedTuple):
    """A file or a folder that a stage wrote."""

    stage: str
    path: str
    md5: str  # of a folder, of its listing, with `.dir` behind it


class _Part(BaseModel):
    """Part of a dvc.lock: what is read is typed, the rest is DVC's business."""

    model_config = ConfigDict(strict=True, extra="ignore")


class _Entry(_Part):
    path: str
    md5: str


class LockedStage(_Part):
    """A stage as it last ran."""

    cmd: str = ""
    deps: list[_Entry] = []
    params: dict[str, dict[str, dict[str, Any]]] = {}  # by file, by section
    outs: list[_Entry] = []

    @property
    def sections(self) -> dict[str, dict[str, Any]]:
        """The params by section, of all files."""
        return {section: value for file in self.params.values() for section, value in file.items()}


class Lock(_Part):
    """All that dvc.lock says."""

    stages: dict[str, LockedStage] = {}

    @property
    def outputs(self) -> list[Output]:
        """The outputs of all stages."""
        return [Output(name, out.path, out.md5) for name, stage in self.stages.items() for out in stage.outs]

    @property
    def state(self) -> State:
        """The pipeline state that the lock describes."""
        stages = [stage for name, stage in self.stages.items() if name != _TELLING_STAGE]
        params = {section: value for stage in stages for section, value in stage.sections.items()}
        outputs = {out.path: out.md5 for stage in stages for out in stage.outs}
        canonical = json.dumps({"outputs": outputs, "params": params}, sort_keys=True)
        return State(params, outputs, hashlib.sha256(canonical.encode()).hexdigest())


def parse_lock(text: str, where: str = str(LOCK_PATH), hint: str = f"run `git checkout {LOCK_PATH}`") -> Lock:
    """The text of a dvc.lock, be it the file's or that of a commit.

    where, hint: what an error names, and what to do about it.

    Raises:
        DataError: it is not what DVC writes.
    """
    try:
        lock = Lock.model_validate(parse_yaml(text) or {})
        _ = lock.state  # YAML has dates, and more that no params.yaml of ours has
    except (TypeError, ValueError) as error:
        reason = str(error)
        if isinstance(error, ValidationError):
            problem = error.errors(include_url=False, include_context=False)[0]
            what = problem["msg"].partition(" or instance of")[0]
            reason = f"{'.'.join(map(str, problem['loc']))}: {what}".removeprefix(": ")
        raise DataError(where, f"it is damaged: {reason}", hint) from None
    return lock


def load_lock() -> Lock:
    """The dvc.lock of the current folder.

    Raises:
        DataError: there is none, or it is damaged.
    """
    try:
        return parse_lock(LOCK_PATH.read_text(encoding="utf-8", errors="replace"))
    except FileNotFoundError:
        hint = "run `dvc repro` in the project's root folder"
        raise DataError(str(LOCK_PATH), "no such file", hint) from None


def load_graph(root: Path = Path()) -> dict[str, dict[str, Any]]:
    """The stages in dvc.yaml by name.

    Raises:
        ParamsError: there is no such file, or it is damaged.
    """
    path = root / GRAPH_PATH
    stages = load_mapping(path, "stages").get("stages")
    if not isinstance(stages, dict):
        raise ParamsError(str(path), "it has no stages", f"run `git checkout {path}`")
    return stages


def locate_object(cache_dir: Path, md5: str) -> Path:
    """The file in DVC's cache that has, or had, this MD5."""
    return cache_dir / "files" / "md5" / md5[:2] / md5[2:]


def read_listing(md5: str, cache_dir: Path = CACHE_DIR) -> dict[str, str] | None:
    """The files of a folder as DVC's cache lists them: MD5 by relative path; none if the listing is gone or damaged."""
    path = locate_object(cache_dir, md5)
    if not path.is_file() or f"{hash_output(path)}.dir" != md5:
        return None
    return {entry["relpath"]: entry["md5"] for entry in json.loads(path.read_text(encoding="utf-8"))}


def list_stale(
    locked: Mapping[str, Any], params: Mapping[str, Any], files: Mapping[str, str], hint: str
) -> Iterator[DataError]:
    """What is not as dvc.lock has it, section by section and file by file.

    locked, params: sections, as dvc.lock and as params.yaml has them. files: MD5 by path, as dvc.lock has it. hint:
    what to do about it.
    """
    for section, value in locked.items():
        if params.get(section) != value:
            yield DataError(f"{PARAMS_PATH}: {section}", "it differs from dvc.lock", hint)
    for path, md5 in files.items():
        if (got := hash_output(Path(path))) != md5:
            yield DataError(path, expected=f"MD5 {md5} as in dvc.lock", got=got, hint=hint)


def require_current(
    state: State, params: Mapping[str, Any], needed_paths: Collection[str], hashed_paths: tuple[str, ...]
) -> None:
    """Refuse a state that is not what lies on disk, or that ends before its last stage.

    params: params.yaml as it is. needed_paths: outputs that the state must have. hashed_paths: beginnings of the paths
    of the outputs that are hashed again.

    Raises:
        DataError: a section or an output is another than dvc.lock says, or dvc.lock says nothing of it.
    """
    hint = "run `dvc repro`"
    for path in needed_paths:
        if path not in state.outputs:
            raise DataError(str(LOCK_PATH), f"it has no output {path}", hint)
    hashed = {path: md5 for path, md5 in state.outputs.items() if path.startswith(hashed_paths)}
    for problem in list_stale(state.params, params, hashed, hint):
        raise problem


def require_valid_inputs(stage: str) -> None:
    """Refuse to begin a stage with outputs of earlier ones whose bytes are not those in dvc.lock.

    DVC takes what it brings back from its cache for what it is called there, and does not look. What a stage made of a
    damaged input would stand in dvc.lock and in DVC's run cache as made of the valid one, and be brought back for it.

    Raises:
        DataError: an output that dvc.yaml has as a dep of the stage was damaged.
    """
    deps = [Path(dep) for dep in load_graph()[stage].get("deps", [])]
    files: dict[str, str] = {}
    for _, path, md5 in load_lock().outputs if LOCK_PATH.exists() else ():
        parts = [dep for dep in deps if dep.is_relative_to(path)]
        # Of a folder, what the stage reads of it, where DVC's cache lists the files.
        if parts and Path(path) not in parts and (listing := read_listing(md5)):
            inside = {f"{path}/{name}": digest for name, digest in listing.items()}
            files |= {name: digest for name, digest in inside.items() if any(map(Path(name).is_relative_to, parts))}
        elif parts:
            files[path] = md5
    hint = "run `pipeline verify --quick`: it names each damaged file and the command that heals it"
    for problem in list_stale({}, {}, files, hint):
        raise problem


def require_reproduced(stages: Sequence[str], params: Mapping[str, Any]) -> dict[str, str]:
    """The outputs of these stages, MD5 by path, if they are what the code, the params and the data here would give.

    stages: a chain, so that `dvc repro` of the last one runs all. params: params.yaml as it is.

    Raises:
        DataError: a source, a section or an output is another than dvc.lock says.
    """
    hint = f"run `dvc repro {stages[-1]}` first"
    locked = load_lock().stages if LOCK_PATH.exists() else {}
    outputs: dict[str, str] = {}
    for name in stages:
        if name not in locked:
            raise DataError(str(LOCK_PATH), f"it has no stage {name}", hint)
        made = {out.path: out.md5 for out in locked[name].outs}
        files = {dep.path: dep.md5 for dep in locked[name].deps} | made
        for problem in list_stale(locked[name].sections, params, files, hint):
            raise problem
        outputs |= made
    return outputs
