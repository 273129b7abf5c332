"""Memory and time of every stage as the data grows: `make bench-scale`, or `python -m benchmarks.scale`.

MNIST is made 1 and 10 times as large (or as `--sizes` says) by seeded shifts and noise, streamed to IDX files, and the
whole pipeline is run on each in a clone of HEAD by `dvc repro`. Memory is what Linux calls RssAnon, the process's own:
pages of mapped files are the kernel's to drop and count for nothing. Time is a stage's work, without its imports and
without DVC.
"""

# S603, S607: git and dvc, found on the path as in a shell. RUF001: the multiplication sign is no x.
# ruff: noqa: RUF001, S603, S607

import argparse
import os
import re
import struct
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from ruamel.yaml import YAML

from benchmarks.measurements import STAGES, describe_machine, print_lines, run_benchmark, tell_machine, write_result
from stages.lib.arrays import Split, iterate_chunks
from stages.lib.datasets import load_mnist
from stages.lib.errors import PipelineError
from stages.lib.files import read_json, require_space
from stages.lib.markdown import format_table

_MAX_SHIFT = 2  # pixels each way: MNIST's digits have a margin of 4
_MAX_NOISE = 20  # grey levels each way: far below the contrast of ink
_POLL_SECONDS = 0.02
# Raw and normalized images and DVC's copy of both are 1 + 4 + 1 + 4 bytes a pixel, the source another.
_DISK_BYTES_PER_PIXEL = 11
_IDX_NAMES = {"train": "train", "test": "t10k"}


class Cost(NamedTuple):
    """What one stage took on one size of the data."""

    seconds: float  # of work
    memory: int  # largest RssAnon, bytes


def grow_images(images: NDArray[np.uint8], generator: np.random.Generator) -> NDArray[np.uint8]:
    """The images (N, H, W), each moved by up to two pixels and with noise, so that no two are the same."""
    count, height, width = images.shape
    padded = np.pad(images, ((0, 0), (_MAX_SHIFT, _MAX_SHIFT), (_MAX_SHIFT, _MAX_SHIFT)))
    top, left = generator.integers(0, 2 * _MAX_SHIFT + 1, (2, count))
    rows, columns = top[:, np.newaxis] + np.arange(height), left[:, np.newaxis] + np.arange(width)  # (N, H), (N, W)
    moved = padded[np.arange(count)[:, np.newaxis, np.newaxis], rows[:, :, np.newaxis], columns[:, np.newaxis]]
    noise = generator.integers(-_MAX_NOISE, _MAX_NOISE + 1, moved.shape, np.int16)
    grown: NDArray[np.uint8] = np.clip(moved + noise, 0, 255).astype(np.uint8)
    return grown


def write_grown(split: Split, size: int, seed: int, folder: Path, name: str) -> None:
    """Write a split `size` times as large as IDX files: the images as they are, then changed copies of them."""
    generator = np.random.default_rng(seed)
    count = len(split.labels) * size
    with (folder / f"{name}-images-idx3-ubyte").open("wb") as images_file:
        images_file.write(struct.pack(">4B3I", 0, 0, 8, 3, count, *split.images.shape[1:]))
        for copy in range(size):
            for rows in iterate_chunks(len(split.labels)):
                images = split.images[rows]
                images_file.write((grow_images(images, generator) if copy else images).tobytes())
    with (folder / f"{name}-labels-idx1-ubyte").open("wb") as labels_file:
        labels_file.write(struct.pack(">4B1I", 0, 0, 8, 1, count))
        for _ in range(size):
            labels_file.write(split.labels.tobytes())


def clone_project(root: Path, source_dir: Path, epochs: int) -> None:
    """HEAD, its params set to the data in `source_dir`."""
    subprocess.run(["git", "clone", "--quiet", ".", root], check=True)
    yaml = YAML()
    params = yaml.load(root / "params.yaml")
    params["ingest"] |= {"dataset": "folder", "path": str(source_dir)}
    params["train"]["epochs"] = epochs
    for budget in params["export"]["budgets"].values():
        # The largest of ten times as many differences is larger; how large is not what is measured here.
        budget["max_abs_error"] = 1.0
    yaml.dump(params, root / "params.yaml")


def watch(command: Sequence[str], root: Path, environment: Mapping[str, str]) -> dict[str, int]:
    """Run a command in a project: the largest RssAnon, in bytes, of each stage that it starts.

    Raises:
        PipelineError: the command failed.
    """
    largest: dict[str, int] = {}
    log_path = root / "watched.log.partial"  # a name that git ignores
    with log_path.open("w", encoding="utf-8") as log:
        process = subprocess.Popen(command, cwd=root, env=environment, stdout=log, stderr=subprocess.STDOUT)
        try:
            while process.poll() is None:
                for stage, memory in _iterate_stages(root):
                    largest[stage] = max(memory, largest.get(stage, 0))
                time.sleep(_POLL_SECONDS)
        finally:
            process.terminate()
            process.wait()
    if process.returncode:
        raise PipelineError(
            " ".join(command),
            expected="exit code 0",
            got=f"{process.returncode}: {log_path.read_text(encoding='utf-8')[-1000:]}",
            do="put it right, run again",
        )
    return largest


