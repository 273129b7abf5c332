"""Cost per prediction: every exported file in every runtime that can run it, and Keras, measured in one run.

Reads   params.yaml (which files are exported), models/model.keras, models/export, data/normalized/dataset.json,
        data/raw/test/images.npy
Writes  benchmarks/results/predictions-YYYY-MM-DD.json, and prints the same as a table

An answer is from raw pixels to probabilities: the exports normalize inside, Keras's challengers before they predict.
All compute in one thread.
"""

# PLC0415: a process that measures memory imports what it measures, no more.
# RUF001: the table's multiplication sign is no x.
# ruff: noqa: PLC0415, RUF001

import argparse
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from benchmarks.measurements import describe_machine, print_lines, run_benchmark, tell_machine, write_result
from stages.lib.core.arrays import load_array
from stages.lib.core.errors import DataError, ExportError
from stages.lib.core.files import read_json
from stages.lib.core.markdown import format_table
from stages.lib.data.normalization import read_normalization
from stages.lib.model.prediction import predict_in_batches

BATCH = 1000  # images of the large batch
PACKAGES = ["tensorflow", "keras", "onnxruntime", "onnx", "ai-edge-litert", "tflite-micro", "tract"]
MODEL_PATH = Path("models/model.keras")
EXPORT_DIR = Path("models/export")

KERAS_TITLES = {"keras_predict": "Keras predict", "keras_call": "Keras call"}

# uint8 (N, H, W) to float32 (N, classes).
Predictor = Callable[[NDArray[np.uint8]], NDArray[np.float32]]


class Challenger(NamedTuple):
    """A model file and what runs it."""

    path: Path
    runtime: str  # a key of stages.lib.exports.runtimes.RUNTIMES or of KERAS_TITLES


KERAS_PREDICT = Challenger(MODEL_PATH, "keras_predict")
KERAS_CALL = Challenger(MODEL_PATH, "keras_call")


class Effort(NamedTuple):
    """How much is measured."""

    rounds: int
    calls: int  # with one image, by challenger and round, at most
    seconds: float  # for these calls, by challenger and round; a slow challenger gets fewer of them


THOROUGH = Effort(rounds=20, calls=100, seconds=0.25)
QUICK = Effort(rounds=1, calls=5, seconds=0.25)


class Times(NamedTuple):
    """What was measured of one challenger, in seconds."""

    single: list[float]  # of each call with one image
    batch: list[float]  # of each call with BATCH images


def list_contenders() -> tuple[dict[Challenger, float], list[str]]:
    """Keras and each exported file in each runtime that can run it, and in words what is not run, and why.

    With each challenger comes the smallest share of images, 0..1, to which it must give Keras's class.

    Raises:
        DataError: there are no models.
    """
    for path in (MODEL_PATH, EXPORT_DIR):  # told at once, not after TensorFlow's import
        if not path.exists():
            raise DataError(str(path), "it is not there", "run `dvc repro`")
    from stages.export import FILES, ExportParams
    from stages.lib.core.params import load_section
    from stages.lib.exports.parity_matrix import find_unsupported_reason
    from stages.lib.exports.runtimes import RUNTIMES, find_runtimes

    params = load_section("export", ExportParams)
    contenders, not_run = {KERAS_PREDICT: 1.0, KERAS_CALL: 1.0}, []
    for kind in params.artifacts:
        path = EXPORT_DIR / FILES[kind]
        for runtime in find_runtimes(path):
            if unsupported_reason := find_unsupported_reason(path.name, runtime):
                not_run.append(f"{path.name} is not run by {RUNTIMES[runtime].title}: {unsupported_reason}.")
            else:
                contenders[Challenger(path, runtime)] = getattr(params.budgets, kind).min_same_class
    return contenders, not_run


def load_contender(challenger: Challenger) -> Predictor:
    """A function from raw pixels to probabilities.

    Raises:
        PipelineError: the file is missing or damaged, or the runtime cannot run it.
    """
    if challenger.runtime in KERAS_TITLES:
        return load_keras(challenger)
    from stages.lib.exports.runtimes import load_predictor

    return load_predictor(challenger.path, challenger.runtime)


def load_keras(challenger: Challenger) -> Predictor:
    """Keras by its `predict` or by a direct call, normalization included."""
    from stages.lib.model.deterministic_tensorflow import keras, tf

    tf.config.threading.set_intra_op_parallelism_threads(1)
    network = keras.saving.load_model(challenger.path, compile=False, safe_mode=True)
    normalization = read_normalization(read_json(Path("data/normalized/dataset.json")))

    def predict(images: NDArray[np.uint8]) -> NDArray[np.float32]:
        # In one batch, as the others have it: by default Keras would take 32 images at a time and half as long again.
        probabilities: NDArray[np.float32] = network.predict(
            normalization.apply(images), batch_size=len(images), verbose=0
        )
        return probabilities

    def call(images: NDArray[np.uint8]) -> NDArray[np.float32]:
        return np.asarray(network(normalization.apply(images)))

    return predict if challenger == KERAS_PREDICT else call


