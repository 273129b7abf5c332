"""Keys of params.yaml set by a program, the rest of the file as a person wrote it."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dvc.utils.serialize import modify_yaml

from stages.lib.core.files import atomic_write
from stages.lib.core.params import PARAMS_PATH


def edit_params(settings: Mapping[str, Any], path: Path = PARAMS_PATH) -> None:
    """Set the keys of dotted names, which are there, as `dvc exp run -S` does: comments and layout stay as they are."""
    with atomic_write(path) as partial:
        shutil.copy(path, partial)
        _set_values(settings, partial)


def _set_values(settings: Mapping[str, Any], path: Path) -> None:
    with modify_yaml(path) as document:
        for name, value in settings.items():
            *parents, key = name.split(".")
            section = document
            for parent in parents:
                section = section[parent]
            # A number that is there already stays as a person wrote it: 1.0e-3.
            if (section[key], isinstance(section[key], float)) != (value, isinstance(value, float)):
                section[key] = value
