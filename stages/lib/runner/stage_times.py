"""How long the stages took, in files that nothing hashes, for the run that tells of their outputs."""

import hashlib
import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from stages.lib.core.files import read_json, write_json

# In the folder where the stage runs, which for an experiment of DVC's may be a copy of the project.
_FOLDER = Path(".cache/stage_times")


@contextmanager
def record_times(stage: str, params: Mapping[str, Any]) -> Iterator[None]:
    """Write down how long the block took, if it ends well, and how long the imports before it.

    params: all sections of params.yaml.
    """
    imports, begin = time.process_time(), time.perf_counter()
    yield
    work = time.perf_counter() - begin
    times = {"imports": round(imports, 3), "params": _digest(params), "work": round(work, 3)}
    write_json(_FOLDER / f"{stage}.json", times)


def read_times(params: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Seconds of `imports` (of processor time) and of `work` by stage, of the stages that ran with just these params.

    Nothing is known of a stage whose outputs DVC kept from a run with others, or took from a cache.
    """
    digest = _digest(params)
    records = {path.stem: read_json(path) for path in sorted(_FOLDER.glob("*.json"))}
    return {
        stage: {what: float(record[what]) for what in ("imports", "work")}
        for stage, record in records.items()
        if record.get("params") == digest
    }


def describe_times(times: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """The same as metrics: `seconds/<stage>/<what>`."""
    return {f"seconds/{stage}/{what}": seconds for stage, of in times.items() for what, seconds in of.items()}


def _digest(params: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(params, sort_keys=True, default=str).encode()).hexdigest()
