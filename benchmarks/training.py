"""How fast training is: the lecture's `fit`, the pipeline's loop, a JAX scan and plain C, in one run.

Reads   the data set (as `ingest` does; MNIST_MIRROR is tried first)
Writes  benchmarks/results/training-YYYY-MM-DD.json, and prints the same as a table

Each trains the lecture's network (Flatten, Dense 20 relu, Dense 10 softmax; adam, batches of 32) in a process of its
own, and they take turns. All but the lecture's begin with the same weights and see the images in the same order, so
that their losses must agree: a challenger that computes something else is refused.
"""

# RUF001: the table's multiplication sign is no x.
# ruff: noqa: RUF001

import argparse
import json
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from statistics import fmean, median, stdev
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np

from benchmarks.measurements import (
    describe_machine,
    describe_ratios,
    describe_spread,
    print_lines,
    run_benchmark,
    tell_machine,
    write_result,
)
from stages.lib.core.errors import TrainingError
from stages.lib.core.markdown import format_table
from stages.lib.data.datasets import Dataset
from stages.lib.data.digits import load_digits
from stages.lib.data.mnist import load_mnist
from stages.lib.data.normalization import Normalization
from stages.lib.model.shuffling import draw_groups

HIDDEN_UNITS, CLASSES, BATCH = 20, 10, 32
PACKAGES = ["tensorflow", "keras", "jax", "numpy"]
LECTURE, PIPELINE = "lecture", "pipeline"
# Beyond this share of the first epoch's mean loss it is not the same arithmetic. Sums in another order, as C's compiler
# chooses them, differed by 2e-4.
LOSS_RTOL = 2e-3


class Challenger(NamedTuple):
    """Something that trains."""

    title: str
    command: list[str]
    environment: dict[str, str]


class Turn(NamedTuple):
    """What a challenger measured of itself in one process."""

    seconds: list[float]  # of each epoch; the first compiles
    processor_seconds: list[float]  # the same, of all threads together, without what other programs took
    losses: list[float]  # of each epoch, means
    accuracy: float  # on the test split, in the end, 0..1


def write_data(dataset: Dataset, folder: Path) -> None:
    """Write pixels, and images as the pipeline normalizes them."""
    for name, split in (("train", dataset.train), ("test", dataset.test)):
        np.save(folder / f"{name}_pixels.npy", split.images, allow_pickle=False)
        np.save(
            folder / f"{name}_images.npy",
            Normalization(shift=(0.0,), divisor=(255.0,)).apply(split.images),
            allow_pickle=False,
        )
        np.save(folder / f"{name}_labels.npy", split.labels.astype(np.uint8), allow_pickle=False)


def write_start(seed: int, epochs: int, image_shape: Sequence[int], count: int, folder: Path) -> None:
    """Write the first weights, one flat array, and the order of `count` images in each epoch (epochs, count)."""
    generator = np.random.default_rng(seed)
    layers = [(math.prod(image_shape), HIDDEN_UNITS), (HIDDEN_UNITS, CLASSES)]
    weights = []
    for inputs, outputs in layers:
        # Keras's default for Dense: Glorot and Bengio 2010, https://proceedings.mlr.press/v9/glorot10a.html
        limit = math.sqrt(6 / (inputs + outputs))
        weights += [generator.uniform(-limit, limit, inputs * outputs), np.zeros(outputs)]
    np.save(folder / "weights.npy", np.concatenate(weights).astype(np.float32), allow_pickle=False)
    row_bytes = 4 * math.prod(image_shape)
    orders = []
    for epoch in range(1, epochs + 1):
        (group,) = draw_groups(count, row_bytes, seed=seed, epoch=epoch)
        orders.append(group.order.astype(np.int32))
    np.save(folder / "orders.npy", np.stack(orders), allow_pickle=False)


