"""How long the whole pipeline takes: beside the lecture's script, stage by stage, and with nothing to do.

Reads   HEAD of this project; MNIST (as `ingest` does; MNIST_MIRROR is tried first)
Writes  benchmarks/results/pipeline-YYYY-MM-DD.json, and prints the same as tables

The lecture's script and `dvc repro` on MNIST take turns; then comes `dvc repro` on digits. Each `dvc repro` is from
nothing: in a fresh clone, with nothing in DVC's cache and no MLflow store. Last, `dvc repro` with nothing to do takes
turns with the same in a trivial project: as many stages, deps, outputs and files, but a few bytes in each.
"""

# RUF001: the tables' multiplication sign is no x.
# ruff: noqa: RUF001

import argparse
import os
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

from benchmarks.measurements import (
    describe_machine,
    describe_ratios,
    describe_spread,
    print_lines,
    run_benchmark,
    tell_machine,
    write_result,
)
from stages.lib.datasets import load_mnist
from stages.lib.errors import PipelineError
from stages.lib.files import read_json, write_text
from stages.lib.git import run_git
from stages.lib.markdown import format_table
from stages.lib.places import find_root
from stages.lib.rebuilds import Conditions, make_environment

PACKAGES = ["tensorflow", "keras", "dvc", "mlflow", "great-expectations", "onnxruntime"]
DVC = (sys.executable, "-u", "-m", "dvc")
LECTURE_PATH = Path(__file__).with_name("lecture.py")
# With nothing to do, a `dvc repro` takes a second: so many of them for each round of the others.
NO_OPS = 5
KINDS = ("imports", "work", "dvc")


class Finished(NamedTuple):
    """A command that ended well."""

    seconds: float
    lines: list[str]  # that it printed
    times: list[float]  # when it did, seconds after its start


class Repro(NamedTuple):
    """One `dvc repro` from nothing."""

    seconds: float
    stages: dict[str, dict[str, float]]  # by stage and by kind, seconds
    accuracy: float  # on the test split, 0..1


class Turns(NamedTuple):
    """The seconds of two that took turns."""

    ours: list[float]
    theirs: list[float]


def run_apart(command: Sequence[str], folder: Path, environment: Mapping[str, str]) -> Finished:
    """Run a command in a folder; if this process is interrupted, all that it has started ends, too.

    Raises:
        PipelineError: it failed.
    """
    lines, times = [], []
    begin = perf_counter()
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
            f"`{' '.join(command)}` in {folder}", expected="it to end well", got=said, do="see to that first"
        )
    return Finished(perf_counter() - begin, lines, times)


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


def clone_head(folder: Path, environment: Mapping[str, str], dataset: str) -> Path:
    """A clone of this project's HEAD with another data set in its params; no output, no cache and no store."""
    run_apart(["git", "clone", "--quiet", str(find_root()), str(folder)], folder.parent, environment)
    yaml = YAML()
    params = yaml.load(folder / "params.yaml")
    params["ingest"]["dataset"] = dataset
    yaml.dump(params, folder / "params.yaml")
    return folder


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
        done.seconds,
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
    stages = yaml.load(clone / "dvc.yaml")["stages"]
    for stage in stages.values():
        stage["cmd"] = "true"
        entries = [*stage["deps"], *stage.get("outs", []), *stage.get("metrics", [])]
        for name in [entry if isinstance(entry, str) else next(iter(entry)) for entry in entries]:
            paths = sorted((clone / name).rglob("*")) if (clone / name).is_dir() else [clone / name]
            for path in paths:
                if path.is_file():
                    relative = path.relative_to(clone)
                    write_text(folder / relative, f"{relative}\n")
    yaml.dump({"stages": stages}, folder / "dvc.yaml")
    yaml.dump({section: {"value": 1} for section in yaml.load(clone / "params.yaml")}, folder / "params.yaml")
    for command in (["git", "init", "--quiet"], [*DVC, "init", "--quiet"], [*DVC, "commit", "--quiet", "--force"]):
        run_apart(command, folder, environment)
    return folder


def run_no_op(project: Path, environment: Mapping[str, str]) -> float:
    """The seconds of a `dvc repro` that finds nothing to do.

    Raises:
        PipelineError: it ran a stage.
    """
    done = run_apart([*DVC, "repro"], project, environment)
    if ran := [line for line in done.lines if line.startswith("Running stage")]:
        raise PipelineError(str(project), expected="nothing to do", got=ran[0], do="see why `dvc status` is not clean")
    return done.seconds


def time_no_ops(clone: Path, trivial: Path, count: int, environment: Mapping[str, str]) -> Turns:
    """Both take turns, `count` times, after one that does not count."""
    run_no_op(clone, environment)
    run_no_op(trivial, environment)
    turns = Turns([], [])
    for _ in range(count):
        turns.ours.append(run_no_op(clone, environment))
        turns.theirs.append(run_no_op(trivial, environment))
    return turns


# --- the result ---------------------------------------------------------------------------------------------------


