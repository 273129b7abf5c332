"""How fast a network of your choice trains, and how well: the pipeline and Keras's own `fit`, in turn.

Reads   data/normalized, or what --data names
Writes  benchmarks/results/networks-YYYY-MM-DD.json, and prints the same as a table

python -m benchmarks.networks --conv-blocks '[[16], [32]]'

Each trains in a process of its own, in batches of 32 by adam at a rate of 0.001, from the same first weights; Keras
with oneDNN on all cores, as it comes. The first epoch, which compiles, counts for no time.
"""

# ruff: noqa: RUF001  (the multiplication sign is no x)

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from benchmarks.measurements import (
    describe_machine,
    describe_ratios,
    describe_spread,
    print_lines,
    run_benchmark,
    tell_machine,
    write_result,
)
from benchmarks.training import read_count, read_epochs, run_apart
from stages.lib.core.arrays import load_split
from stages.lib.core.files import read_json
from stages.lib.core.markdown import format_table

TITLES = {"pipeline": "the pipeline", "keras": "Keras's `fit`"}


def measure(data_dir: Path, network: Mapping[str, Any], seeds: int, epochs: int) -> dict[str, Any]:
    """Epochs a second of both, how many times as fast the pipeline is, losses and accuracies."""
    turns: dict[str, list[Any]] = {who: [] for who in TITLES}
    for seed in range(seeds):
        for who, taken in turns.items():
            command = [sys.executable, "-m", "benchmarks.training_network", who, str(data_dir), str(epochs), str(seed)]
            taken.append(json.loads(run_apart([*command, json.dumps(network)], {}).splitlines()[-1]))
    seconds = {who: [fmean(turn["seconds"][1:]) for turn in taken] for who, taken in turns.items()}
    return {
        "times_as_fast": describe_ratios(seconds["keras"], seconds["pipeline"]),
        "of_each": {
            who: {
                "epoch_seconds": describe_spread(seconds[who]),
                "last_loss": [round(turn["losses"][-1], 4) for turn in taken],
                "test_accuracy": [round(turn["accuracy"], 4) for turn in taken],
            }
            for who, taken in turns.items()
        },
    }


def tabulate(result: Mapping[str, Any]) -> list[str]:
    """The result as Markdown."""
    header = ["", "s an epoch", "least", "most", "last loss", "test accuracy"]
    rows = []
    for who, found in result["of_each"].items():
        seconds, accuracies = found["epoch_seconds"], found["test_accuracy"]
        spread = f" ± {stdev(accuracies):.4f}" if len(accuracies) > 1 else ""
        figures = [f"{seconds[key]:.2f}" for key in ("median", "min", "max")]
        rows.append([TITLES[who], *figures, f"{fmean(found['last_loss']):.4f}", f"{fmean(accuracies):.4f}{spread}"])
    ratio = result["times_as_fast"]
    return [
        tell_machine(result, ["tensorflow", "keras"]),
        json.dumps(result["network"]),
        f"{result['epochs']} epochs of {result['images']:,} images of {result['dataset']}.",
        "",
        *format_table(header, rows),
        "",
        f"The pipeline is {ratio['median']:.2f} × as fast ({ratio['min']:.2f} to {ratio['max']:.2f}).",
    ]


def main() -> None:
    """Run from the command line; exits with 1 and one line on anything a person caused."""
    parser = argparse.ArgumentParser(prog="benchmarks.networks", description="Measure how fast a network trains.")
    parser.add_argument("--data", type=Path, default=Path("data/normalized"), metavar="FOLDER")
    parser.add_argument("--conv-blocks", type=json.loads, default=[[16], [32]], metavar="JSON", help="[[16], [32]]")
    parser.add_argument("--hidden-units", type=json.loads, default=[], metavar="JSON", help="[]")
    parser.add_argument("--seeds", type=read_count, default=3, metavar="N", help="turns of each (3)")
    parser.add_argument("--epochs", type=read_epochs, default=4, metavar="N", help="in each turn, at least 2 (4)")
    parser.add_argument("--output", type=Path, metavar="FILE", help="where to write the result, as JSON")
    options = parser.parse_args()
    network = {"conv_blocks": options.conv_blocks, "hidden_units": options.hidden_units}
    with run_benchmark():
        dataset = read_json(options.data / "dataset.json")
        result = {
            **describe_machine(),
            "network": network,
            "dataset": dataset["name"],
            "images": len(load_split(options.data / "train").labels),
            "epochs": options.epochs,
            **measure(options.data, network, options.seeds, options.epochs),
        }
        write_result("networks", result, options.output)
        print_lines(tabulate(result))


if __name__ == "__main__":
    main()
