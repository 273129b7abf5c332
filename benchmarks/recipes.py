"""What the recipes of docs/recipes reach: `make bench-recipes`, or `python -m benchmarks.recipes mnist --seeds 5`.

Each recipe is applied in a clone of HEAD and run by `dvc repro evaluate export` once for each seed of training; all
else stays as it is. Accuracies are of test images, minutes of the work of `train` alone. A recipe for images of your
own takes them from where it says, as seen from this project's folder.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.clones import DVC, clone_head, make_clean_environment, run_in_clone
from benchmarks.measurements import describe_machine, print_lines, run_benchmark, tell_machine, write_result
from stages.lib.core.files import read_json
from stages.lib.core.markdown import format_table
from stages.lib.core.params import load_mapping
from stages.lib.core.paths import find_root
from stages.lib.model.int8_footprint import INT8_NAME
from stages.lib.sweeps.params_editor import edit_params

RECIPES_DIR = Path("docs/recipes")
_TRAINING_TIME = Path(".cache/stage_times/train.json")


def measure_recipe(name: str, seeds: int) -> list[dict[str, Any]]:
    """What each seed reaches: accuracies 0..1, bytes, minutes of training, and parity with the float network."""
    with TemporaryDirectory() as scratch:
        environment = make_clean_environment(Path(scratch))
        clone = clone_head(Path(scratch) / "clone", environment, lambda _: None)
        recipe = RECIPES_DIR / f"{name}.yaml"
        run_in_clone([sys.executable, "-m", "stages.commands.main", "apply", str(recipe)], clone, environment)
        path = load_mapping(recipe, "sections of params.yaml").get("ingest", {}).get("path")
        if path:
            edit_params({"ingest.path": str((find_root() / path).resolve())}, clone / "params.yaml")
        found = []
        for seed in range(seeds):
            edit_params({"train.seed": seed}, clone / "params.yaml")
            run_in_clone([*DVC, "repro", "evaluate", "export"], clone, environment)
            found.append(read_reports(clone))
            print(f"{name}, seed {seed}: {found[-1]}", file=sys.stderr, flush=True)
    return found


def read_reports(project: Path) -> dict[str, Any]:
    """The figures of one run from its reports."""
    parity = read_json(project / "reports/parity/parity.json")
    int8, exports = parity[INT8_NAME], read_json(project / "reports/exports.json")
    return {
        "accuracy": read_json(project / "reports/metrics.json")["accuracy"],
        "arena_bytes": int8["microcontroller"]["arena_bytes"],
        "int8_accuracy": exports["int8_acc"],
        "int8_bytes": exports["int8_bytes"],
        "minutes": round(read_json(project / _TRAINING_TIME)["work"] / 60, 2),
        "same_class": int8["same_class"],
        "images": int8["images"],
        "withheld": sorted(export for export, described in parity.items() if described["withheld"]),
    }


def tabulate(results: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[str]:
    """The mean over seeds of each recipe's figures, with the deviation where seeds differ."""
    rows = [
        [
            f"[{name}](recipes/{name}.yaml)",
            _describe([run["int8_accuracy"] for run in runs]),
            _describe([run["accuracy"] for run in runs]),
            f"{max(run['int8_bytes'] for run in runs):,}",
            f"{max(run['arena_bytes'] for run in runs):,}",
            f"{mean(run['minutes'] for run in runs):.1f}",
            str(len(runs)),
        ]
        for name, runs in results.items()
    ]
    header = ["recipe", "int8 test accuracy", "of the float network", "bytes", "arena, bytes", "minutes", "seeds"]
    return format_table(header, rows)


def _describe(values: Sequence[float]) -> str:
    spread = f" ± {stdev(values):.4f}" if len(values) > 1 else ""
    return f"{mean(values):.4f}{spread}"


def main() -> None:
    """Measure, print a table, write all figures."""
    names = sorted(path.stem for path in RECIPES_DIR.glob("*.yaml"))
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("recipes", nargs="*", choices=[*names, []], help="those to measure; all by default")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--output", type=Path, help="where the figures go; by default benchmarks/results")
    options = parser.parse_args()
    with run_benchmark():
        results = {name: measure_recipe(name, options.seeds) for name in options.recipes or names}
        result = {**describe_machine(), "recipes": results}
        write_result("recipes", result, options.output)
        print_lines([*tabulate(results), "", tell_machine(result, ["tensorflow", "keras"])])


if __name__ == "__main__":
    main()
