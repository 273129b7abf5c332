"""Where the project's root is, from wherever DVC runs a stage."""

import os
from pathlib import Path


def find_root() -> Path:
    """The project's own root: DVC sets DVC_ROOT, also when it runs an experiment in a copy elsewhere."""
    return Path(os.environ.get("DVC_ROOT", "")).absolute()


def resolve(path: str) -> Path:
    """A path from params.yaml or the environment; relative ones are relative to the project's root."""
    return find_root() / Path(path).expanduser()
