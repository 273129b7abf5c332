"""The pipeline's stages, one module each: `python -m stages.<name>` runs one, `dvc repro` runs what is due."""

import sys
from importlib.util import find_spec

_NEEDED = ("numpy", "pydantic", "ruamel.yaml")


def _is_installed(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except ModuleNotFoundError:  # the parent of a dotted name is missing
        return False


# A stage that is started outside the environment would otherwise end in a traceback of its first import.
if _missing := [package for package in _NEEDED if not _is_installed(package)]:
    sys.exit(
        f"stages: this Python ({sys.executable}) has no {_missing[0]}; run `make`, "
        "or activate the environment first: `. .venv/bin/activate`"
    )
