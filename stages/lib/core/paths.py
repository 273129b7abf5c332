"""Where the project's root is, from wherever DVC runs a stage."""

import os
from pathlib import Path

# What only a project's root has. Any of them may be lost, and `pipeline check` needs none but params.yaml.
_ROOT_FILES = ("dvc.yaml", "dvc.lock", "params.yaml")


def find_root() -> Path:
    """The project's own root: DVC sets DVC_ROOT, also when it runs an experiment in a copy elsewhere."""
    return Path(os.environ.get("DVC_ROOT", "")).absolute()


def find_project(start: Path) -> Path | None:
    """The nearest folder, `start` itself or one around it, that is a project's root; none if there is none.

    A folder with a dvc.yaml comes first: the artifacts of a run in MLflow hold the other files, too.
    """
    around = (start, *start.parents)
    return next((folder for name in _ROOT_FILES for folder in around if (folder / name).is_file()), None)


def resolve(path: str) -> Path:
    """A path from params.yaml or the environment; relative ones are relative to the project's root."""
    return find_root() / Path(path).expanduser()
