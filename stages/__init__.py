"""The pipeline's stages, one module each: `python -m stages.<name>` runs one, `dvc repro` runs what is due."""

import os
import signal
import sys
import tempfile
from contextlib import suppress
from importlib.util import find_spec
from types import FrameType
from typing import NoReturn

from stages.lib.environment import isolate

# Asked before a stage's packages are imported, which takes seconds: by then DVC may have been killed.
PARENT = os.getppid()

# `-m` is what Python calls a program whose package it still imports.
_IS_STAGE = sys.argv[0] == "-m" and "-m" in sys.orig_argv
# Ray's name for a process of a sweep: it trains as a stage does, with what its node has set.
_IS_TRIAL = os.path.basename(sys.argv[0]) == "default_worker.py"  # noqa: PTH119  # a stage waits for every import

if _IS_STAGE or _IS_TRIAL:
    isolate()

_NEEDED = ("numpy", "psutil", "pydantic", "ruamel.yaml")


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


import psutil  # noqa: E402  (not before it is known to be there)

# Of DVC's shell, if that is the parent, DVC itself. None if the parent has ended, or is outside a container's sight.
GRANDPARENT: int | None = None
with suppress(psutil.NoSuchProcess):
    GRANDPARENT = psutil.Process(PARENT).ppid()


def _name_stage() -> str:
    return sys.orig_argv[sys.orig_argv.index("-m") + 1].rpartition(".")[2]


def _stop_importing(number: int, _frame: FrameType | None) -> NoReturn:
    os.write(_STDERR, f"{_name_stage()}: interrupted; nothing was half-written\n".encode())
    os._exit(128 + number)  # an exception would be met by whatever is being imported


# PYTHONSAFEPATH has Python leave out the current folder: another clone's code would make this one's outputs.
_HERE = os.path.join("stages", "__init__.py")  # noqa: PTH118  # a stage waits for every import
if _IS_STAGE and os.path.exists(_HERE) and not os.path.samefile(_HERE, __file__):  # noqa: PTH110, PTH121
    sys.exit(
        f"{_name_stage()}: expected the code of this folder, got that of {__file__}; "
        "unset PYTHONSAFEPATH, and start Python without -P and -I"
    )

# TensorFlow asks for a place for temporary files while it is imported, and would end in a traceback.
if _IS_STAGE:
    try:
        tempfile.gettempdir()
    except FileNotFoundError as error:
        sys.exit(
            f"{_name_stage()}: {error.strerror}: all are full or read-only; free some space, or set TMPDIR to another"
        )

# So would Ctrl-C meanwhile; whoever else imports this package keeps his handler.
if _IS_STAGE and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    _STDERR = os.dup(2) if sys.stderr else os.open(os.devnull, os.O_WRONLY)  # 2 is turned away from TensorFlow's noise
    signal.signal(signal.SIGINT, _stop_importing)
