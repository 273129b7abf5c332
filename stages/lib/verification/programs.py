"""Programs of the system that must be there and must succeed."""

import shutil
import subprocess
from collections.abc import Sequence
from typing import Any

from stages.lib.core.errors import PipelineError


def require_program(name: str, where: str, hint: str) -> None:
    """Refuse to begin without a program.

    Raises:
        PipelineError: it is not on PATH.
    """
    if shutil.which(name) is None:
        raise PipelineError(where, f"{name} is not on PATH", hint)


def run_program(
    command: Sequence[str],
    where: str,
    problem: str,
    hint: str,
    **options: Any,  # noqa: ANN401  # of several kinds
) -> str:
    """What a program prints that must succeed.

    problem, hint: what it means if it fails, and what to do then. options: of `subprocess.run`.

    Raises:
        PipelineError: with the last line that the program printed.
    """
    done = subprocess.run(  # noqa: S603
        command, capture_output=True, encoding="utf-8", errors="replace", check=False, **options
    )
    if done.returncode:
        printed = (done.stderr.strip() or done.stdout.strip() or f"exit code {done.returncode}").splitlines()
        raise PipelineError(where, f"{problem}: {printed[-1]}", hint)
    return str(done.stdout)
