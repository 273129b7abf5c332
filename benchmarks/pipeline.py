"""How long the whole pipeline takes: beside the lecture's script, stage by stage, and with nothing to do.

Reads   HEAD of this project; MNIST (as `ingest` does; MNIST_MIRROR is tried first)
Writes  benchmarks/results/pipeline-YYYY-MM-DD.json, and prints the same as tables

The lecture's script and `dvc repro` on MNIST take turns; then comes `dvc repro` on digits. Each `dvc repro` is from
nothing: in a fresh clone, with nothing in DVC's cache and no MLflow store. Last, `dvc repro` with nothing to do takes
turns with the same in a trivial project: as many stages, deps, outputs and files, but a few bytes in each.
"""

import argparse
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np
from ruamel.yaml import YAML

from benchmarks.clones import DVC, clone_head, make_clean_environment
from benchmarks.measurements import (
    STAGES,
    describe_machine,
    describe_ratios,
    describe_spread,
    print_lines,
    run_benchmark,
    tell_machine,
    write_result,
)
from stages.lib.core.errors import PipelineError
from stages.lib.core.files import read_json, write_text
from stages.lib.core.git import run_git
from stages.lib.core.markdown import format_table
from stages.lib.data.mnist import load_mnist

PACKAGES = ["tensorflow", "keras", "dvc", "mlflow", "great-expectations", "onnxruntime"]
LECTURE_PATH = Path(__file__).with_name("lecture.py")
# With nothing to do, a `dvc repro` takes a second: so many of them for each round of the others.
NO_OPS = 5
KINDS = ("imports", "work", "dvc")
MEASURES = ("seconds", "processor_seconds")


class Finished(NamedTuple):
    """A command that ended well."""

    seconds: float
    processor_seconds: float  # of all processors and all processes: other programs have less influence on these
    lines: list[str]  # that it printed
    times: list[float]  # when it did, seconds after its start


class Repro(NamedTuple):
    """One `dvc repro` from nothing."""

    done: Finished
    stages: dict[str, dict[str, float]]  # by stage and by kind, seconds
    accuracy: float  # on the test split, 0..1


class Rounds(NamedTuple):
    """What was run, in the order in which it was."""

    lecture: list[Finished]
    mnist: list[Repro]
    digits: list[Repro]
    no_op: list[Finished]
    trivial: list[Finished]


def run_apart(command: Sequence[str], folder: Path, environment: Mapping[str, str]) -> Finished:
    """Run a command in a folder; if this process is interrupted, all that it has started ends, too.

    Raises:
        PipelineError: it failed.
    """
    lines, times = [], []
    begin, processor_begin = perf_counter(), read_processor_seconds()
    with subprocess.Popen(  # noqa: S603  (git, DVC and the lecture's script)
        command,
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
        start_new_session=True,
    ) as process:
        assert process.stdout
        try:
            for line in process.stdout:
                lines.append(line)
                times.append(perf_counter() - begin)
            process.wait()
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
    if process.returncode:
        said = " ".join("".join(lines[-3:]).split())
        raise PipelineError(
            f"`{' '.join(command)}` in {folder}", f"it failed: {said}", "run again once it works when typed"
        )
    return Finished(perf_counter() - begin, read_processor_seconds() - processor_begin, lines, times)


def read_processor_seconds() -> float:
    """What this process's children, and theirs, have taken of all processors until they ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


# --- from nothing -------------------------------------------------------------------------------------------------


def write_mnist(path: Path) -> None:
    """Write MNIST as one compressed file, as Keras keeps it; what is downloaded for that is kept for `ingest`."""
    mnist = load_mnist()
    np.savez_compressed(
        path,
        x_train=mnist.train.images,
        y_train=mnist.train.labels,
        x_test=mnist.test.images,
        y_test=mnist.test.labels,
    )


def run_lecture(npz_path: Path, environment: Mapping[str, str]) -> Finished:
    """The lecture's script, which prints its accuracy on the test split last."""
    return run_apart([sys.executable, str(LECTURE_PATH), str(npz_path)], npz_path.parent, environment)


def clone_with(folder: Path, environment: Mapping[str, str], dataset: str) -> Path:
    """A clone of HEAD with this data set in its params."""
    return clone_head(folder, environment, lambda params: params["ingest"].update(dataset=dataset))


