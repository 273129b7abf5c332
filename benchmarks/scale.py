"""Memory and time of every stage as the data grows: `make bench-scale`, or `python -m benchmarks.scale`.

MNIST is made 1 and 10 times as large (or as `--sizes` says) by seeded shifts and noise, streamed to IDX files, and each
stage is run on it by `dvc repro` in a clone of HEAD. Memory is what Linux calls RssAnon, the process's own: pages of
mapped files are the kernel's to drop and count for nothing. Time is a stage's work, without its imports and without
DVC: on the clock, and of the processor, which other programs and the disk have less influence on.

What a stage writes goes to the kernel first and to the disk later; when much is waiting, who writes is made to wait.
So that no stage pays for what others left, all is on the disk before it starts, and DVC copies nothing to its cache.
What the stage itself leaves is timed as it ends, beside the rate at which the disk takes a gigabyte in one go.
"""

# RUF001: the multiplication sign is no x.
# ruff: noqa: RUF001

import argparse
import json
import os
import re
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from benchmarks.clones import DVC, clone_head, make_clean_environment
from benchmarks.measurements import STAGES, describe_machine, print_lines, run_benchmark, tell_machine, write_result
from stages.lib.core.arrays import Split, iterate_chunks
from stages.lib.core.errors import PipelineError
from stages.lib.core.files import atomic_write, read_json, require_space
from stages.lib.core.markdown import format_table
from stages.lib.data.mnist import load_mnist

_MAX_SHIFT = 2  # pixels each way: MNIST's digits have a margin of 4
_MAX_NOISE = 20  # grey levels each way: far below the contrast of ink
_POLL_SECONDS = 0.02
# The source, raw and normalized images.
_DISK_BYTES_PER_PIXEL = 1 + 1 + 4
_PROBE_BYTES = 1 << 30
_IDX_NAMES = {"train": "train", "test": "t10k"}


class Cost(NamedTuple):
    """What one stage took on one size of the data."""

    seconds: float  # of work, on the clock
    processor_seconds: float  # of work
    disk_seconds: float  # after it, until all that it wrote is on the disk
    memory: int  # largest RssAnon, bytes


class Watched(NamedTuple):
    """What was seen of one stage's process."""

    processor_seconds: float  # from its start to its end
    disk_seconds: float
    memory: int


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


