"""Prove that the outputs are those in dvc.lock: hash them and the cache again, then rebuild all in a fresh clone.

Reads   dvc.lock, dvc.yaml, every output, DVC's cache; HEAD of the git repository
Prints  each file that is not what dvc.lock promises, then what each rebuild gave
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import click

from stages.lib.core.dvc_lock import LOCK_PATH, Output, load_graph, load_lock
from stages.lib.core.errors import PipelineError
from stages.lib.core.files import remove
from stages.lib.core.hashing import hash_output
from stages.lib.core.markdown import format_table
from stages.lib.verification.aarch64 import ARCHITECTURE
from stages.lib.verification.differences import IDENTICAL, describe_difference
from stages.lib.verification.integrity import ExpectedFile, audit, find_uncached, list_files
from stages.lib.verification.programs import run_program
from stages.lib.verification.rebuilds import (
    CPUS,
    Conditions,
    Emulation,
    Rebuild,
    emulate_aarch64,
    emulate_cpu,
    find_revision,
    rebuild,
    vary,
)

_SHOWN_FILES = 5  # of a stage that diverges


class Promise(NamedTuple):
    """The bytes that a rebuild should give."""

    outputs: Sequence[Output]
    files: Mapping[str, Mapping[str, ExpectedFile]]  # by path of the output: by path


@click.command()
@click.option("--quick", "--no-rebuild", "is_quick", is_flag=True, help="Hash what is here, rebuild nothing.")
@click.option(
    "--repeat",
    "count",
    metavar="N",
    type=click.IntRange(min=0),
    default=2,
    show_default=True,
    help="Rebuilds on this machine's processor.",
)
@click.option(
    "--cpu",
    "cpus",
    metavar="MODEL",
    multiple=True,
    help="One more rebuild on a processor that QEMU emulates, such as Haswell. May be given several times.",
)
@click.option(
    "--arch",
    type=click.Choice([ARCHITECTURE]),
    help="One more rebuild on an architecture that QEMU emulates, up to `export`: `track` writes no bytes of a model.",
)
@click.option(
    "--emulate",
    "is_emulated",
    is_flag=True,
    help="The same as " + " ".join(f"--cpu {cpu}" for cpu in CPUS) + ", if QEMU is installed; if not, say so.",
)
def verify(is_quick: bool, count: int, cpus: tuple[str, ...], arch: str | None, is_emulated: bool) -> None:
    """Prove that the outputs are those in dvc.lock, byte for byte.

    First every output on disk and every object of it in DVC's cache is hashed again, because DVC trusts both. Then HEAD
    is cloned, and the whole pipeline is rebuilt in the clones without any cache, in other folders, with another number
    of threads, locale, time zone, umask and hash seed. If a rebuild differs, the first stage, the file and what differs
    in it are named. Nothing is written here, except the Python of --arch: it and its packages, 2.2 GB, are kept in
    .cache for the next time.

    \b
    Exit code:
      0  every byte is the expected one
      1  one is not, or there is nothing to verify
    """  # noqa: D301  # \b is click's mark for lines that stay apart
    if is_quick and (cpus or arch or is_emulated):
        raise click.UsageError("--quick makes no rebuild: leave it out, or --cpu, --arch and --emulate")
    if not (is_quick or count or cpus or arch or is_emulated):
        raise click.UsageError("--repeat 0 leaves nothing to rebuild: say --quick")
    emulations = [emulate_cpu(cpu) for cpu in cpus]
    if is_emulated:
        emulations += emulate_usual(cpus)
    if arch:
        emulations.append(emulate_aarch64())
    elif is_emulated:
        print(f"not tried: AArch64, for it takes long; `pipeline verify --arch {ARCHITECTURE}` does", flush=True)
    outputs = load_lock().outputs
    audited = audit(outputs, find_uncached(load_graph()), find_cache())
    counts = f"{len(outputs)} outputs, {audited.file_count} files and {audited.object_count} cache objects"
    whole = f"on disk and in DVC's cache: {counts} hashed, all as dvc.lock has them"
    print(*(map(str, audited.problems) if audited.problems else [whole]), sep="\n", flush=True)
    is_identical = is_quick or make_rebuilds(Promise(outputs, audited.files), vary(count, emulations))
    sys.exit(0 if is_identical and not audited.problems else 1)


def emulate_usual(known: Sequence[str]) -> list[Emulation]:
    """Those of the usual processors that can be emulated here and are not known yet; says why of the others."""
    emulations = []
    for cpu, cache in CPUS.items():
        if cpu in known:
            continue
        try:
            emulations.append(emulate_cpu(cpu))
        except PipelineError as error:
            print(f"not tried: {cpu}, which has {cache}; {error}", flush=True)
    return emulations


def find_cache() -> Path:
    """The folder of DVC's cache, relative if it is in this one.

    Raises:
        DataError: DVC does not tell it.
    """
    command = [sys.executable, "-m", "dvc", "cache", "dir"]
    problem, hint = "DVC finds no project here", "run `git checkout .dvc/config`"
    path = Path(run_program(command, "this folder", problem, hint).strip()).absolute()
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def make_rebuilds(promise: Promise, variants: Sequence[Conditions]) -> bool:
    """Rebuild under all conditions, telling of progress; whether every one gave what is expected."""
    revision = find_revision()
    rows: list[tuple[str, ...]] = []
    differing: list[Rebuild] = []
    with TemporaryDirectory(prefix="verify-") as folder:
        for number, conditions in enumerate(variants, start=1):
            print(f"\nrebuild {number} of {len(variants)}: {conditions.describe()}", flush=True)
            done = rebuild(revision, Path(folder) / str(number), conditions)
            result, lines = judge(promise, done)
            print(result, *(f"  {line}" for line in lines), sep="\n", flush=True)
            rows.append((str(number), conditions.describe(), f"{done.seconds:.0f}", result))
            if result == IDENTICAL:
                remove(done.root)
            else:
                differing.append(done)
        print("", *compare_rebuilds(promise, differing), sep="\n")
    print(*format_table(("rebuild", "varied", "seconds", "result"), rows), sep="\n")
    print(f"\n{len(variants) - len(differing)} of {len(variants)} rebuilds identical")
    return not differing


def judge(promise: Promise, done: Rebuild) -> tuple[str, list[str]]:
    """What came of a rebuild in a few words, IDENTICAL if it is the expected; if not, the lines that say where."""
    stage, lines = find_divergence(promise, done)
    results = [f"{stage} diverges from dvc.lock"] if stage else []
    if done.failed:
        results.append(f"{done.failed} failed")
        lines.append(done.problem)
    if not results and (what := describe_difference(LOCK_PATH, done.root / LOCK_PATH)) != IDENTICAL:
        return "the same outputs, another dvc.lock", [f"{LOCK_PATH}: {what}"]
    return "; ".join(results) or IDENTICAL, lines


def find_divergence(promise: Promise, done: Rebuild) -> tuple[str, list[str]]:
    """The first stage, of those that ended well, whose outputs are not the expected ones; empty if there is none.

    Beside it, what differs in its first files, how many more there are, and the stages after it.
    """
    differing = [
        output
        for output in promise.outputs
        if was_made(output, done) and hash_output(done.root / output.path) != output.md5
    ]
    if not differing:
        return "", []
    ranks = {stage: number for number, stage in enumerate(done.stages)}
    first, *later = sorted({output.stage for output in differing}, key=lambda stage: ranks.get(stage, len(ranks)))
    outputs = [output for output in differing if output.stage == first]
    lines = [line for output in outputs for line in compare_output(output, promise.files[output.path], done.root)]
    others = len(lines) - _SHOWN_FILES
    shown = [*lines[:_SHOWN_FILES], *([f"and {others} more of its files"] if others > 0 else [])]
    return first, [*shown, *([f"after it: {', '.join(later)}"] if later else [])]


def was_made(output: Output, done: Rebuild) -> bool:
    """Whether the output's stage was run and ended well, or should have been."""
    return output.stage in done.stages or not (done.failed or output.stage in done.left_out)