def run_repro(clone: Path, environment: Mapping[str, str]) -> Repro:
    """`dvc repro` from nothing, and where its time went.

    A stage has the time from the line in which DVC announces it until DVC announces the next, or has ended. Before the
    first line DVC starts, which counts for the first stage.
    """
    done = run_apart([*DVC, "repro"], clone, environment)
    announced = {
        line.split("'")[1]: time
        for line, time in zip(done.lines, done.times, strict=True)
        if line.startswith("Running stage '")
    }
    ends = [*list(announced.values())[1:], done.seconds]
    seconds = dict(zip(announced, np.diff([0.0, *ends]).tolist(), strict=True))
    return Repro(
        done,
        {stage: split_time(clone, stage, seconds[stage]) for stage in seconds},
        read_json(clone / "reports" / "metrics.json")["accuracy"],
    )


def split_time(clone: Path, stage: str, seconds: float) -> dict[str, float]:
    """A stage's seconds by kind: `imports`, `work`, and `dvc`, the rest: DVC's own, and the process's start and end."""
    recorded = read_json(clone / ".cache" / "stage_times" / f"{stage}.json")
    imports, work = float(recorded["imports"]), float(recorded["work"])
    return {"imports": imports, "work": work, "dvc": seconds - imports - work}


# --- with nothing to do -------------------------------------------------------------------------------------------


def make_trivial(clone: Path, folder: Path, environment: Mapping[str, str]) -> Path:
    """A DVC project with the same stages, deps and outputs as a reproduced clone, but a few bytes in every file."""
    yaml = YAML(typ="safe", pure=True)
    stages, locked = (yaml.load(clone / name)["stages"] for name in ("dvc.yaml", "dvc.lock"))
    for name, stage in stages.items():
        stage["cmd"] = "true"
        stage["deps"] = [dep["path"] for dep in locked[name]["deps"]]  # in dvc.yaml one may be a parameter
        entries = [*stage["deps"], *stage.get("outs", []), *stage.get("metrics", [])]
        for place in [clone / (entry if isinstance(entry, str) else next(iter(entry))) for entry in entries]:
            for path in place.rglob("*") if place.is_dir() else [place]:
                if path.is_file():
                    relative = path.relative_to(clone)
                    write_text(folder / relative, f"{relative}\n")
    yaml.dump({"stages": stages}, folder / "dvc.yaml")
    yaml.dump({section: {"value": 1} for section in yaml.load(clone / "params.yaml")}, folder / "params.yaml")
    for command in (["git", "init"], [*DVC, "init"], [*DVC, "commit", "--force"]):
        run_apart(command, folder, environment)
    return folder


def run_no_op(project: Path, environment: Mapping[str, str]) -> Finished:
    """A `dvc repro` that finds nothing to do.

    Raises:
        PipelineError: it ran a stage.
    """
    done = run_apart([*DVC, "repro"], project, environment)
    if ran := [line for line in done.lines if line.startswith("Running stage")]:
        raise PipelineError(
            str(project), f"nothing was to do, yet it ran: {ran[0]}", "see what `dvc status` says there"
        )
    return done


def measure(repeats: int, folder: Path) -> Rounds:
    """Run all, `repeats` times; `folder` is for what that needs."""
    npz_path = folder / "mnist.npz"
    write_mnist(npz_path)
    environment = make_clean_environment(folder)
    rounds = Rounds([], [], [], [], [])
    for _ in range(repeats):
        rounds.lecture.append(run_lecture(npz_path, environment))
        with TemporaryDirectory(dir=folder) as parent:
            rounds.mnist.append(run_repro(clone_with(Path(parent, "mnist"), environment, "mnist"), environment))
    for number in range(repeats):
        clone = clone_with(folder / f"digits-{number}", environment, "digits")
        rounds.digits.append(run_repro(clone, environment))
    trivial = make_trivial(clone, folder / "trivial", environment)
    for project in (clone, trivial):
        run_no_op(project, environment)  # the first, which does not count
    for _ in range(NO_OPS * repeats):
        rounds.no_op.append(run_no_op(clone, environment))
        rounds.trivial.append(run_no_op(trivial, environment))
    return rounds


# --- the result ---------------------------------------------------------------------------------------------------


def describe_runs(runs: Sequence[Finished]) -> dict[str, dict[str, float]]:
    """The spread of their seconds, on the clock and of the processor."""
    return {measure: describe_spread([getattr(run, measure) for run in runs]) for measure in MEASURES}


def compare_runs(ours: Sequence[Finished], theirs: Sequence[Finished]) -> dict[str, dict[str, float]]:
    """The spread of ours / theirs, on the clock and of the processor."""
    return {
        measure: describe_ratios([getattr(run, measure) for run in ours], [getattr(run, measure) for run in theirs])
        for measure in MEASURES
    }