def describe_repros(repros: Sequence[Repro]) -> dict[str, Any]:
    """The spread of the seconds, whole and by kind, and each stage's median by kind."""
    return {
        "accuracy": repros[0].accuracy,
        "seconds": describe_spread([repro.seconds for repro in repros]),
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


def measure(repeats: int, folder: Path) -> dict[str, Any]:
    """All figures, from `repeats` rounds; `folder` is for what they need."""
    npz_path = folder / "mnist.npz"
    write_mnist(npz_path)
    # Nothing of this person's settings for DVC or MLflow.
    environment = make_environment(os.environ, Conditions(folder="", umask=0o022, environment={}), folder)
    lectures, on_mnist, on_digits = [], [], []
    for _ in range(repeats):
        lectures.append(run_lecture(npz_path, environment))
        with TemporaryDirectory(dir=folder) as parent:
            on_mnist.append(run_repro(clone_head(Path(parent, "mnist"), environment, "mnist"), environment))
    for number in range(repeats):
        clone = clone_head(folder / f"digits-{number}", environment, "digits")
        on_digits.append(run_repro(clone, environment))
    trivial = make_trivial(clone, folder / "trivial", environment)
    no_ops = time_no_ops(clone, trivial, NO_OPS * repeats, environment)
    lecture_seconds = [lecture.seconds for lecture in lectures]
    return {
        **describe_machine(),
        "commit": run_git("rev-parse", "HEAD"),
        "repeats": repeats,
        "mnist": {
            "lecture": {"accuracy": float(lectures[0].lines[-1]), "seconds": describe_spread(lecture_seconds)},
            "repro": describe_repros(on_mnist),
            "repro_to_lecture": describe_ratios([repro.seconds for repro in on_mnist], lecture_seconds),
        },
        "digits": {"repro": describe_repros(on_digits)},
        "no_op": {
            "repro_seconds": describe_spread(no_ops.ours),
            "trivial_seconds": describe_spread(no_ops.theirs),
            "repro_to_trivial": describe_ratios(no_ops.ours, no_ops.theirs),
        },
    }


def tabulate(result: Mapping[str, Any]) -> list[str]:
    """The result as Markdown: the machine, the ratios, and the seconds of each stage."""
    mnist, digits, no_op = result["mnist"], result["digits"]["repro"], result["no_op"]
    spreads = [
        ("the lecture's script on MNIST", mnist["lecture"]["seconds"], ""),
        ("`dvc repro` on MNIST", mnist["repro"]["seconds"], tell_ratio(mnist["repro_to_lecture"], "the lecture's")),
        ("`dvc repro` on digits", digits["seconds"], ""),
        ("of which work", digits["work_seconds"], ""),
        ("nothing to do", no_op["repro_seconds"], tell_ratio(no_op["repro_to_trivial"], "the trivial project's")),
        ("nothing to do, in the trivial project", no_op["trivial_seconds"], ""),
    ]
    repros = [mnist["repro"], digits]
    rows = [
        [stage, *(f"{repro['stages'][stage][kind]:.1f}" for repro in repros for kind in KINDS)]
        for stage in digits["stages"]
    ]
    totals = [f"{sum(seconds[kind] for seconds in repro['stages'].values()):.1f}" for repro in repros for kind in KINDS]
    return [
        tell_machine(result, PACKAGES),
        "",
        *format_table(
            ["seconds", "median", "least", "most", "ratio"],
            [
                [what, *(f"{spread[of]:.1f}" for of in ("median", "min", "max")), ratio]
                for what, spread, ratio in spreads
            ],
        ),
        "",
        *format_table(
            ["stage", "MNIST: imports", "work", "DVC", "digits: imports", "work", "DVC"], [*rows, ["all", *totals]]
        ),
        "",
        f"Rounds: {result['repeats']}, with nothing to do {NO_OPS} times as many. All else is from nothing, in fresh",
        f"clones. Test accuracy on MNIST: the lecture's {mnist['lecture']['accuracy']:.4f}, trained on all images, the",
        f"pipeline's {mnist['repro']['accuracy']:.4f}, without those of validation. Imports are seconds of the",
        "processor; DVC is all the rest of a stage's time, the start and the end of its process included.",
    ]


def tell_ratio(ratio: Mapping[str, float], of: str) -> str:
    """A spread of ratios for people."""
    return f"{ratio['median']:.2f} × {of} ({ratio['min']:.2f} to {ratio['max']:.2f})"


def main() -> None:
    """Run from the command line; exits with 1 and one line on anything a person caused."""
    parser = argparse.ArgumentParser(prog="benchmarks.pipeline", description="Measure the whole pipeline.")
    parser.add_argument("--repeat", type=int, default=3, metavar="N", help="rounds (3)")
    parser.add_argument("--output", type=Path, metavar="FILE", help="where to write the result, as JSON")
    options = parser.parse_args()
    if options.repeat < 1:
        parser.error(f"--repeat: expected a whole number of rounds, at least 1, got {options.repeat}")
    with run_benchmark(), TemporaryDirectory(prefix="benchmark-") as folder:
        result = measure(options.repeat, Path(folder))
        write_result("pipeline", result, options.output)
        print_lines(tabulate(result))


if __name__ == "__main__":
    main()
