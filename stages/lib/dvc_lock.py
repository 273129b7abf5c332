"""What dvc.lock says of the pipeline: the state that a run stands for."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ruamel.yaml import YAML

from stages.lib.errors import DataError, TrackingError
from stages.lib.hashing import hash_output
from stages.lib.params import load_mapping

LOCK_PATH = Path("dvc.lock")

# The stage that tells the world of a state is no part of it.
_TELLING_STAGE = "track"


class State(NamedTuple):
    """A pipeline state: what the stages were given and what they made of it."""

    params: dict[str, dict[str, Any]]  # by section
    outputs: dict[str, str]  # MD5 by path, as DVC writes it
    digest: str  # SHA-256 of the two, hexadecimal


def read_state(lock_text: str) -> State:
    """The state in the text of a dvc.lock, be it the file's or that of `git show REV:dvc.lock`."""
    stages: Mapping[str, Any] = (YAML(typ="safe", pure=True).load(lock_text) or {}).get("stages", {})
    params: dict[str, dict[str, Any]] = {}
    outputs: dict[str, str] = {}
    for name, stage in stages.items():
        if name != _TELLING_STAGE:
            params |= {section: value for file in stage.get("params", {}).values() for section, value in file.items()}
            outputs |= {out["path"]: out["md5"] for out in stage.get("outs", [])}
    canonical = json.dumps({"outputs": outputs, "params": params}, sort_keys=True)
    return State(params, outputs, hashlib.sha256(canonical.encode()).hexdigest())


def require_current(state: State, params: Mapping[str, Any], hashed_paths: tuple[str, ...]) -> None:
    """Refuse a state that is not what lies on disk.

    params: params.yaml as it is. hashed_paths: beginnings of the paths of the outputs that are hashed again.

    Raises:
        TrackingError: a section or an output is another than dvc.lock says.
    """
    for section, value in state.params.items():
        if params.get(section) != value:
            raise TrackingError(
                f"params.yaml: {section}",
                expected="what dvc.lock has",
                got="another value",
                do="run `dvc repro`",
            )
    for path, md5 in state.outputs.items():
        if path.startswith(hashed_paths) and (got := hash_output(Path(path))) != md5:
            raise TrackingError(path, expected=f"MD5 {md5} as in dvc.lock", got=got, do="run `dvc repro`")


def require_reproduced(stages: Sequence[str], params: Mapping[str, Any]) -> dict[str, str]:
    """The outputs of these stages, MD5 by path, if they are what the code, the params and the data here would give.

    stages: a chain, so that `dvc repro` of the last one runs all. params: params.yaml as it is.

    Raises:
        DataError: a source, a section or an output is another than dvc.lock says.
    """
    do = f"run `dvc repro {stages[-1]}` first"
    recorded = load_mapping(LOCK_PATH, "what DVC writes") if LOCK_PATH.exists() else {}
    outputs: dict[str, str] = {}
    for name in stages:
        try:
            stage = recorded["stages"][name]
            sections = {section: value for file in stage["params"].values() for section, value in file.items()}
            files = {str(file["path"]): str(file["md5"]) for file in [*stage["deps"], *stage["outs"]]}
            outputs |= {str(file["path"]): str(file["md5"]) for file in stage["outs"]}
        except (AttributeError, KeyError, TypeError):
            raise DataError(str(LOCK_PATH), expected=f"the stage {name}", got="none", do=do) from None
        for section, value in sections.items():
            if params.get(section) != value:
                raise DataError(f"params.yaml: {section}", expected="what dvc.lock has", got="another value", do=do)
        for path, md5 in files.items():
            if (got := hash_output(Path(path))) != md5:
                raise DataError(path, expected=f"MD5 {md5} as in dvc.lock", got=got, do=do)
    return outputs
