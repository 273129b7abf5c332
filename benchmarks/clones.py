"""Where the whole pipeline is measured: a clone of HEAD with other params, and nothing of this person's settings."""

import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from stages.lib.core.errors import PipelineError
from stages.lib.core.paths import find_root
from stages.lib.verification.rebuilds import Conditions, make_environment

DVC = (sys.executable, "-u", "-m", "dvc")


def make_clean_environment(folder: Path) -> dict[str, str]:
    """The variables for what runs in a clone: none that leads out of it; `folder` is for what that needs."""
    return make_environment(os.environ, Conditions(folder="", umask=0o022, environment={}), folder)


def clone_head(folder: Path, environment: Mapping[str, str], change: Callable[[dict[str, Any]], object]) -> Path:
    """A clone of this project's HEAD, its params changed; it has no output, no cache and no store.

    Raises:
        PipelineError: git cannot clone it.
    """
    command = ["git", "clone", "--quiet", str(find_root()), str(folder)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        raise PipelineError(f"`{' '.join(command)}`", f"it failed: {done.stderr}", "run again once it works when typed")
    yaml = YAML()
    params = yaml.load(folder / "params.yaml")
    change(params)
    yaml.dump(params, folder / "params.yaml")
    return folder


def run_in_clone(command: Sequence[str], clone: Path, environment: Mapping[str, str]) -> None:
    """Run a command in a clone.

    Raises:
        PipelineError: it failed.
    """
    done = subprocess.run(command, cwd=clone, env=environment, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        lines = (done.stdout + done.stderr).strip().splitlines()[-5:]
        raise PipelineError(
            f"`{' '.join(command[1:])}`", f"it failed: {' | '.join(lines)}", "run it in a clone to see why"
        )
