"""Small data and small networks that several test modules share."""

import gzip
import os
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
from imports import ROOT

from stages.ingest import write_dataset
from stages.lib.core.arrays import Split
from stages.lib.core.files import write_json
from stages.lib.data.datasets import Dataset
from stages.lib.data.normalization import Normalization
from stages.normalize import NormalizeParams
from stages.normalize import run as normalize

# Not square, so that a mix-up of height and width shows.
IMAGE_SIZE = (6, 8)
CLASS_NAMES = ("left", "middle", "right")
# A shift other than 0 shows whether it was folded in.
NORMALIZATION = Normalization(shift=(40.0,), divisor=(255.0,))


def make_split(count: int, seed: int) -> Split:
    """`count` noisy images, uint8 (N, 6, 8), of three classes that are told by which columns are bright."""
    labels = (np.arange(count) % len(CLASS_NAMES)).astype(np.uint8)
    generator = np.random.default_rng(seed)
    images = generator.integers(0, 100, (count, *IMAGE_SIZE), np.uint8)
    for image, label in zip(images, labels, strict=True):
        image[:, 3 * label : 3 * label + 2] += 130
    return Split(images, labels)


def make_dataset(train_count: int = 60, test_count: int = 30) -> Dataset:
    """A data set that is valid in every respect."""
    return Dataset(
        train=make_split(train_count, seed=1),
        test=make_split(test_count, seed=2),
        class_names=CLASS_NAMES,
        expected={"train": train_count, "test": test_count},
        sources={"made up": "0"},
    )


def make_colour_dataset(train_count: int = 60, test_count: int = 30) -> Dataset:
    """The same in colour, uint8 (N, 6, 8, 3): each image is red, upside down green, and at half its brightness blue."""
    grey = make_dataset(train_count, test_count)
    train, test = (
        Split(np.stack([images, images[:, ::-1], images // 2], axis=-1), labels) for images, labels in grey[:2]
    )
    return grey._replace(train=train, test=test)


def write_idx(folder: Path, dataset: Dataset | None = None, *, compress_all: bool = False) -> Path:
    """The folder with the data set as MNIST's four IDX files, all compressed, or those of the test split."""
    dataset = dataset or make_dataset()
    folder.mkdir()
    for name, split, suffix in (("train", dataset.train, ".gz" * compress_all), ("t10k", dataset.test, ".gz")):
        for kind, array in zip(("images", "labels"), split, strict=True):
            content = struct.pack(f">4B{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()
            path = folder / f"{name}-{kind}-idx{array.ndim}-ubyte{suffix}"
            path.write_bytes(gzip.compress(content, mtime=0) if suffix else content)
    return folder


def write_raw(root: Path, dataset: Dataset | None = None) -> Path:
    """The folder data/raw in `root`, as `ingest` writes it."""
    raw_dir = root / "data" / "raw"
    write_dataset(dataset or make_dataset(), "made up", raw_dir)
    return raw_dir


def write_report(root: Path, *, success: bool = True) -> Path:
    """A report of `validate` with this verdict."""
    report_path = root / "reports/validation/validation.json"
    write_json(report_path, {"success": success})
    return report_path


def write_normalized(root: Path, **params: object) -> Path:
    """The folder data/normalized in `root`, as `normalize` writes it from `write_raw`'s data."""
    chosen = NormalizeParams(**{"method": "scale", "validation_fraction": 0.2, "seed": 0} | params)
    raw_dir = root / "data" / "raw"
    normalize(chosen, raw_dir if raw_dir.exists() else write_raw(root), write_report(root), root / "data/normalized")
    return root / "data/normalized"


def run_python(*arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """What a Python process of its own prints in the folder `cwd`; it finds `stages` there or in this project."""
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")]), **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def list_files(folder: Path) -> dict[str, bytes]:
    """The content of every file in a folder and below, by relative path."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
