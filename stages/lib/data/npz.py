"""Arrays in an .npz file, unpacked a piece at a time and never unpickled."""

import math
import zipfile
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from stages.lib.core.arrays import allocate
from stages.lib.core.errors import DataError
from stages.lib.data.idx import MAX_EXPANSION

_CHUNK_BYTES = 1 << 20
# As long as NumPy itself takes one for safe (numpy.lib.format), with the magic number before it.
_MAX_HEADER_BYTES = 10_000 + 12
# What numpy.savez and numpy.savez_compressed write.
_COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


def open_npz(path: Path, names: Sequence[str]) -> dict[str, NDArray[Any]]:
    """The arrays of these names; large ones are held by a file.

    Raises:
        DataError: the file is no valid .npz, or an array is missing, pickled, or longer or shorter than it says.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return _unpack_all(archive, names, path)
    except DataError:
        raise
    # Of a damaged archive, a password and more than Python can unpack, zipfile tells by whatever comes about.
    except Exception as error:  # noqa: BLE001
        got = str(error) or type(error).__name__
        raise DataError(str(path), expected="a whole .npz file", got=got, hint="write it again") from None


def _unpack_all(archive: zipfile.ZipFile, names: Sequence[str], path: Path) -> dict[str, NDArray[Any]]:
    arrays: dict[str, NDArray[Any]] = {}
    problems: list[DataError] = []
    for name in names:
        try:
            arrays[name] = _unpack(archive, name, path)
        except DataError as problem:
            problems.append(problem)
    if problems:
        raise DataError.join(problems)
    return arrays


def _unpack(archive: zipfile.ZipFile, name: str, path: Path) -> NDArray[Any]:
    try:
        info = archive.getinfo(f"{name}.npy")
    except KeyError:
        got = ", ".join(sorted(member.removesuffix(".npy") for member in archive.namelist())) or "none"
        raise DataError(str(path), expected=f"an array {name}", got=got, hint="name the arrays so") from None
    where = f"{path}: {name}"
    if info.compress_type not in _COMPRESSIONS:
        raise DataError(where, expected="a member as numpy.savez packs it", got="another", hint="write it again")
    most = path.stat().st_size * (MAX_EXPANSION if info.compress_type == zipfile.ZIP_DEFLATED else 1)
    if info.file_size > most:
        got = f"one said to have {info.file_size:,}"
        raise DataError(where, expected=f"at most {most:,} bytes in so short a file", got=got, hint="write it again")
    with archive.open(info) as member:
        shape, is_fortran, dtype = _read_header(member, where)
        if min(shape, default=0) < 0:
            raise DataError(where, expected="a shape of no negative sizes", got=str(shape), hint="write it again")
        size = math.prod(shape) * dtype.itemsize
        _require_plain(info.file_size - member.tell(), size, dtype, is_fortran, where)
        values = allocate((size,), np.uint8)
        filled = 0
        while piece := member.read(_CHUNK_BYTES):
            values[filled : filled + len(piece)] = np.frombuffer(piece, np.uint8)
            filled += len(piece)
    # A member may unpack to less than the archive's list says.
    _require_plain(filled, size, dtype, is_fortran, where)
    return values.view(dtype).reshape(shape)


def _require_plain(found: int, size: int, dtype: np.dtype[Any], is_fortran: bool, where: str) -> None:
    if dtype.hasobject or is_fortran or found != size or not dtype.itemsize:
        kind = "objects" if dtype.hasobject else "values in Fortran's order" if is_fortran else f"{found} bytes"
        raise DataError(
            where,
            expected=f"{size} bytes of plain values in C order",
            got=kind,
            hint="write numpy.ascontiguousarray of it",
        )


def _read_header(member: IO[bytes], where: str) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    # NumPy reads as long a header as it says to have, and only then finds it too long.
    header = BytesIO(member.read(_MAX_HEADER_BYTES))
    try:
        version = np.lib.format.read_magic(header)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, is_fortran, dtype = read(header)
    except Exception as error:  # noqa: BLE001  (it is evaluated as Python's literals are, and fails in as many ways)
        got = str(error) or type(error).__name__
        raise DataError(where, expected="the header of a .npy array", got=got, hint="write it again") from None
    member.seek(header.tell())
    return shape, is_fortran, dtype