def compare_output(output: Output, expected: Mapping[str, ExpectedFile], root: Path) -> list[str]:
    """What differs in each file of an output that is not the expected one, the expected file first."""
    if not expected:
        return [f"{output.path}: MD5 {output.md5} against {hash_output(root / output.path)}; its files are not here"]
    made = list_files(output, root)
    lines = []
    for path in sorted(expected.keys() | made.keys()):
        if path not in made:
            lines.append(f"{path}: missing")
        elif path not in expected:
            lines.append(f"{path}: not expected")
        elif expected[path].md5 != made[path].md5:
            source = expected[path].source
            what = describe_difference(source, root / path) if source else ""
            lines.append(f"{path}: {what or f'MD5 {expected[path].md5} against {made[path].md5}'}")
    return lines


def compare_rebuilds(promise: Promise, differing: Sequence[Rebuild]) -> list[str]:
    """Whether the rebuilds that are not as expected are at least like each other."""
    if len(differing) < 2:
        return []
    made = [
        {output: hash_output(done.root / output.path) for output in promise.outputs if was_made(output, done)}
        for done in differing
    ]
    stages = dict.fromkeys(o.stage for o in promise.outputs if len({hashes[o] for hashes in made if o in hashes}) > 1)
    if stages:
        return [f"the rebuilds differ from each other in {', '.join(stages)}: the same code, other bytes", ""]
    if any(done.failed for done in differing):
        return []
    cause = "dvc.lock is of other code, other packages or another processor"
    hint = "if these are meant, `dvc repro` and commit dvc.lock"
    return [f"these rebuilds gave the same bytes as each other: {cause}; {hint}", ""]