def load_images() -> NDArray[np.uint8]:
    """BATCH raw images of the test split, uint8 (BATCH, H, W), in memory; of a smaller split the first ones again."""
    split = load_array(Path("data/raw/test/images.npy"))
    images: NDArray[np.uint8] = split[np.arange(BATCH) % len(split)]
    return images


def count_same_class(
    answers: Mapping[Challenger, NDArray[np.float32]], min_shares: Mapping[Challenger, float]
) -> dict[Challenger, int]:
    """How many images get Keras's class from each challenger.

    answers: probabilities (N, classes). min_shares: the least that is let pass, 0..1: what wrong answers cost is of no
    interest.

    Raises:
        ExportError: a challenger's answers are not probabilities of that shape, or too many are of another class.
    """
    reference = answers[KERAS_PREDICT]
    same_class = {}
    for challenger, answer in answers.items():
        is_valid = answer.shape == reference.shape and np.isfinite(answer).all()
        same = int((answer.argmax(axis=1) == reference.argmax(axis=1)).sum()) if is_valid else 0
        if same < min_shares[challenger] * len(reference):
            raise ExportError(
                f"{challenger.path.name} in {get_title(challenger)}",
                expected=f"Keras's class for at least {min_shares[challenger]:.2%} of {len(reference)} images",
                got=f"{same / len(reference):.2%}",
                hint="run `dvc repro`: it compares all answers",
            )
        same_class[challenger] = same
    return same_class


def get_title(challenger: Challenger) -> str:
    """The name of what runs it, for people."""
    if challenger.runtime in KERAS_TITLES:
        return KERAS_TITLES[challenger.runtime]
    from stages.lib.exports.runtimes import RUNTIMES

    return RUNTIMES[challenger.runtime].title


def time_in_turn(
    predictors: Mapping[Challenger, Predictor], images: NDArray[np.uint8], effort: Effort
) -> dict[Challenger, Times]:
    """The times of each challenger, which take turns, so that a noisy moment hits all of them."""
    times = {challenger: Times([], []) for challenger in predictors}
    for _ in range(effort.rounds):
        for challenger, predict in predictors.items():
            times[challenger].single.extend(time_single_calls(predict, images, effort))
            times[challenger].batch.append(time_call(predict, images))
    return times


def time_single_calls(predict: Predictor, images: NDArray[np.uint8], effort: Effort) -> list[float]:
    """Seconds of each call with one image, then another."""
    warm_up(predict, images[:1])
    end = perf_counter() + effort.seconds
    seconds: list[float] = []
    while len(seconds) < effort.calls and (not seconds or perf_counter() < end):
        image = len(seconds) % len(images)
        seconds.append(time_once(predict, images[image : image + 1]))
    return seconds


def time_call(predict: Predictor, images: NDArray[np.uint8]) -> float:
    """Seconds of a call with all images."""
    warm_up(predict, images)
    return time_once(predict, images)


def time_once(predict: Predictor, images: NDArray[np.uint8]) -> float:
    """Seconds of one call."""
    start = perf_counter()
    predict(images)
    return perf_counter() - start


def warm_up(predict: Predictor, images: NDArray[np.uint8]) -> None:
    """Answer untimed: a runtime makes room for a batch of another size, and another's turn has emptied the caches."""
    for _ in range(2):
        predict(images)


def measure_memory(contenders: Sequence[Challenger]) -> dict[Challenger, int | None]:
    """The bytes that each challenger needs in a process of its own, see `measure_own_memory`."""
    with ThreadPoolExecutor(os.cpu_count()) as executor:
        return dict(zip(contenders, executor.map(measure_memory_apart, contenders), strict=True))


