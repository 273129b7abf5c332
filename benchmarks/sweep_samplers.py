"""Trials until a sweep finds the best, TPE against random: `make bench-sweep`, a quarter of an hour.

The space is that of the example in docs/how-to/sweeps.md. Every point of a grid over it is trained once, on the data as
they are, and kept in .cache/sweep-table.json. Then the samplers of `pipeline sweep` are asked, and answered from that
table: a learning rate between two of the grid's counts as the nearer one. All in one process, without Ray's workers.
"""

import argparse
import math
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.measurements import describe_machine, print_lines, run_benchmark, tell_machine, write_result
from stages import train
from stages.commands import sweep
from stages.lib.core.arrays import load_split
from stages.lib.core.files import read_json, write_json, write_text
from stages.lib.core.markdown import format_table
from stages.lib.core.params import load_params
from stages.lib.model.deterministic_tensorflow import keras
from stages.lib.sweeps.plan import Bounds, Goal, Plan, Range, Settings, apply_settings, read_plan
from stages.lib.sweeps.results import INT8_BYTES, Result, Scored, Trial, rank
from stages.lib.sweeps.search import Search

ACCURACY = "accuracy/validation"
# The example's own goal, and a harder one.
GOALS = {
    "smallest that is accurate enough": Goal(INT8_BYTES, is_maximized=False, bounds={ACCURACY: Bounds(min=0.96)}),
    "most accurate": Goal(ACCURACY, is_maximized=True, bounds={}),
}
SAMPLERS = ("random", "tpe")
_DATA_DIR = Path("data/normalized")
_TABLE_PATH = Path(".cache/sweep-table.json")
_FINISHED = Result("finished", "", {}, {}, 0)


def read_example(search: str, trials: int) -> Plan:
    """The plan of the example, with another sampler and number of trials."""
    text = sweep._EXAMPLE  # noqa: SLF001  # what the help and the documents show
    for old, new in (("search: random", f"search: {search}"), ("32\n", f"{trials}\n")):
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
    files = ["onnx_float32", "tflite_int8"]
    settings = {"train.hidden_units": list(units), "export.artifacts": files, "export.required": files[:1]}
    reports: list[Any] = []
    with TemporaryDirectory() as folder:
        trial = Trial(1, settings, apply_settings(load_params(), settings), {}, "")
        sweep.run_trial(Path("data").absolute(), trial, Path(folder), reports.append)
        write_text(Path(folder) / "parity.json", reports[-1]["reports"]["parity/parity.json"].decode())
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


def read_table(plan: Plan, rates: Sequence[float]) -> dict[str, Any]:
    """The table of an earlier call, if it has the same rates; else it is measured, and kept."""
    if not _TABLE_PATH.exists() or read_json(_TABLE_PATH)["rates"] != list(rates):
        write_json(_TABLE_PATH, measure_table(plan, rates))
    table: dict[str, Any] = read_json(_TABLE_PATH)
    return table


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


def score(plan: Plan, table: dict[str, Any], trial: Trial) -> Scored:
    """The trial as if it had been run."""
    return Scored(trial.number, trial.settings, _FINISHED, look_up(plan, table, trial.settings))


def count_trials(plan: Plan, table: dict[str, Any], best: float, round_size: int) -> int | None:
    """How many trials the search runs until one that meets the goal measures the best value; none if none does."""
    scored: dict[str, Scored] = {}

    def make_trial(number: int, settings: Settings) -> Trial:
        return Trial(number, settings, {}, {}, str(settings))

    search = Search(plan, round_size, make_trial, scored, ())
    while search.has_more():
        suggestion = search.suggest("")
        assert isinstance(suggestion, dict)
        trial = suggestion["trial"]
        scored[trial.key] = score(plan, table, trial)
        if scored[trial.key].meets(plan.goal) and scored[trial.key].metrics[plan.goal.metric] == best:
            return trial.number
    return None


def find_best(plan: Plan, table: dict[str, Any]) -> tuple[float, float]:
    """The best value of the goal over the table, and the share of points that have it."""
    keys = ("train.hidden_units", "train.epochs")
    units, epochs = (choice if isinstance(choice := plan.choices[key], list) else [] for key in keys)
    points = [
        {"train.hidden_units": unit, "train.learning_rate": rate, "train.epochs": epoch}
        for unit, rate, epoch in product(units, table["rates"], epochs)
    ]
    ranked = rank([score(plan, table, Trial(0, point, {}, {}, "")) for point in points], plan.goal)
    best = ranked[0].metrics[plan.goal.metric]
    equal = [trial for trial in ranked if trial.meets(plan.goal) and trial.metrics[plan.goal.metric] == best]
    return best, len(equal) / len(points)


def describe(result: dict[str, Any]) -> list[str]:
    """The result as Markdown."""
    rows = []
    for name, found in result["goals"].items():
        for sampler in SAMPLERS:
            counts = [math.inf if count is None else count for count in found["trials"][sampler]]
            share = f"{found['share_as_good']:.1%}"
            rows.append([name, share, sampler, *map(str, (median(counts), min(counts), max(counts)))])
    header = ["wanted", "points as good", "sampler", "median of trials", "fewest", "most"]
    return [*format_table(header, rows), "", tell_machine(result, ("optuna", "ray"))]


def main() -> None:
    """Measure, print and write the result."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--rates", type=int, default=24, help="points of the grid for the learning rate")
    parser.add_argument("--trials", type=int, default=300, help="after which a seed has not found it")
    parser.add_argument("--workers", type=int, default=2, help="trials at a time")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    with run_benchmark():
        plan = read_example("random", options.trials)
        table = read_table(plan, list_rates(plan, options.rates))
        goals = {}
        for name, goal in GOALS.items():
            best, share = find_best(plan._replace(goal=goal), table)
            plans = {sampler: read_example(sampler, options.trials)._replace(goal=goal) for sampler in SAMPLERS}
            trials = {
                sampler: [
                    count_trials(of._replace(seed=seed), table, best, options.workers) for seed in range(options.seeds)
                ]
                for sampler, of in plans.items()
            }
            goals[name] = {"best": best, "share_as_good": round(share, 4), "trials": trials}
        result = describe_machine("optuna", "ray") | {
            "goals": goals,
            "rates": options.rates,
            "workers": options.workers,
        }
        write_result("sweep-samplers", result, options.output)
        print_lines(describe(result))


if __name__ == "__main__":
    main()
