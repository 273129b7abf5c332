"""Trials until a sweep finds the best, TPE against random: `python -m benchmarks.sweep_samplers`, a quarter of an hour.

The space is that of the example in docs/how-to/sweeps.md. Every point of a grid over it is trained once, on the data as
they are; then the samplers of `pipeline sweep` are asked, and answered from that table: a learning rate between two of
the grid's counts as the nearer one. All in one process, without Ray's workers.
"""

import argparse
import math
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.measurements import describe_machine, print_lines, run_benchmark, tell_machine, write_result
from stages import train
from stages.commands import sweep
from stages.lib.core.arrays import load_split
from stages.lib.core.files import read_json, write_text
from stages.lib.core.markdown import format_table
from stages.lib.core.params import load_params
from stages.lib.model.deterministic_tensorflow import keras
from stages.lib.sweeps.plan import Plan, Range, Settings, apply_settings, read_plan
from stages.lib.sweeps.results import INT8_BYTES, Result, Scored, Trial
from stages.lib.sweeps.search import Search

ACCURACY = "accuracy/validation"
SAMPLERS = ("random", "tpe")
_DATA_DIR = Path("data/normalized")
_FINISHED = Result("finished", "", {}, {}, 0)


def read_example(search: str, seed: int, trials: int) -> Plan:
    """The plan of the example, with another sampler, seed and number of trials."""
    text = sweep._EXAMPLE  # noqa: SLF001  # what the help and the documents show
    for old, new in (("search: tpe", f"search: {search}"), ("seed: 0", f"seed: {seed}"), ("32\n", f"{trials}\n")):
        assert old in text, "the example has this line"
        text = text.replace(old, new, 1)
    base, sections = load_params(), sweep.load_sections()
    with TemporaryDirectory() as folder:
        write_text(Path(folder) / "example.yaml", text)
        return read_plan(Path(folder) / "example.yaml", base, sections, sweep.list_metrics(base, sections))


def list_rates(plan: Plan, count: int) -> list[float]:
    """Learning rates at equal distances of their logarithms, both ends of the example's range included."""
    rates = plan.choices["train.learning_rate"]
    assert isinstance(rates, Range)
    return [rates.min * (rates.max / rates.min) ** (step / (count - 1)) for step in range(count)]


def measure_accuracies(units: Sequence[int], rate: float, epochs: Sequence[int]) -> list[float]:
    """The validation accuracy after each of these numbers of epochs, all of one training, for its rate is constant."""
    params = apply_settings(
        load_params(), {"train.hidden_units": list(units), "train.learning_rate": rate, "train.epochs": max(epochs)}
    )
    accuracies: list[float] = []
    class_count = int(load_split(_DATA_DIR / "train").labels.max()) + 1
    train.train_network(
        train.TrainParams(**params["train"]),
        _DATA_DIR,
        class_count,
        lambda epoch: accuracies.append(epoch.val_accuracy),
    )
    keras.backend.clear_session()
    return [round(accuracies[number - 1], 4) for number in epochs]


def measure_bytes(units: Sequence[int]) -> int:
    """The size of the int8 model, which the rate and the epochs do not change."""
    settings = {"train.hidden_units": list(units), "export.artifacts": ["onnx_float32", "tflite_int8"]}
    reports: list[Any] = []
    with TemporaryDirectory() as folder:
        trial = Trial(1, settings, apply_settings(load_params(), settings), {}, "")
        sweep.run_trial(Path("data").absolute(), trial, Path(folder), reports.append)
        write_text(Path(folder) / "parity.json", reports[-1]["outcome"].reports["parity.json"].decode())
        return int(read_json(Path(folder) / "parity.json")["model_int8.tflite"]["bytes"])


def measure_table(plan: Plan, rates: Sequence[float]) -> dict[str, Any]:
    """Bytes by hidden units, and accuracies by hidden units, rate and epochs, all in the order of the plan's lists."""
    units, epochs = plan.choices["train.hidden_units"], plan.choices["train.epochs"]
    assert isinstance(units, list)
    assert isinstance(epochs, list)
    return {
        "rates": list(rates),
        "bytes": [measure_bytes(one) for one in units],
        "accuracies": [[measure_accuracies(one, rate, epochs) for rate in rates] for one in units],
    }


