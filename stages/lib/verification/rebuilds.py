"""The whole pipeline run from nothing in a fresh clone, under conditions that must not matter."""

import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from stages.lib.core.dvc_lock import load_graph
from stages.lib.core.errors import PipelineError
from stages.lib.core.git import require_repository, run_git
from stages.lib.core.paths import resolve
from stages.lib.verification.aarch64 import INSTALL_QEMU, lay_python
from stages.lib.verification.programs import require_program, run_program

EMULATOR = "qemu-x86_64"
# On which to rebuild where nothing else is asked for, and what they have: TensorFlow's own sums follow the size of the
# L1 data cache, which QEMU reports by the processor and by the maker that it is told.
CPUS = {
    "Haswell": "an L1 data cache of 32 KiB",
    "SapphireRapids-v4": "one of 48 KiB, and which QEMU 11 knows, not yet 10.0",
    "Haswell,vendor=AuthenticAMD": "one of 64 KiB",
}

_STAGE = re.compile(r"Running stage '(.+)':")
# What names another repository, another project or another MLflow store than the clone's own.
_LEAKING = re.compile(
    r"DVC_|MLFLOW_|GIT_(DIR|WORK_TREE|INDEX_FILE|PREFIX|OBJECT_DIRECTORY|COMMON_DIR)$|PYTHONSAFEPATH$"
)
_NOISE = re.compile(r"qemu-\w+: warning|ERROR: |$")
# What `ingest` keeps of each data set that it downloads; each file there is verified by its hash.
_DOWNLOADS = {f"{name.upper()}_MIRROR": f".cache/{name}" for name in ("mnist", "fashion_mnist", "cifar10")}


class Emulation(NamedTuple):
    """A processor that is not this machine's."""

    title: str
    python: Sequence[str]  # the command that starts Python on it
    left_out: Sequence[str] = ()  # stages that are not run on it


class Conditions(NamedTuple):
    """What may differ between two machines and must not change a byte."""

    folder: str
    umask: int
    environment: dict[str, str]
    emulation: Emulation | None = None

    def describe(self) -> str:
        """All of them, in a line."""
        settings = [f"{key}={value}" for key, value in self.environment.items()]
        where = [f"on an emulated {self.emulation.title}"] if self.emulation else []
        return " ".join([*settings, f"umask {self.umask:03o}", f"in {self.folder}", *where])


class Rebuild(NamedTuple):
    """What became of one run."""

    root: Path  # of the project in the clone
    stages: list[str]  # those that ended well, in their order
    seconds: float
    failed: str  # the stage that did not, or `dvc`; empty if all did
    problem: str  # the last that it said
    left_out: Sequence[str] = ()  # stages that were not to be run


class Revision(NamedTuple):
    """What is rebuilt."""

    repository: Path
    commit: str
    folder: str  # of the project in the repository; empty if it is the root


def vary(count: int, emulations: Sequence[Emulation] = ()) -> list[Conditions]:
    """Conditions, each unlike the one before in every respect, the first the least like a usual machine's.

    count: of those on this machine's processor. emulations: one more on each.
    """
    locales = (_choose_locale(), "C")
    return [
        Conditions(
            # A folder's length and depth, blanks and letters beyond ASCII are seen by every tool.
            folder=("a longer folder/größer/ñ", "p")[number % 2],
            umask=(0o077, 0o022)[number % 2],
            environment={
                "OMP_NUM_THREADS": str(2 - number % 2),
                "LC_ALL": locales[number % 2],
                "TZ": ("LINT-14", "UTC0")[number % 2],  # the Line Islands, often a day ahead of Greenwich
                "PYTHONHASHSEED": str(number + 1),
            },
            emulation=emulation,
        )
        for number, emulation in enumerate([*[None] * count, *emulations])
    ]


def _choose_locale() -> str:
    """An UTF-8 locale of this machine, if possible one of a country: it may have commas in numbers."""
    try:
        listed = subprocess.run(["locale", "-a"], capture_output=True, check=False).stdout.decode(errors="replace")  # noqa: S607
    except FileNotFoundError:
        listed = ""
    names = [name for name in listed.split() if re.search(r"\.utf-?8$", name, re.IGNORECASE)]
    return next((name for name in names if not name.startswith("C.")), "C.UTF-8")


def emulate_cpu(cpu: str) -> Emulation:
    """A processor of this machine's architecture, by its name in QEMU.

    Raises:
        PipelineError: the emulator is not installed, does not know `cpu`, or Python does not run on it.
    """
    require_program(EMULATOR, "--cpu", INSTALL_QEMU)
    python = [EMULATOR, "-cpu", cpu, sys.executable]  # `cpu` is one argument, whatever it holds
    hint = f"choose another, such as Haswell; `{EMULATOR} -cpu help` lists them"
    run_program([*python, "-c", ""], "--cpu", f"Python does not run on {cpu!r}", hint)
    return Emulation(cpu, python)


def emulate_aarch64() -> Emulation:
    """AArch64, with a Python for it that is laid first if need be.

    Raises:
        PipelineError: it cannot be had here, and why.
    """
    return Emulation("AArch64", [str(lay_python())], left_out=("track",))


