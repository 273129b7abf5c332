"""What an answer of the C99 classifier costs on microcontrollers: `make bench-c`.

Each network is trained and exported by `dvc repro export` in a clone of HEAD: the default one, [[16], [32]], and those
of docs/recipes. Then GCC and Clang compile its `classifier.c` for each core, at -O2 and -Os, and QEMU runs it: there
must not be a byte that the integer reference does not give, and instructions and stack are measured.

Writes  benchmarks/results/c-classifier-YYYY-MM-DD.json, and prints the same as a table
"""

import argparse
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmarks.clones import DVC, clone_head, make_clean_environment, run_in_clone
from benchmarks.measurements import describe_machine, print_lines, run_benchmark, tell_machine, write_result
from benchmarks.processors import COMPILERS, CORTEX_M, build_firmware, find_missing, read_sizes, run_firmware
from benchmarks.recipes import RECIPES_DIR
from stages.lib.core.arrays import load_array
from stages.lib.core.errors import PipelineError
from stages.lib.core.markdown import format_table
from stages.lib.core.params import flatten_params, load_mapping
from stages.lib.microcontroller.integer_reference import IntegerReference
from stages.lib.model.int8_footprint import INT8_NAME
from stages.lib.sweeps.params_editor import edit_params

OPTIMIZATIONS = ("-O2", "-Os")
BOARD = {"export.board": "raspberry_pi_pico"}  # no network here is withheld for it
# In place of the recipe's: it would train for minutes, and costs follow from sizes and from how many values are 0.
SHORTER = {"mnist": {"train.epochs": 5}}
TENSORFLOW_LITE_MICRO = (
    "TensorFlow Lite Micro is not built here. Built elsewhere by GCC for Cortex-M0 and M3, with the default network, "
    "it took 48 to 78 kB of flash, an arena of 2,708 bytes, and 108,000 to 236,000 instructions an image."
)


def list_networks() -> dict[str, dict[str, Any]]:
    """Settings of params.yaml, by dotted key, of each network's name."""
    recipes = {
        path.stem: flatten_params(load_mapping(path, "sections of params.yaml")) | SHORTER.get(path.stem, {})
        for path in sorted(RECIPES_DIR.glob("*.yaml"))
    }
    return {"default": {}, "[[16], [32]]": {"train.conv_blocks": [[16], [32]]}, **recipes}


class Exported(NamedTuple):
    """What a clone exported of a network."""

    sources: Mapping[str, str]  # classifier.h and classifier.c
    answers: NDArray[np.uint8]  # the integer reference's (N, classes)
    images: NDArray[np.uint8]


def export_network(settings: Mapping[str, Any], image_count: int) -> Exported:
    """Train and export with these settings, by dotted key; take the first images of the test split."""
    with TemporaryDirectory() as scratch:
        environment = make_clean_environment(Path(scratch))
        clone = clone_head(Path(scratch) / "clone", environment, lambda _: None)
        edit_params({**BOARD, **settings}, clone / "params.yaml")
        run_in_clone([*DVC, "repro", "export"], clone, environment)
        export_dir = clone / "models/export"
        images = np.array(load_array(clone / "data/raw/test/images.npy")[:image_count])
        reference = IntegerReference((export_dir / INT8_NAME).read_bytes())
        sources = {
            name: (export_dir / "c" / name).read_text(encoding="ascii") for name in ("classifier.h", "classifier.c")
        }
        return Exported(sources, reference.answer(images), images)


def measure_network(exported: Exported) -> dict[str, Any]:
    """What it costs, by core, compiler and optimization; and the memory that it works in."""
    pixel_bytes, class_count, scratch_bytes = read_sizes(exported.sources)
    found: dict[str, Any] = {
        "class_count": class_count,
        "images": len(exported.images),
        "pixel_bytes": pixel_bytes,
        "scratch_bytes": scratch_bytes,
        "share_of_dark_pixels": round(float(np.mean(exported.images == 0)), 4),
    }
    for core in CORTEX_M:
        found[core] = {
            compiler: {option: measure_on_core(core, compiler, option, exported) for option in OPTIMIZATIONS}
            for compiler in COMPILERS
            if find_missing(compiler) is None
        }
    return found


