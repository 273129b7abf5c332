"""What dvc.lock says of the pipeline: the state that a run stands for."""

import hashlib
import json
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from stages.lib.core.errors import DataError, TrackingError
from stages.lib.core.hashing import hash_output
from stages.lib.core.params import load_mapping

LOCK_PATH = Path("dvc.lock")
_GRAPH_PATH = Path("dvc.yaml")
# DVC's own, unless its config says otherwise.
_CACHE_DIR = Path(".dvc/cache/files/md5")

# A stage's deps as DVC writes them: four fifths of a dvc.lock that would be parsed for nothing. Nothing else in a stage
# stands this far to the left.
_DEPS = re.compile(r"^    deps:\n(?:    - .*\n|      .*\n)*", re.MULTILINE)

# The stage that tells the world of a state is no part of it.
_TELLING_STAGE = "track"


class State(NamedTuple):
    """A pipeline state: what the stages were given and what they made of it."""

    params: dict[str, dict[str, Any]]  # by section
    outputs: dict[str, str]  # MD5 by path, as DVC writes it
    digest: str  # SHA-256 of the two, hexadecimal


class _Part(BaseModel):
    """Part of a dvc.lock: what is read is typed, the rest is DVC's business."""

    model_config = ConfigDict(strict=True, extra="ignore")


class _Output(_Part):
    path: str
    md5: str


class _Stage(_Part):
    params: dict[str, dict[str, dict[str, Any]]] = {}  # by file, by section
    outs: list[_Output] = []


class _Lock(_Part):
    stages: dict[str, _Stage] = {}


def drop_deps(lock_text: str) -> str:
    """The text of a dvc.lock without what the stages depend on."""
    return _DEPS.sub("", lock_text)


def read_listing(md5: str, root: Path = Path()) -> dict[str, str] | None:
    """The files of a folder as the cache of the DVC in `root` lists them: MD5 by relative path.

    None if the listing is not there or damaged.
    """
    path = root / _CACHE_DIR / md5[:2] / md5[2:]
    if not path.is_file() or f"{hash_output(path)}.dir" != md5:
        return None
    return {entry["relpath"]: entry["md5"] for entry in json.loads(path.read_text(encoding="utf-8"))}


def read_state(lock_text: str) -> State:
    """The state in the text of a dvc.lock, be it the file's or that of `git show REV:dvc.lock`.

    Raises:
        ValueError: it is not what DVC writes.
    """
    try:
        lock = _Lock.model_validate(YAML(typ="safe", pure=True).load(drop_deps(lock_text)) or {})
    except YAMLError as error:
        raise ValueError(str(error)) from None
    except ValidationError as error:
        problem = error.errors(include_url=False, include_context=False)[0]
        what = problem["msg"].partition(" or instance of")[0]
        raise ValueError(f"{'.'.join(map(str, problem['loc']))}: {what}".removeprefix(": ")) from None
    params: dict[str, dict[str, Any]] = {}
    outputs: dict[str, str] = {}
    for name, stage in lock.stages.items():
        if name != _TELLING_STAGE:
            params |= {section: value for file in stage.params.values() for section, value in file.items()}
            outputs |= {out.path: out.md5 for out in stage.outs}
    try:
        canonical = json.dumps({"outputs": outputs, "params": params}, sort_keys=True)
    except TypeError as error:  # YAML has dates, and more that no params.yaml of ours has
        raise ValueError(str(error)) from None
    return State(params, outputs, hashlib.sha256(canonical.encode()).hexdigest())