def describe_repros(repros: Sequence[Repro]) -> dict[str, Any]:
    """The spread of the seconds, whole and by kind, and each stage's median by kind."""
    return {
        "accuracy": repros[0].accuracy,
        **describe_runs([repro.done for repro in repros]),
        **{
            f"{kind}_seconds": describe_spread(
                [sum(seconds[kind] for seconds in repro.stages.values()) for repro in repros]
            )
            for kind in KINDS
        },
        "stages": {
            stage: {kind: round(median(repro.stages[stage][kind] for repro in repros), 3) for kind in KINDS}
            for stage in repros[0].stages
        },
    }


def describe(rounds: Rounds) -> dict[str, Any]:
    """All figures of the result."""
    return {
        "repeats": len(rounds.mnist),
        "mnist": {
            "lecture": {"accuracy": float(rounds.lecture[0].lines[-1]), **describe_runs(rounds.lecture)},
            "repro": describe_repros(rounds.mnist),
            "repro_to_lecture": compare_runs([repro.done for repro in rounds.mnist], rounds.lecture),
        },
        "digits": {"repro": describe_repros(rounds.digits)},
        "no_op": {
            "repro": describe_runs(rounds.no_op),
            "trivial": describe_runs(rounds.trivial),
            "repro_to_trivial": compare_runs(rounds.no_op, rounds.trivial),
        },
    }


def tabulate(result: Mapping[str, Any]) -> list[str]:
    """The result as Markdown: the machine, the ratios, and the seconds of each stage."""
    mnist, digits, no_op = result["mnist"], result["digits"]["repro"], result["no_op"]
    runs = [
        ("the lecture's script on MNIST", mnist["lecture"], None),
        ("`dvc repro` on MNIST", mnist["repro"], mnist["repro_to_lecture"]),
        ("`dvc repro` on digits", digits, None),
        ("nothing to do, trivial project", no_op["trivial"], None),
        ("nothing to do", no_op["repro"], no_op["repro_to_trivial"]),
    ]
    repros = [mnist["repro"], digits]
    stages = [
        [stage, *(f"{repro['stages'][stage][kind]:.1f}" for repro in repros for kind in KINDS)]
        for stage in sorted(digits["stages"], key=STAGES.index)
    ]
    sums = [f"{sum(of[kind] for of in repro['stages'].values()):.1f}" for repro in repros for kind in KINDS]
    return [
        tell_machine(result, PACKAGES),
        "",
        *format_table(
            ["", "seconds: median", "least", "most", "ratio", "processor's seconds", "ratio"],
            [
                [
                    title,
                    *(f"{spreads['seconds'][of]:.1f}" for of in ("median", "min", "max")),
                    f"{ratios['seconds']['median']:.2f}" if ratios else "",
                    f"{spreads['processor_seconds']['median']:.1f}",
                    f"{ratios['processor_seconds']['median']:.2f}" if ratios else "",
                ]
                for title, spreads, ratios in runs
            ],
        ),
        "",
        *format_table(
            ["stage", "MNIST: imports", "work", "DVC", "digits: imports", "work", "DVC"], [*stages, ["all", *sums]]
        ),
        "",
        f"Rounds: {result['repeats']}, with nothing to do {NO_OPS} times as many. All else is from nothing, in fresh",
        "clones. A ratio is to the row above it, round by round. Test accuracy on MNIST: the lecture's",
        f"{mnist['lecture']['accuracy']:.4f}, trained on all images, the pipeline's {mnist['repro']['accuracy']:.4f},",
        "without those of validation. Imports are seconds of the processor; DVC is all the rest of a stage's time, the",
        "start and the end of its process included.",
    ]


def main() -> None:
    """Run from the command line; exits with 1 and one line on anything a person caused."""
    parser = argparse.ArgumentParser(prog="benchmarks.pipeline", description="Measure the whole pipeline.")
    parser.add_argument("--repeat", type=int, default=3, metavar="N", help="rounds (3)")
    parser.add_argument("--output", type=Path, metavar="FILE", help="where to write the result, as JSON")
    options = parser.parse_args()
    if options.repeat < 1:
        parser.error(f"--repeat: expected a whole number of rounds, at least 1, got {options.repeat}")
    with run_benchmark(), TemporaryDirectory(prefix="benchmark-") as folder:
        rounds = measure(options.repeat, Path(folder))
        result = {**describe_machine(), "commit": run_git("rev-parse", "HEAD"), **describe(rounds)}
        write_result("pipeline", result, options.output)
        print_lines(tabulate(result))


if __name__ == "__main__":
    main()
