"""The data set `cifar10`, downloaded from a mirror and verified; its binary version, which needs no unpickling."""

import tarfile
import zlib
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from stages.lib.core.arrays import Split, allocate
from stages.lib.core.errors import DataError
from stages.lib.data.datasets import Dataset
from stages.lib.data.download import PublishedFile, fetch_dataset

# A. Krizhevsky, Learning Multiple Layers of Features from Tiny Images (2009). Its author publishes MD5 alone. The
# SHA-256 and the size are TensorFlow Datasets' (tensorflow_datasets/url_checksums/cifar10.txt).
FILE = PublishedFile(
    "cifar-10-binary.tar.gz",
    "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
    170_052_171,
)
# Swift for TensorFlow's copy, and the author's own, which can take an hour.
_MIRRORS = (
    "https://storage.googleapis.com/s4tf-hosted-binaries/datasets/CIFAR10",
    "https://www.cs.toronto.edu/~kriz",
)
# As https://www.cs.toronto.edu/~kriz/cifar.html describes the binary version: each record is a byte with the class id,
# then 1,024 bytes of red, of green and of blue, each a row of pixels after the other.
_IMAGE_SHAPE = (32, 32, 3)
_RECORD_BYTES = 1 + 32 * 32 * 3
_BATCH_RECORDS = 10_000
_FOLDER = "cifar-10-batches-bin"
_BATCHES = {
    "train": [f"{_FOLDER}/data_batch_{number}.bin" for number in range(1, 6)],
    "test": [f"{_FOLDER}/test_batch.bin"],
}
_NAMES = f"{_FOLDER}/batches.meta.txt"
_MAX_NAMES_BYTES = 10_000
_CLASS_COUNT = 10
# Records in memory at a time: 0.8 MB.
_CHUNK_RECORDS = 256
_AGAIN = "download or copy the file again"


def load_cifar10() -> Dataset:
    """Load CIFAR-10's 50,000 and 10,000 colour images (32 x 32), from CIFAR10_MIRROR if set, else from public mirrors.

    Raises:
        DataError: the file could not be had whole.
    """
    (path,) = fetch_dataset("cifar10", [FILE], _MIRRORS)
    splits, class_names = read_batches(path, _BATCH_RECORDS)
    return Dataset(
        train=splits["train"],
        test=splits["test"],
        class_names=class_names,
        expected={"train": 50_000, "test": 10_000},
        sources={FILE.name: FILE.sha256},
    )


def read_batches(path: Path, batch_records: int) -> tuple[dict[str, Split], tuple[str, ...]]:
    """Read both splits, images uint8 (N, 32, 32, 3) and labels (N,), and the class names, from the compressed archive.

    Members are read in the order that they have there, some records at a time. Nothing is written under their names,
    and all but the first of each wanted name is passed over. batch_records: of each of the six batches.

    Raises:
        DataError: a batch is missing, of another size, or has a label above 9; there are not ten names; or the archive
            is cut off or damaged.
    """
    splits = {
        split: Split(
            allocate((len(members) * batch_records, *_IMAGE_SHAPE), np.uint8),
            np.zeros(len(members) * batch_records, np.uint8),
        )
        for split, members in _BATCHES.items()
    }
    places = {
        member: (splits[split], number * batch_records)
        for split, members in _BATCHES.items()
        for number, member in enumerate(members)
    }
    class_names: tuple[str, ...] = ()
    waiting = [*places, _NAMES]
    try:
        with tarfile.open(path, "r|gz") as archive:
            for member in archive:
                if member.name not in waiting or not (content := archive.extractfile(member)):
                    continue
                waiting.remove(member.name)
                where = f"{path}: {member.name}"
                if member.name == _NAMES:
                    class_names = _read_names(content, where)
                else:
                    _require_size(member.size, batch_records, where)
                    _read_records(content, *places[member.name], batch_records, where)
    except (tarfile.TarError, EOFError, zlib.error) as error:
        raise DataError(str(path), f"not a whole tar.gz archive: {error}", _AGAIN) from None
    except OSError as error:
        raise DataError.unreadable(str(path), error) from None
    if waiting:
        raise DataError(str(path), f"it holds no file {', '.join(waiting)}", _AGAIN)
    return splits, class_names


def _read_names(content: IO[bytes], where: str) -> tuple[str, ...]:
    names = tuple(content.read(_MAX_NAMES_BYTES).decode("ascii", "replace").split())
    if len(names) != _CLASS_COUNT:
        raise DataError(where, expected=f"{_CLASS_COUNT} class names", got=str(len(names)), hint=_AGAIN)
    return names


def _require_size(size: int, records: int, where: str) -> None:
    if size != records * _RECORD_BYTES:
        expected = f"{records * _RECORD_BYTES:,} bytes, {records:,} records of {_RECORD_BYTES:,}"
        raise DataError(where, expected=expected, got=f"{size:,}", hint=_AGAIN)


def _read_records(content: IO[bytes], split: Split, start: int, count: int, where: str) -> None:
    """Fill the rows of a split from `start` on with the `count` records of a batch."""
    for first in range(start, start + count, _CHUNK_RECORDS):
        rows = slice(first, min(first + _CHUNK_RECORDS, start + count))
        piece = content.read((rows.stop - rows.start) * _RECORD_BYTES)
        records = np.frombuffer(piece, np.uint8).reshape(-1, _RECORD_BYTES)
        split.images[rows] = records[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
        split.labels[rows] = records[:, 0]
    _require_labels(split.labels[start : start + count], where)


def _require_labels(labels: NDArray[np.uint8], where: str) -> None:
    if labels.max(initial=0) >= _CLASS_COUNT:
        raise DataError(where, expected=f"labels from 0 to {_CLASS_COUNT - 1}", got=str(labels.max()), hint=_AGAIN)