def find_revision() -> Revision:
    """HEAD, if the work tree's tracked files are as it has them.

    Raises:
        PipelineError: there is no commit here, git does not open the repository, or a tracked file is changed.
    """
    hint = "commit what is to be rebuilt, or add --quick"
    require_repository(hint)
    top, commit = run_git("rev-parse", "--show-toplevel"), run_git("rev-parse", "--verify", "--quiet", "HEAD")
    changed = run_git("status", "--porcelain", "--untracked-files=no")
    if top is None or commit is None or changed is None:
        raise PipelineError("this folder", "its git repository has no commit", hint)
    if changed:
        names = [line[3:] for line in changed.splitlines()]
        others = f" and {len(names) - 1} more" if names[1:] else ""
        raise PipelineError(
            "this work tree",
            f"HEAD is what is rebuilt, without the changes in {names[0]}{others}",
            "commit or stash the changes, or add --quick",
        )
    return Revision(Path(top), commit, run_git("rev-parse", "--show-prefix") or "")


def rebuild(revision: Revision, parent: Path, conditions: Conditions) -> Rebuild:
    """Clone the revision into a folder below `parent` and run all of its stages there, none of them from a cache.

    Each stage's name is printed when it starts, and what it took when it has ended.
    """
    environment = make_environment(os.environ, conditions, parent)
    left_out = conditions.emulation.left_out if conditions.emulation else ()
    root = _clone(revision, parent / conditions.folder, environment, conditions.umask) / revision.folder
    # Whatever cache this project or this machine has for DVC: the clone has one of its own.
    (root / ".dvc/config.local").write_text("[cache]\n    dir = cache\n", encoding="utf-8")
    command = [sys.executable, "-u", "-m", "dvc", "repro", "--force", "--no-run-cache"]
    if left_out:
        command += [name for name in load_graph(root) if name not in left_out]
    started = stage_started = time.monotonic()
    stages: list[str] = []
    printed: list[str] = []  # by the stage that runs
    with subprocess.Popen(  # noqa: S603
        command,
        cwd=root,
        env=environment,
        umask=conditions.umask,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
    ) as process:
        assert process.stdout
        for line in process.stdout:
            if match := _STAGE.match(line):
                print(f" {time.monotonic() - stage_started:.0f} s, " if stages else "", end="")
                print(match[1], end="", flush=True)
                stages.append(match[1])
                stage_started, printed = time.monotonic(), []
            elif not _NOISE.match(line):
                printed.append(line.strip())
    print(f" {time.monotonic() - stage_started:.0f} s" if stages else "")
    seconds = time.monotonic() - started
    if not process.returncode:
        return Rebuild(root, stages, seconds, failed="", problem="", left_out=left_out)
    *ended, failed = stages or ["dvc"]
    problem = printed[-1] if printed else f"exit code {process.returncode}"
    return Rebuild(root, ended, seconds, failed, problem, left_out)


def make_environment(base: Mapping[str, str], conditions: Conditions, parent: Path) -> dict[str, str]:
    """The variables of a rebuild: those of `base`, but nothing that leads out of the clone, and the conditions'."""
    environment = {key: value for key, value in base.items() if not _LEAKING.match(key)}
    environment |= conditions.environment
    environment["PATH"] = os.pathsep.join(
        [str(_write_python(parent, conditions.emulation)), base.get("PATH", os.defpath)]
    )
    environment["DVC_NO_ANALYTICS"] = "1"
    for kind in ("GLOBAL_CONFIG", "SYSTEM_CONFIG", "SITE_CACHE"):
        environment[f"DVC_{kind}_DIR"] = str(parent / "dvc")
    for variable, downloads in _DOWNLOADS.items():
        mirror = environment.get(variable)
        if mirror and "://" not in mirror:
            environment[variable] = str(resolve(mirror))
        elif not mirror and resolve(downloads).is_dir():
            environment[variable] = str(resolve(downloads))
    return environment


def _write_python(parent: Path, emulation: Emulation | None) -> Path:
    """A folder with the `python` that stages are started as: this one, if need be on an emulated processor."""
    folder = parent / "bin"
    folder.mkdir(parents=True, exist_ok=True)
    command = emulation.python if emulation else [sys.executable]
    (folder / "python").write_text(f'#!/bin/sh\nexec {shlex.join(command)} "$@"\n', encoding="utf-8")
    (folder / "python").chmod(0o755)
    return folder


def _clone(revision: Revision, target: Path, environment: Mapping[str, str], umask: int) -> Path:
    """A clone without branch that shares the repository's objects."""
    git = ["git", "-c", "core.hooksPath=/dev/null", "-c", "advice.detachedHead=false"]
    source = str(revision.repository)
    hint = "run again once `git clone` of it works, or add --quick"
    for command in (
        [*git, "clone", "--quiet", "--shared", "--no-checkout", "--template=", "--", source, str(target)],
        [*git, "-C", str(target), "checkout", "--quiet", "--detach", revision.commit],
    ):
        run_program(command, source, "git cannot clone it", hint, env=environment, umask=umask)
    return target
