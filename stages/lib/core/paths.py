"""Where the project's root is, from wherever DVC runs a stage."""

import os
from pathlib import Path

# What DVC runs and what it ran: either may be lost.
_GRAPH_NAMES = ("dvc.yaml", "dvc.lock")


def find_root() -> Path:
    """The project's own root: DVC sets DVC_ROOT, also when it runs an experiment in a copy elsewhere."""
    return Path(os.environ.get("DVC_ROOT", "")).absolute()


def find_project(start: Path) -> Path | None:
    """The nearest folder, `start` itself or one around it, that holds a pipeline of DVC; none if there is none."""
    around = (start, *start.parents)
    return next((folder for folder in around if any((folder / name).is_file() for name in _GRAPH_NAMES)), None)


def resolve(path: str) -> Path:
    """A path from params.yaml or the environment; relative ones are relative to the project's root."""
    return find_root() / Path(path).expanduser()