def look_up(plan: Plan, table: dict[str, Any], settings: Settings) -> dict[str, float]:
    """What the table has for these settings, or for the nearest rate."""
    lists = [plan.choices["train.hidden_units"], plan.choices["train.epochs"]]
    units, epochs = (
        choice.index(settings[key])
        for key, choice in zip(("train.hidden_units", "train.epochs"), lists, strict=True)
        if isinstance(choice, list)
    )
    logarithm = math.log(settings["train.learning_rate"])
    rate = min(range(len(table["rates"])), key=lambda at: abs(math.log(table["rates"][at]) - logarithm))
    return {INT8_BYTES: table["bytes"][units], ACCURACY: table["accuracies"][units][rate][epochs]}


def count_trials(plan: Plan, table: dict[str, Any], best: float, round_size: int) -> int | None:
    """How many trials the search runs until one that meets the goal is as good as the best; none if none is."""
    scored: dict[str, Scored] = {}

    def make_trial(number: int, settings: Settings) -> Trial:
        return Trial(number, settings, {}, {}, str(settings))

    search = Search(plan, round_size, make_trial, scored, ())
    while search.has_more():
        suggestion = search.suggest("")
        assert isinstance(suggestion, dict)
        trial = suggestion["trial"]
        found = Scored(trial.number, trial.settings, _FINISHED, look_up(plan, table, trial.settings))
        if found.meets(plan.goal) and found.metrics[plan.goal.metric] <= best:
            return trial.number
        scored[trial.key] = found
    return None


def find_best(plan: Plan, table: dict[str, Any]) -> tuple[float, float]:
    """The smallest size at which some point of the table meets the goal, and the share of points that are as good."""
    accurate = plan.goal.bounds[ACCURACY].min
    sizes = [
        size
        for size, of_size in zip(table["bytes"], table["accuracies"], strict=True)
        for of_rate in of_size
        for accuracy in of_rate
        if accuracy >= accurate
    ]
    points = sum(len(of_rate) for of_size in table["accuracies"] for of_rate in of_size)
    return min(sizes), sizes.count(min(sizes)) / points


def describe(result: dict[str, Any]) -> list[str]:
    """The result as Markdown."""
    rows = []
    for name in SAMPLERS:
        counts = [count if count is not None else math.inf for count in result["trials"][name]]
        rows.append([name, *map(str, (median(counts), min(counts), max(counts))), " ".join(map(str, sorted(counts)))])
    return [
        f"Best: {result['best_bytes']:.0f} bytes, which {result['share_as_good']:.1%} of the points reach.",
        "",
        *format_table(["sampler", "median of trials", "fewest", "most", "all seeds"], rows),
        "",
        tell_machine(result, ("optuna", "ray")),
    ]


def main() -> None:
    """Measure, print and write the result."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--rates", type=int, default=24, help="points of the grid for the learning rate")
    parser.add_argument("--trials", type=int, default=300, help="after which a seed has not found it")
    parser.add_argument("--workers", type=int, default=2, help="trials at a time")
    parser.add_argument("--table", type=Path, help="an earlier result, whose table is used")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    with run_benchmark():
        plan = read_example("random", 0, options.trials)
        table = (
            read_json(options.table)["table"] if options.table else measure_table(plan, list_rates(plan, options.rates))
        )
        best, share = find_best(plan, table)
        trials = {
            name: [
                count_trials(read_example(name, seed, options.trials), table, best, options.workers)
                for seed in range(options.seeds)
            ]
            for name in SAMPLERS
        }
        result = describe_machine("optuna", "ray") | {
            "best_bytes": best,
            "share_as_good": round(share, 4),
            "table": table,
            "trials": trials,
            "workers": options.workers,
        }
        write_result("sweep-samplers", result, options.output)
        print_lines(describe(result))


if __name__ == "__main__":
    main()
