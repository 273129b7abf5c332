"""What a run was made with, beside its params: programs, processor, threads. None of it should matter; all is said."""

import os
import platform
import re
from collections.abc import Mapping
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any

# What a person may set that libraries under the pipeline look at. TensorFlow's by name: TF_ begins Terraform's, too,
# among which are passwords.
_SETTINGS = re.compile(
    r"^((OMP|MKL|OPENBLAS|ONEDNN|LC)_.*|TF_(NUM_INTRAOP_THREADS|NUM_INTEROP_THREADS|ENABLE_ONEDNN_OPTS|XLA_FLAGS)"
    r"|CUDA_VISIBLE_DEVICES|KERAS_BACKEND|PYTHONHASHSEED|LANG|TZ)$"
)
_DISTRIBUTION = "same-answers"


def describe_environment(times: Mapping[str, Mapping[str, float]]) -> dict[str, Any]:
    """The machine and the programs of this process, and the seconds that the stages took here.

    times: as `stage_times.read_times` gives them.
    """
    return {
        "cores": os.cpu_count(),
        "packages": _list_versions(),
        "platform": platform.platform(),
        "processor": find_processor(),
        "python": platform.python_version(),
        "seconds": {stage: dict(of) for stage, of in times.items()},
        "settings": {name: value for name, value in sorted(os.environ.items()) if _SETTINGS.match(name)},
    }


def _list_versions() -> dict[str, str]:
    """The versions of the installed packages that pyproject.toml names, by name."""
    versions = {}
    for requirement in metadata.requires(_DISTRIBUTION) or []:
        name = re.split(r"[^\w.-]", requirement)[0]
        with suppress(metadata.PackageNotFoundError):  # an optional one, or none for this platform
            versions[name] = metadata.version(name)
    return versions


def find_processor() -> str:
    """The processor's name, as Linux tells it, else as Python does."""
    try:
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.MULTILINE)
    except OSError:
        found = None
    return found[1] if found else platform.processor() or platform.machine()