def load_state() -> State:
    """The state in the dvc.lock of the current folder.

    Raises:
        DataError: there is none, or it is damaged.
    """
    try:
        return read_state(LOCK_PATH.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(str(LOCK_PATH), "no such file", "run `dvc repro`") from None
    except ValueError as error:  # not UTF-8, or not what DVC writes
        raise DataError(str(LOCK_PATH), f"it is damaged: {error}", f"run `git checkout {LOCK_PATH}`") from None


def require_current(
    state: State, params: Mapping[str, Any], needed_paths: Collection[str], hashed_paths: tuple[str, ...]
) -> None:
    """Refuse a state that is not what lies on disk, or that ends before its last stage.

    params: params.yaml as it is. needed_paths: outputs that the state must have. hashed_paths: beginnings of the paths
    of the outputs that are hashed again.

    Raises:
        TrackingError: a section or an output is another than dvc.lock says, or dvc.lock says nothing of it.
    """
    for path in needed_paths:
        if path not in state.outputs:
            raise TrackingError(str(LOCK_PATH), f"it has no output {path}", "run `dvc repro`")
    for section, value in state.params.items():
        if params.get(section) != value:
            raise TrackingError(f"params.yaml: {section}", "it differs from dvc.lock", "run `dvc repro`")
    for path, md5 in state.outputs.items():
        if path.startswith(hashed_paths) and (got := hash_output(Path(path))) != md5:
            raise TrackingError(path, expected=f"MD5 {md5} as in dvc.lock", got=got, hint="run `dvc repro`")


def require_valid_inputs(stage: str) -> None:
    """Refuse to begin a stage with outputs of earlier ones whose bytes are not those in dvc.lock.

    DVC takes what it brings back from its cache for what it is called there, and does not look. What a stage made of a
    damaged input would stand in dvc.lock and in DVC's run cache as made of the valid one, and be brought back for it.

    Raises:
        DataError: an output that dvc.yaml has as a dep of the stage was damaged.
    """
    deps = [Path(dep) for dep in load_mapping(_GRAPH_PATH, "what DVC reads")["stages"][stage].get("deps", [])]
    outputs = load_state().outputs if LOCK_PATH.exists() else {}
    for path, md5 in outputs.items():
        parts = [dep for dep in deps if dep.is_relative_to(path)]
        expected = {path: md5} if parts else {}
        # Of a folder, what the stage reads of it, where DVC's cache lists the files.
        if parts and Path(path) not in parts and (listing := read_listing(md5)):
            files = {f"{path}/{name}": digest for name, digest in listing.items()}
            expected = {name: digest for name, digest in files.items() if any(map(Path(name).is_relative_to, parts))}
        for name, digest in expected.items():
            if (got := hash_output(Path(name))) != digest:
                raise DataError(
                    name,
                    expected=f"MD5 {digest} as in dvc.lock",
                    got=got,
                    hint="run `pipeline verify --quick`: it names each damaged file and the command that heals it",
                )


def require_reproduced(stages: Sequence[str], params: Mapping[str, Any]) -> dict[str, str]:
    """The outputs of these stages, MD5 by path, if they are what the code, the params and the data here would give.

    stages: a chain, so that `dvc repro` of the last one runs all. params: params.yaml as it is.

    Raises:
        DataError: a source, a section or an output is another than dvc.lock says.
    """
    hint = f"run `dvc repro {stages[-1]}` first"
    recorded = load_mapping(LOCK_PATH, "what DVC writes") if LOCK_PATH.exists() else {}
    outputs: dict[str, str] = {}
    for name in stages:
        try:
            stage = recorded["stages"][name]
            sections = {section: value for file in stage["params"].values() for section, value in file.items()}
            files = {str(file["path"]): str(file["md5"]) for file in [*stage["deps"], *stage["outs"]]}
            outputs |= {str(file["path"]): str(file["md5"]) for file in stage["outs"]}
        except (AttributeError, KeyError, TypeError):
            raise DataError(str(LOCK_PATH), f"it has no stage {name}", hint) from None
        for section, value in sections.items():
            if params.get(section) != value:
                raise DataError(f"params.yaml: {section}", "it differs from dvc.lock", hint)
        for path, md5 in files.items():
            if (got := hash_output(Path(path))) != md5:
                raise DataError(path, expected=f"MD5 {md5} as in dvc.lock", got=got, hint=hint)
    return outputs