def _iterate_stages(root: Path) -> Iterator[tuple[str, int]]:
    """Each stage that runs in the project right now, and its RssAnon in bytes."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            found = re.fullmatch(r".*\0-m\0stages\.(\w+)\0", (folder / "cmdline").read_text(encoding="utf-8"))
            if found and (folder / "cwd").resolve() == root.resolve():
                anonymous = re.search(r"RssAnon:\s+(\d+) kB", (folder / "status").read_text(encoding="utf-8"))
                yield found[1], int(anonymous[1]) * 1024 if anonymous else 0
        except (OSError, UnicodeDecodeError):
            continue  # it has ended meanwhile, or is somebody else's


def measure(split_sizes: Mapping[str, Split], size: int, epochs: int, folder: Path) -> dict[str, Cost]:
    """What each stage takes on data `size` times as large."""
    source_dir, root = folder / "source", folder / "project"
    source_dir.mkdir()
    pixels = sum(split.images.size for split in split_sizes.values())
    require_space(folder, pixels * size * _DISK_BYTES_PER_PIXEL)
    for seed, (name, split) in enumerate(split_sizes.items()):
        write_grown(split, size, seed, source_dir, _IDX_NAMES[name])
    clone_project(root, source_dir, epochs)
    memory = watch(["dvc", "repro"], root, clean_environment())
    times = {stage: read_json(root / ".cache" / "stage_times" / f"{stage}.json")["work"] for stage in STAGES}
    return {stage: Cost(times[stage], memory[stage]) for stage in STAGES}


def clean_environment() -> dict[str, str]:
    """This environment's `python` and `dvc`, without what would point the clone's stages elsewhere."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("MLFLOW_", "DVC_"))}
    path = os.pathsep.join([str(Path(sys.executable).parent), environment["PATH"]])
    return environment | {"PATH": path, "DVC_NO_ANALYTICS": "1"}


def tabulate(result: Mapping[str, Any]) -> list[str]:
    """Time per image and memory of each stage by size, the first size's time as 1."""
    sizes = result["sizes"]
    header = ["stage", *(f"{size['images']:,} images: s" for size in sizes)]
    header += [f"time per image, × {sizes[0]['images']:,}'s" for _ in sizes[1:]]
    header += [f"memory, MiB, {size['images']:,}" for size in sizes]
    rows = []
    for stage in STAGES:
        costs = [size["stages"][stage] for size in sizes]
        per_image = [cost["seconds"] / size["images"] for cost, size in zip(costs, sizes, strict=True)]
        rows.append(
            [
                f"`{stage}`",
                *(f"{cost['seconds']:.1f}" for cost in costs),
                *(f"{ratio / per_image[0]:.2f}" for ratio in per_image[1:]),
                *(f"{cost['memory'] / 2**20:.0f}" for cost in costs),
            ]
        )
    return [tell_machine(result, ["numpy", "tensorflow"]), "", *format_table(header, rows)]


def draw(result: Mapping[str, Any], path: Path) -> None:
    """Time and memory of each stage against the number of images, both axes logarithmic."""
    figure = Figure(figsize=(11, 4.5), layout="constrained")
    panels = figure.subplots(1, 2)
    images = [size["images"] for size in result["sizes"]]
    for axes, key, unit, label in zip(
        panels, ["seconds", "memory"], [1, 2**20], ["work, s", "RssAnon, MiB"], strict=True
    ):
        for stage, marker in zip(STAGES, "osD^vPX", strict=True):
            values = [size["stages"][stage][key] / unit for size in result["sizes"]]
            axes.plot(images, values, marker=marker, label=stage)
        axes.set(xscale="log", yscale="log", xlabel="images", ylabel=label)
        axes.set_xticks(images, [f"{count:,}" for count in images])
        axes.set_xticks([], minor=True)
        axes.grid(alpha=0.3)
    panels[0].plot(
        images,
        [image / images[0] * result["sizes"][0]["stages"]["normalize"]["seconds"] for image in images],
        "k:",
        label="in proportion",
    )
    panels[1].axhline(1536, color="black", linestyle=":")
    panels[1].annotate("1.5 GiB", (images[0], 1536), xytext=(0, 3), textcoords="offset points")
    panels[0].legend(fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, format="png", dpi=100, metadata={"Software": None})


def run(sizes: Sequence[int], epochs: int, output_path: Path | None, picture_path: Path | None) -> None:
    """Measure every size, then write and print what came of it."""
    mnist = load_mnist()
    splits = {"train": mnist.train, "test": mnist.test}
    images = sum(len(split.labels) for split in splits.values())
    measured = []
    for size in sizes:
        with TemporaryDirectory(dir=".cache") as folder:
            costs = measure(splits, size, epochs, Path(folder).absolute())
        stages = {stage: cost._asdict() for stage, cost in costs.items()}
        measured.append({"size": size, "images": images * size, "stages": stages})
        total = sum(cost.seconds for cost in costs.values())
        print(f"{images * size:,} images: {total:.0f} s of work", file=sys.stderr, flush=True)
    result = {**describe_machine(), "epochs": epochs, "sizes": measured}
    write_result("scale", result, output_path)
    if picture_path:
        draw(result, picture_path)
    print_lines(tabulate(result))


def main() -> None:
    """Run from the command line; exits with 1 and one line on anything a person caused."""
    parser = argparse.ArgumentParser(prog="benchmarks.scale", description="Memory and time as the data grows.")
    parser.add_argument("--sizes", type=int, nargs="+", default=[1, 10], metavar="N", help="times MNIST [1 10]")
    parser.add_argument("--epochs", type=int, default=1, metavar="N", help="epochs to train [1]")
    parser.add_argument("--output", type=Path, metavar="FILE", help="where to write the result, as JSON")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="where to draw it, as PNG")
    options = parser.parse_args()
    with run_benchmark():
        Path(".cache").mkdir(exist_ok=True)
        run(options.sizes, options.epochs, options.output, options.picture)


if __name__ == "__main__":
    main()
