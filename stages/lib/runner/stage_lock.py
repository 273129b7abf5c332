"""One stage at a time in a folder, and none that outlives the DVC that started it.

When `dvc repro` is killed by SIGKILL, or by SIGTERM, which it does not pass on, the stage that it was running lives on.
Left to itself it would put its output in place later: over that of another `dvc repro`, perhaps with other params, or
over what DVC has restored from its cache. Two things keep it from that:

- The stage looks ten times a second whether its parent is still the one that it was started by, and ends itself if not,
  which is sooner than another DVC can load. The parent is DVC or the shell that DVC runs commands in: bash and zsh give
  their place to the stage; dash (Debian's sh) and fish stay, wait for it, and outlive DVC as well. It looks in a
  thread, for the main one may be inside TensorFlow. A stage that was started by hand does not look: under nohup it goes
  on when its terminal is closed. Linux could send a signal at the parent's death (PR_SET_PDEATHSIG), but Linux alone,
  and it does so as soon as one thread of the parent ends.
- A lock on the folder, which the kernel takes back however its holder ends. What the first does not see (a stage that
  is suspended, or was started by hand) makes the next stage in that folder end with a line that names who is there. It
  is refused rather than made to wait, for DVC has looked at its inputs already, and the other may change them. DVC's
  own locks stand between its own processes alone, and do not outlive them.

Experiments that DVC runs in folders of their own are not in each other's way.
"""

import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
from filelock import FileLock, Timeout

from stages.lib.core.errors import PipelineError
from stages.lib.runner.startup import PARENT, find_grandparent

_STAGE_LOCK_PATH = Path(".cache/stage.lock")
_SECONDS_BETWEEN_LOOKS = 0.1
# Asked as early as can be: see `PARENT`.
_GRANDPARENT = find_grandparent()
_KILLED = 137  # the shell's code for SIGKILL: there is nobody left to read it


@contextmanager
def hold_stage_lock(stage: str) -> Iterator[None]:
    """Hold the current folder's lock during the block; if DVC started this process, end the process when DVC does.

    Raises:
        PipelineError: another stage holds the lock.
    """
    if "DVC_STAGE" in os.environ:
        stderr = os.dup(2) if sys.stderr else None  # 2 itself may be turned away from a library's noise
        threading.Thread(target=_end_with_parent, args=(stage, stderr), daemon=True).start()
    lock = FileLock(_STAGE_LOCK_PATH)
    _STAGE_LOCK_PATH.parent.mkdir(parents=True, exist_ok=True)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        name, _, pid = _STAGE_LOCK_PATH.read_text(encoding="utf-8").partition(" ")
        running = f"the stage {name} is running here (process {pid})" if pid else "another stage is running here"
        stop = f", or stop it with `kill {pid}`" if pid else ""
        raise PipelineError(str(Path.cwd()), running, f"wait until it ends{stop}, then run again") from None
    with lock:
        _STAGE_LOCK_PATH.write_text(f"{stage} {os.getpid()}", encoding="utf-8")
        yield


def _end_with_parent(stage: str, stderr: int | None) -> None:
    shell = _find_shell()
    while os.getppid() == PARENT and (shell is None or _is_child_of_dvc(shell)):
        time.sleep(_SECONDS_BETWEEN_LOOKS)
    line = f"{stage}: the dvc that started this stage is gone; stopped, nothing was half-written\n"
    with suppress(OSError):  # the terminal may be gone, too
        if stderr is not None:
            os.write(stderr, line.encode())
    os._exit(_KILLED)


def _find_shell() -> psutil.Process | None:
    """The parent, if it is a shell that DVC gave the command of this stage to."""
    with suppress(psutil.Error):
        parent = psutil.Process(PARENT)
        if "".join(parent.cmdline()[-1:]).endswith(" ".join(sys.orig_argv[1:])):
            return parent
    return None


def _is_child_of_dvc(shell: psutil.Process) -> bool:
    try:
        return bool(shell.ppid() == _GRANDPARENT)
    except psutil.NoSuchProcess:
        return False
