"""What a process of this project does before it imports anything large: it looks around, and a stage shuts itself off.

It imports from the standard library and the runner alone until the packages are known to be there.
"""

import os
import signal
import sys
import tempfile
from importlib.util import find_spec
from types import FrameType
from typing import NoReturn

from stages.lib.runner.environment import isolate

# Asked before a stage's packages are imported, which takes seconds: by then DVC may have been killed.
PARENT = os.getppid()

_NEEDED = ("numpy", "psutil", "pydantic", "ruamel.yaml")
_PACKAGE_FILE = os.path.join("stages", "__init__.py")  # noqa: PTH118  # a stage waits for every import


def prepare_process(package_file: str) -> None:
    """Make a stage independent of whoever starts it, or end it with one line where it could not run.

    package_file: where the package `stages` was found.
    """
    # `-m` is what Python calls a program whose package it still imports.
    is_stage = sys.argv[0] == "-m" and "-m" in sys.orig_argv
    # Ray's name for a process of a sweep: it trains as a stage does, with what its node has set.
    is_trial = os.path.basename(sys.argv[0]) == "default_worker.py"  # noqa: PTH119  # as above
    if is_stage or is_trial:
        isolate()
    _require_packages()
    if is_stage:
        _require_own_code(package_file)
        _require_temporary_folder()
        _end_on_interrupt()


def find_grandparent() -> int | None:
    """Of DVC's shell, if that is the parent, DVC itself. None if the parent has ended, or is out of sight."""
    import psutil  # noqa: PLC0415  # not before it is known to be there

    try:
        return int(psutil.Process(PARENT).ppid())
    except psutil.NoSuchProcess:
        return None


def _is_installed(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except ModuleNotFoundError:  # the parent of a dotted name is missing
        return False


def _require_packages() -> None:
    """A process started outside the environment would otherwise end in a traceback of its first import."""
    if missing := [package for package in _NEEDED if not _is_installed(package)]:
        sys.exit(
            f"stages: this Python ({sys.executable}) has no {missing[0]}; run `make`, "
            "or activate the environment first: `. .venv/bin/activate`"
        )


def _require_own_code(package_file: str) -> None:
    """PYTHONSAFEPATH has Python leave out the current folder: another clone's code would make this one's outputs."""
    if os.path.exists(_PACKAGE_FILE) and not os.path.samefile(_PACKAGE_FILE, package_file):  # noqa: PTH110, PTH121
        sys.exit(
            f"{_name_stage()}: the code of {package_file} would run, not this folder's; "
            "run `unset PYTHONSAFEPATH`, and start Python without -P and -I"
        )


def _require_temporary_folder() -> None:
    """TensorFlow asks for a place for temporary files while it is imported, and would end in a traceback."""
    try:
        tempfile.gettempdir()
    except FileNotFoundError as error:
        sys.exit(
            f"{_name_stage()}: {error.strerror}: all are full or read-only; free some space, or set TMPDIR to another"
        )


def _end_on_interrupt() -> None:
    """Let Ctrl-C during the imports end the process with one line; whoever has set a handler keeps it."""
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        return
    stderr = os.dup(2) if sys.stderr else os.open(os.devnull, os.O_WRONLY)  # 2 is turned away from TensorFlow's noise

    def stop_importing(number: int, _frame: FrameType | None) -> NoReturn:
        os.write(stderr, f"{_name_stage()}: interrupted; nothing was half-written\n".encode())
        os._exit(128 + number)  # an exception would be met by whatever is being imported

    signal.signal(signal.SIGINT, stop_importing)


def _name_stage() -> str:
    return sys.orig_argv[sys.orig_argv.index("-m") + 1].rpartition(".")[2]