def measure_memory_apart(challenger: Challenger) -> int | None:
    """`measure_own_memory` in a fresh process.

    Raises:
        ExportError: that process failed.
    """
    command = [sys.executable, "-m", "benchmarks.predictions", "--memory-of", challenger.runtime, str(challenger.path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603  (this module itself)
    if done.returncode != 0:
        last_line = "".join(done.stderr.splitlines()[-1:])
        raise ExportError(
            f"memory of {challenger.path.name} in {get_title(challenger)}",
            f"its process ended with exit code {done.returncode}: {last_line}",
            "run again once `pipeline predict` answers with it",
        )
    measured: int | None = json.loads(done.stdout)
    return measured


def measure_own_memory(challenger: Challenger) -> int | None:
    """Bytes that this process takes to load the runtime and the model and to answer one image, then BATCH images.

    It is what the process holds afterwards above what it held before; none where that cannot be told.
    """
    images = load_images()
    before = read_anonymous_memory()
    predict = load_contender(challenger)
    predict(images[:1])
    predict(images)
    after = read_anonymous_memory()
    return None if before is None or after is None else after - before


def read_anonymous_memory() -> int | None:
    """Bytes of resident memory that this process has filled itself: mapped files do not count. Linux tells it.

    https://docs.kernel.org/filesystems/proc.html (RssAnon)
    """
    try:
        status = Path("/proc/self/status").read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    found = re.search(r"^RssAnon:\s+(\d+) kB$", status, re.MULTILINE)
    return int(found[1]) * 1024 if found else None


def describe_costs(
    times: Mapping[Challenger, Times],
    memory: Mapping[Challenger, int | None],
    same_class: Mapping[Challenger, int],
) -> list[dict[str, Any]]:
    """What a prediction costs each challenger; `times_as_fast_as_…` are ratios to Keras's own medians."""
    single = {challenger: median(measured.single) for challenger, measured in times.items()}
    batch = {challenger: median(measured.batch) for challenger, measured in times.items()}
    return [
        {
            "file": challenger.path.name,
            "runtime": challenger.runtime,
            "title": get_title(challenger),
            "bytes": challenger.path.stat().st_size,
            "memory_bytes": memory[challenger],
            "same_class": same_class[challenger],
            "single": {
                "calls": len(measured.single),
                "median_us": round(1e6 * single[challenger], 2),
                "p99_us": round(1e6 * float(np.percentile(measured.single, 99)), 2),
                "times_as_fast_as_predict": round(single[KERAS_PREDICT] / single[challenger], 2),
                "times_as_fast_as_call": round(single[KERAS_CALL] / single[challenger], 2),
            },
            "batch": {
                "images_per_second": round(BATCH / batch[challenger]),
                "times_as_fast_as_predict": round(batch[KERAS_PREDICT] / batch[challenger], 2),
                "times_as_fast_as_call": round(batch[KERAS_CALL] / batch[challenger], 2),
            },
        }
        for challenger, measured in times.items()
    ]


def tabulate(result: Mapping[str, Any]) -> list[str]:
    """The result as Markdown: the machine, the table, and how to read it."""
    header = [
        *("file", "runtime", "bytes", "memory, MiB"),
        *("1 image: median, µs", "p99, µs", "× predict", "× call"),
        *(f"{BATCH:,} images: per second", "× predict", "× call", "Keras's class"),
    ]
    rows = [
        [
            *(cost["file"], cost["title"], f"{cost['bytes']:,}"),
            "not measured" if cost["memory_bytes"] is None else f"{cost['memory_bytes'] / 2**20:,.1f}",
            *(format_number(cost["single"][key]) for key in ("median_us", "p99_us")),
            *(format_number(cost["single"][f"times_as_fast_as_{key}"]) for key in ("predict", "call")),
            f"{cost['batch']['images_per_second']:,}",
            *(format_number(cost["batch"][f"times_as_fast_as_{key}"]) for key in ("predict", "call")),
            f"{cost['same_class'] / BATCH:.1%}",
        ]
        for cost in result["costs"]
    ]
    calls = [cost["single"]["calls"] for cost in result["costs"]]
    return [
        tell_machine(result, PACKAGES),
        "",
        *format_table(header, rows),
        "",
        f"All take turns, in one process and one thread; rounds: {result['rounds']}. One image: {min(calls):,} to",
        f"{max(calls):,} calls each. {BATCH:,} images: one call a round, the median of the rounds.",
        "× is how many times as fast as Keras's `predict` and as its direct call. Memory is what a process of its own",
        "takes to load the runtime and the model and to answer both.",
        "",
        *result["not_run"],
    ]


def format_number(value: float) -> str:
    """A positive number for people, with three digits or more."""
    decimals = 2 if value < 10 else 1 if value < 100 else 0
    return f"{value:,.{decimals}f}"


def run(effort: Effort, output_path: Path | None) -> None:
    """Measure, print and write, by default to the day's file."""
    images = load_images()
    min_shares, not_run = list_contenders()
    predictors = {challenger: load_contender(challenger) for challenger in min_shares}
    answers = {challenger: predict_in_batches(predict, images) for challenger, predict in predictors.items()}
    same_class = count_same_class(answers, min_shares)
    memory = measure_memory(list(min_shares))
    times = time_in_turn(predictors, images, effort)
    result = {
        **describe_machine(),
        "batch": BATCH,
        "rounds": effort.rounds,
        "costs": describe_costs(times, memory, same_class),
        "not_run": not_run,
    }
    write_result("predictions", result, output_path)
    print_lines(tabulate(result))


def main() -> None:
    """Run from the command line; exits with 1 and one line on anything a person caused."""
    parser = argparse.ArgumentParser(prog="benchmarks.predictions", description="Measure what a prediction costs.")
    parser.add_argument("--quick", action="store_true", help="a few calls, one round: to see that it works")
    parser.add_argument("--output", type=Path, metavar="FILE", help="where to write the result, as JSON")
    parser.add_argument("--memory-of", nargs=2, metavar=("RUNTIME", "FILE"), help="print what that takes, in bytes")
    options = parser.parse_args()
    with threadpool_limits(limits=1), run_benchmark():  # NumPy's matrix products, under the ONNX reference evaluator
        if options.memory_of:
            runtime, path = options.memory_of
            print(json.dumps(measure_own_memory(Challenger(Path(path), runtime))))
        else:
            run(QUICK if options.quick else THOROUGH, options.output)


if __name__ == "__main__":
    main()