def list_contenders(dataset: Dataset, folder: Path) -> tuple[dict[str, Challenger], list[str]]:
    """All that can be run here by name, and in words what cannot, and why."""
    python = [sys.executable, "-m"]
    contenders = {
        LECTURE: Challenger("the lecture's `fit`", [*python, "benchmarks.training_lecture"], {}),
        PIPELINE: Challenger("the pipeline", [*python, "benchmarks.training_pipeline"], {}),
    }
    not_run = []
    if find_spec("jax"):
        jax = [*python, "benchmarks.training_jax"]
        one_thread = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
        contenders["jax"] = Challenger("JAX scan", jax, {"JAX_PLATFORMS": "cpu"})
        contenders["jax_one_thread"] = Challenger(
            "JAX scan, one thread", jax, {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": one_thread, "NPROC": "1"}
        )
    else:
        not_run.append("JAX is not run: it is not installed (`pip install -r benchmarks/requirements.txt`).")
    if compiler := shutil.which("cc"):
        program = compile_c(compiler, dataset, folder)
        contenders["c"] = Challenger("plain C, one thread", [str(program)], {})
    else:
        not_run.append("C is not run: there is no compiler `cc`.")
    return contenders, not_run


def compile_c(compiler: str, dataset: Dataset, folder: Path) -> Path:
    """The program of training.c for data of these sizes.

    Raises:
        TrainingError: the compiler refused.
    """
    sizes = {
        "INPUTS": math.prod(dataset.train.images.shape[1:]),
        "HIDDEN": HIDDEN_UNITS,
        "CLASSES": CLASSES,
        "TRAIN_ROWS": len(dataset.train.labels),
        "TEST_ROWS": len(dataset.test.labels),
        "BATCH": BATCH,
    }
    source, program = Path(__file__).with_suffix(".c"), folder / "training"
    options = ["-O3", "-march=native", "-ffast-math", *(f"-D{name}={size}" for name, size in sizes.items())]
    run_apart([compiler, *options, str(source), "-o", str(program), "-lm"], {})
    return program


def run_apart(command: Sequence[str], environment: Mapping[str, str]) -> str:
    """What a command prints.

    Raises:
        TrainingError: it failed.
    """
    done = subprocess.run(  # noqa: S603  (this project's own programs)
        command, env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise TrainingError(
            " ".join(command[:3]),
            f"it ended with exit code {done.returncode}: {''.join(done.stderr.splitlines()[-1:])}",
            "run again once it works when typed",
        )
    return done.stdout


def take_turns(
    contenders: Mapping[str, Challenger], dataset: Dataset, folder: Path, seeds: int, epochs: int
) -> dict[str, list[Turn]]:
    """A turn of each challenger for each seed.

    Raises:
        TrainingError: one failed, or computed something else than the pipeline.
    """
    turns: dict[str, list[Turn]] = {name: [] for name in contenders}
    image_shape, count = dataset.train.images.shape[1:], len(dataset.train.labels)
    for seed in range(seeds):
        write_start(seed, epochs, image_shape, count, folder)
        for name, challenger in contenders.items():
            arguments = [str(folder), str(epochs), *([] if name == "c" else [str(seed)])]
            printed = run_apart([*challenger.command, *arguments], challenger.environment)
            turns[name].append(Turn(**json.loads(printed.splitlines()[-1])))
        require_same_arithmetic({name: taken[-1] for name, taken in turns.items()})
    return turns


def require_same_arithmetic(turns: Mapping[str, Turn]) -> None:
    """Refuse turns of one seed whose first losses differ from the pipeline's; the lecture's has an order of its own.

    Raises:
        TrainingError: one differs.
    """
    expected = turns[PIPELINE].losses[0]
    for name, turn in turns.items():
        if name != LECTURE and not math.isclose(turn.losses[0], expected, rel_tol=LOSS_RTOL):
            raise TrainingError(
                name,
                expected=f"the pipeline's mean loss of the first epoch, {expected:.6f}",
                got=f"{turn.losses[0]:.6f}",
                hint="make the two compute the same: one of them was changed alone",
            )


def describe_turns(contenders: Mapping[str, Challenger], turns: Mapping[str, list[Turn]]) -> list[dict[str, Any]]:
    """What each challenger took and gave; `times_as_fast_as_…` are ratios within a round."""
    epoch_seconds = {name: [median(turn.seconds[1:]) for turn in taken] for name, taken in turns.items()}
    return [
        {
            "name": name,
            "title": contenders[name].title,
            "first_epoch_seconds": describe_spread([turn.seconds[0] for turn in taken]),
            "epoch_seconds": describe_spread([seconds for turn in taken for seconds in turn.seconds[1:]]),
            "epoch_processor_seconds": describe_spread([s for turn in taken for s in turn.processor_seconds[1:]]),
            "epochs_per_second": describe_spread([1 / seconds for turn in taken for seconds in turn.seconds[1:]]),
            "times_as_fast_as_lecture": describe_ratios(epoch_seconds[LECTURE], epoch_seconds[name]),
            "times_as_fast_as_pipeline": describe_ratios(epoch_seconds[PIPELINE], epoch_seconds[name]),
            "test_accuracy": {
                "mean": round(fmean(turn.accuracy for turn in taken), 5),
                "deviation": round(stdev([turn.accuracy for turn in taken]), 5) if len(taken) > 1 else None,
                "of_each_seed": [round(turn.accuracy, 5) for turn in taken],
            },
        }
        for name, taken in turns.items()
    ]


def tabulate(result: Mapping[str, Any]) -> list[str]:
    """The result as Markdown: the machine, the table, and how to read it."""
    header = [
        *("", "epochs a second", "least", "most", "× the lecture's", "× the pipeline"),
        *("processor, s an epoch", "least", "first epoch, s", "accuracy"),
    ]
    rows = [
        [
            challenger["title"],
            *(f"{challenger['epochs_per_second'][key]:.2f}" for key in ("median", "min", "max")),
            *(f"{challenger[f'times_as_fast_as_{name}']['median']:.2f}" for name in ("lecture", "pipeline")),
            *(f"{challenger['epoch_processor_seconds'][key]:.3f}" for key in ("median", "min")),
            f"{challenger['first_epoch_seconds']['median']:.2f}",
            describe_accuracy(challenger["test_accuracy"]),
        ]
        for challenger in result["contenders"]
    ]
    return [
        tell_machine(result, PACKAGES),
        "",
        *format_table(header, rows),
        "",
        ", ".join(f"{key}: {result[key]:,}" for key in ("images", "seeds", "epochs")) + f"; {result['dataset']}.",
        "All take turns, each in a process of its own for each seed. The first epoch, which compiles, is told apart.",
        "× is how many times as fast as another, the median of the turns. The processor's seconds are those of all",
        "threads; where other programs run, they tell more than the clock. Accuracy is on the test split, ± its",
        "standard deviation.",
        "",
        *result["not_run"],
    ]


def describe_accuracy(accuracy: Mapping[str, Any]) -> str:
    """Mean and deviation, for people."""
    spread = "" if accuracy["deviation"] is None else f" ± {accuracy['deviation']:.4f}"
    return f"{accuracy['mean']:.4f}{spread}"


def run(dataset: Dataset, name: str, seeds: int, epochs: int, output_path: Path | None) -> None:
    """Measure, print and write, by default to the day's file."""
    with TemporaryDirectory(prefix="training-") as folder_name:
        folder = Path(folder_name)
        write_data(dataset, folder)
        contenders, not_run = list_contenders(dataset, folder)
        turns = take_turns(contenders, dataset, folder, seeds, epochs)
    result = {
        **describe_machine(*(["jax", "jaxlib"] if "jax" in contenders else [])),
        "dataset": name,
        "images": len(dataset.train.labels),
        "seeds": seeds,
        "epochs": epochs,
        "contenders": describe_turns(contenders, turns),
        "not_run": not_run,
    }
    write_result("training", result, output_path)
    print_lines(tabulate(result))


def read_count(text: str) -> int:
    """A whole number above 0, as an argument."""
    if (count := int(text)) < 1:
        raise ValueError
    return count


def read_epochs(text: str) -> int:
    """A whole number above 1, as an argument: the first epoch is the one that compiles."""
    if (count := int(text)) < 2:
        raise ValueError
    return count


def main() -> None:
    """Run from the command line; exits with 1 and one line on anything a person caused."""
    parser = argparse.ArgumentParser(prog="benchmarks.training", description="Measure how fast training is.")
    parser.add_argument("--dataset", choices=["mnist", "digits"], default="mnist", help="digits: to see that it works")
    parser.add_argument("--seeds", type=read_count, default=5, metavar="N", help="turns of each challenger (5)")
    parser.add_argument("--epochs", type=read_epochs, default=4, metavar="N", help="in each turn, at least 2 (4)")
    parser.add_argument("--output", type=Path, metavar="FILE", help="where to write the result, as JSON")
    options = parser.parse_args()
    with run_benchmark():
        dataset = load_mnist() if options.dataset == "mnist" else load_digits(test_fraction=0.2, seed=0)
        run(dataset, options.dataset, options.seeds, options.epochs, options.output)


if __name__ == "__main__":
    main()