def measure_on_core(core: str, compiler: str, option: str, exported: Exported) -> dict[str, int]:
    """Bytes of flash and stack, and instructions an image."""
    with TemporaryDirectory() as folder:
        firmware = build_firmware(core, compiler, exported.sources, Path(folder), option)
        run = run_firmware(core, firmware, exported.images, exported.answers.shape[1])
    differing = int(np.count_nonzero(run.answers != exported.answers))
    if differing:
        raise PipelineError(
            f"the C classifier on {core} by {compiler} {option}",
            f"{differing} bytes of answers differ from the integer reference's",
            "run tests/machines/test_c_processors.py",
        )
    return {
        "classifier_flash_bytes": firmware.classifier_sizes.flash,
        "instructions_mean": round(float(run.instructions.mean())),
        "instructions_most": round(float(run.instructions.max())),
        "program_flash_bytes": firmware.program_sizes.flash,
        "program_ram_bytes": firmware.program_sizes.ram,
        "stack_bytes": run.stack_bytes,
    }


def tabulate(networks: Mapping[str, Mapping[str, Any]], compiler: str) -> list[str]:
    """A row for each network and core: what -O2 costs, and beside it -Os."""
    header = ["network", "core", "flash, bytes", "-Os", "scratch", "stack", "instructions an image", "-Os"]
    rows = []
    for name, found in sorted(networks.items()):
        for core in CORTEX_M:
            fast, small = (found[core][compiler][option] for option in OPTIMIZATIONS)
            pairs = [
                *(f"{costs['classifier_flash_bytes']:,}" for costs in (fast, small)),
                f"{found['scratch_bytes']:,}",
                f"{max(costs['stack_bytes'] for costs in (fast, small)):,}",
                *(f"{costs['instructions_mean']:,}" for costs in (fast, small)),
            ]
            rows.append([name, core, *pairs])
    return format_table(header, rows)


def describe_compilers() -> dict[str, str]:
    """The first line that each says of its version."""
    commands = {
        "GCC": ["arm-none-eabi-gcc", "--version"],
        "Clang": [sys.executable, "-m", "ziglang", "cc", "--version"],
    }
    commands["QEMU"] = ["qemu-system-arm", "--version"]
    return {
        name: subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[0]  # noqa: S603
        for name, command in commands.items()
        if name == "QEMU" or find_missing(name) is None
    }


def list_compilers() -> Sequence[str]:
    """Those that are here.

    Raises:
        PipelineError: there is none, or no emulator.
    """
    reasons = [find_missing(compiler, "qemu-system-arm") for compiler in COMPILERS]
    found = [compiler for compiler, reason in zip(COMPILERS, reasons, strict=True) if reason is None]
    if not found:
        raise PipelineError(
            "bench-c", "; ".join(filter(None, reasons)), "apt-get install gcc-arm-none-eabi qemu-system-arm"
        )
    return found


def main() -> None:
    """Measure, print a table, write all figures."""
    networks = list_networks()
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("networks", nargs="*", choices=[*networks, []], help="those to measure; all by default")
    parser.add_argument("--images", type=int, default=100, help="of the test split that are answered")
    parser.add_argument("--output", type=Path, help="where the figures go; by default benchmarks/results")
    options = parser.parse_args()
    with run_benchmark():
        compilers, found = list_compilers(), {}
        for name in options.networks or networks:
            print(f"{name} …", file=sys.stderr, flush=True)
            found[name] = measure_network(export_network(networks[name], options.images))
        result = {**describe_machine(), "compilers": describe_compilers(), "networks": found}
        write_result("c-classifier", result, options.output)
        tools = ", ".join(result["compilers"].values())
        for compiler in compilers:
            print_lines([f"{compiler}:", "", *tabulate(found, compiler), ""])
        print_lines([TENSORFLOW_LITE_MICRO, "", f"{tell_machine(result, ['tensorflow'])} {tools}."])


if __name__ == "__main__":
    main()
