"""The IDX format that MNIST is published in.

Source: "The IDX file format" in Y. LeCun, C. Cortes, C. Burges, The MNIST database of handwritten digits: two zero
bytes, a type code (0x08 is unsigned byte), the number of dimensions, each dimension as a big-endian 32-bit integer,
then the values in C order.
"""

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stages.lib.core.arrays import allocate
from stages.lib.core.errors import DataError

_UNSIGNED_BYTE = 0x08
_GZIP_MAGIC = b"\x1f\x8b"  # RFC 1952, section 2.3.1
_CHUNK_BYTES = 1 << 20
# DEFLATE makes at most this many bytes out of one (zlib's technical details, "Maximum Compression Factor").
MAX_EXPANSION = 1032
_AGAIN = "download or copy the file again"


def open_idx(path: Path, dimensions: int) -> NDArray[np.uint8]:
    """Open the array of unsigned bytes in an IDX file, plain or compressed by gzip, of any size.

    dimensions: 3 for images (N, H, W), 1 for labels (N,). No more than a piece of the file is in memory at a time, and
    nothing is allocated before the file's size was compared with the one in its header.

    Raises:
        DataError: the header is of another kind, the values are fewer or more than it says, or the file is cut off,
            damaged or too large for the disk.
    """
    try:
        return _open_idx(path, dimensions)
    except OSError as error:
        raise DataError.unreadable(str(path), error) from None


def _open_idx(path: Path, dimensions: int) -> NDArray[np.uint8]:
    name, size = str(path), path.stat().st_size
    header_size = _measure_header(dimensions)
    with path.open("rb") as file:
        if file.read(len(_GZIP_MAGIC)) != _GZIP_MAGIC:
            file.seek(0)
            shape = _parse_header(file.read(header_size), dimensions, name)
            _require_size(size - header_size, shape, name)
            # No file has a piece of no bytes mapped.
            return np.memmap(path, np.uint8, "r", header_size, shape) if math.prod(shape) else np.zeros(shape, np.uint8)
        file.seek(0)
        try:
            with gzip.GzipFile(fileobj=file) as unpacked:
                shape = _parse_header(unpacked.read(header_size), dimensions, name)
                if math.prod(shape) > size * MAX_EXPANSION:
                    _require_size(size * MAX_EXPANSION, shape, name, "at most ")
                return _unpack(unpacked, shape, name)
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise DataError(name, f"not a whole gzip file: {error}", _AGAIN) from None


def _unpack(unpacked: gzip.GzipFile, shape: tuple[int, ...], name: str) -> NDArray[np.uint8]:
    values = allocate((math.prod(shape),), np.uint8)
    filled = 0
    while piece := unpacked.read(_CHUNK_BYTES):
        if filled + len(piece) > len(values):
            _require_size(filled + len(piece), shape, name, "at least ")
        values[filled : filled + len(piece)] = np.frombuffer(piece, np.uint8)
        filled += len(piece)
    _require_size(filled, shape, name)
    return values.reshape(shape)


def _measure_header(dimensions: int) -> int:
    return 4 + 4 * dimensions


def _parse_header(header: bytes, dimensions: int, name: str) -> tuple[int, ...]:
    magic = bytes([0, 0, _UNSIGNED_BYTE, dimensions])
    if len(header) < _measure_header(dimensions) or header[:4] != magic:
        raise DataError(
            name,
            expected=f"an IDX header that starts with {magic.hex()}",
            got=header[:4].hex() or "nothing",
            hint=f"{_AGAIN}, and see that images and labels are not swapped",
        )
    return struct.unpack(f">{dimensions}I", header[4:])


def _require_size(size: int, shape: tuple[int, ...], name: str, about: str = "") -> None:
    if size != math.prod(shape):
        raise DataError(
            name,
            expected=f"{math.prod(shape)} bytes of values for the shape {shape}",
            got=f"{about}{size}",
            hint=_AGAIN,
        )