def measure_disk(folder: Path) -> float:
    """Bytes a second that the disk of `folder` takes in one go, from the first to when the last is on it."""
    piece = bytes(1 << 24)
    require_space(folder, _PROBE_BYTES)
    os.sync()
    begin = time.perf_counter()
    with TemporaryFile(dir=folder) as file:
        for _ in range(_PROBE_BYTES // len(piece)):
            file.write(piece)
        file.flush()
        os.fsync(file.fileno())
        return _PROBE_BYTES / (time.perf_counter() - begin)


def watch(command: Sequence[str], root: Path, environment: Mapping[str, str]) -> Watched:
    """Run a command in a project and watch the stage that it starts; if this process is interrupted, both end, too.

    Raises:
        PipelineError: the command failed.
    """
    memory, processor_seconds, disk_seconds = 0, 0.0, None
    log_path = root / "watched.log.partial"  # a name that git ignores
    with log_path.open("w", encoding="utf-8") as log:
        process = subprocess.Popen(  # noqa: S603  (DVC)
            command, cwd=root, env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            while process.poll() is None:
                usage = _read_usage(root)
                if usage:
                    processor_seconds, memory = usage[0], max(memory, usage[1])
                elif memory and disk_seconds is None:  # it has ended
                    begin = time.perf_counter()
                    os.sync()
                    disk_seconds = time.perf_counter() - begin
                time.sleep(_POLL_SECONDS)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    if process.returncode:
        raise PipelineError(
            " ".join(command),
            f"it ended with exit code {process.returncode}: {log_path.read_text(encoding='utf-8')[-1000:]}",
            "run again once it works when typed",
        )
    return Watched(processor_seconds, disk_seconds or 0.0, memory)


def _read_usage(root: Path) -> tuple[float, int] | None:
    """Processor seconds so far and RssAnon in bytes of the stage that runs in the project right now, if one does."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            is_stage = re.search(r"\0-m\0stages\.\w+\0", (folder / "cmdline").read_text(encoding="utf-8"))
            if is_stage and (folder / "cwd").resolve() == root.resolve():
                anonymous = re.search(r"RssAnon:\s+(\d+) kB", (folder / "status").read_text(encoding="utf-8"))
                # utime and stime, the 14th and 15th value, of which the second may have blanks, in parentheses:
                # https://man7.org/linux/man-pages/man5/proc_pid_stat.5.html
                ticks = (folder / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()[11:13]
                seconds = sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")
                return seconds, int(anonymous[1]) * 1024 if anonymous else 0
        except (OSError, UnicodeDecodeError):
            continue  # it has ended meanwhile, or is somebody else's
    return None


def measure(
    splits: Mapping[str, Split], size: int, epochs: int, conv_blocks: list[list[int]], folder: Path
) -> dict[str, Cost]:
    """What each stage takes on data `size` times as large.

    conv_blocks: of the network, which is the lecture's if there are none.
    """
    source_dir, root = folder / "source", folder / "project"
    source_dir.mkdir()
    pixels = sum(split.images.size for split in splits.values())
    require_space(folder, pixels * size * _DISK_BYTES_PER_PIXEL)
    for seed, (name, split) in enumerate(splits.items()):
        write_grown(split, size, seed, source_dir, _IDX_NAMES[name])
    environment = make_clean_environment(folder)
    clone_head(root, environment, lambda params: _change_params(params, source_dir, epochs, conv_blocks))
    costs = {}
    for stage in STAGES:
        os.sync()
        watched = watch([*DVC, "repro", "--single-item", "--no-commit", stage], root, environment)
        times = read_json(root / ".cache" / "stage_times" / f"{stage}.json")
        costs[stage] = Cost(
            seconds=times["work"],
            processor_seconds=round(max(watched.processor_seconds - times["imports"], 0.0), 3),
            disk_seconds=round(watched.disk_seconds, 3),
            memory=watched.memory,
        )
    return costs


def _change_params(params: dict[str, Any], source_dir: Path, epochs: int, conv_blocks: list[list[int]]) -> None:
    params["ingest"] |= {"dataset": "folder", "path": str(source_dir)}
    params["train"]["epochs"] = epochs
    if conv_blocks:
        params["train"] |= {"conv_blocks": conv_blocks, "hidden_units": []}
    for budget in params["export"]["budgets"].values():
        # The largest of ten times as many differences is larger; how large is not what is measured here.
        budget["max_abs_error"] = 1.0


def tabulate(result: Mapping[str, Any]) -> list[str]:
    """Time per image and memory of each stage by size, the first size's time as 1."""
    sizes = result["sizes"]
    counts = [f"{size['images']:,}" for size in sizes]
    header = [
        "stage",
        *(f"{count} images: s" for count in counts),
        *(f"{count}: per image, × {counts[0]}'s" for count in counts[1:]),
        *(f"{count}: the same of the processor" for count in counts[1:]),
        *(f"then to the disk, s, {count}" for count in counts),
        *(f"memory, MiB, {count}" for count in counts),
    ]
    rows = []
    for stage in STAGES:
        costs = [size["stages"][stage] for size in sizes]
        rows.append(
            [
                f"`{stage}`",
                *(f"{cost['seconds']:.1f}" for cost in costs),
                *_compare(costs, "seconds", sizes),
                *_compare(costs, "processor_seconds", sizes),
                *(f"{cost['disk_seconds']:.1f}" for cost in costs),
                *(f"{cost['memory'] / 2**20:.0f}" for cost in costs),
            ]
        )
    disk = f"The disk takes {result['disk_bytes_per_second'] / 1e6:.0f} MB a second."
    return [f"{tell_machine(result, ['numpy', 'tensorflow'])} {disk}", "", *format_table(header, rows)]


def _compare(costs: Sequence[Mapping[str, float]], measure: str, sizes: Sequence[Mapping[str, int]]) -> list[str]:
    """What an image takes in each size but the first, the first's as 1; nothing where that is too little to measure."""
    first, *others = [cost[measure] / size["images"] for cost, size in zip(costs, sizes, strict=True)]
    return [f"{other / first:.2f}" if first else "" for other in others]


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
    with atomic_write(path) as partial:
        figure.savefig(partial, format="png", dpi=100, metadata={"Software": None})


def run(
    sizes: Sequence[int],
    epochs: int,
    conv_blocks: list[list[int]],
    output_path: Path | None,
    picture_path: Path | None,
) -> None:
    """Measure every size, then write and print what came of it."""
    mnist = load_mnist()
    splits = {"train": mnist.train, "test": mnist.test}
    images = sum(len(split.labels) for split in splits.values())
    disk, measured = measure_disk(Path(".cache")), []
    for size in sizes:
        with TemporaryDirectory(dir=".cache") as folder:
            costs = measure(splits, size, epochs, conv_blocks, Path(folder).absolute())
        stages = {stage: cost._asdict() for stage, cost in costs.items()}
        measured.append({"size": size, "images": images * size, "stages": stages})
        total = sum(cost.seconds for cost in costs.values())
        print(f"{images * size:,} images: {total:.0f} s of work", file=sys.stderr, flush=True)
    result = {**describe_machine(), "disk_bytes_per_second": round(disk), "epochs": epochs, "sizes": measured}
    result["conv_blocks"] = conv_blocks
    write_result("convolution-scale" if conv_blocks else "scale", result, output_path)
    if picture_path:
        draw(result, picture_path)
    print_lines(tabulate(result))


def main() -> None:
    """Run from the command line; exits with 1 and one line on anything a person caused."""
    parser = argparse.ArgumentParser(prog="benchmarks.scale", description="Memory and time as the data grows.")
    parser.add_argument("--sizes", type=int, nargs="+", default=[1, 10], metavar="N", help="times MNIST [1 10]")
    parser.add_argument("--epochs", type=int, default=1, metavar="N", help="epochs to train [1]")
    parser.add_argument(
        "--conv-blocks", type=json.loads, default=[], metavar="JSON", help="of the network, as [[16], [32]]: none"
    )
    parser.add_argument("--output", type=Path, metavar="FILE", help="where to write the result, as JSON")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="where to draw it, as PNG")
    options = parser.parse_args()
    with run_benchmark():
        Path(".cache").mkdir(exist_ok=True)
        run(options.sizes, options.epochs, options.conv_blocks, options.output, options.picture)


if __name__ == "__main__":
    main()
