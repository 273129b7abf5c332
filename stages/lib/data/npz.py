"""Arrays in an .npz file, unpacked a piece at a time and never unpickled."""

import math
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
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
_SAVE_AGAIN = "save it again with numpy.savez"


def list_npz(path: Path) -> set[str]:
    """The names of the arrays.

    Raises:
        DataError: the file is no valid .npz.
    """
    with _open_archive(path) as archive:
        return {member.removesuffix(".npy") for member in archive.namelist()}


def open_npz(path: Path, names: Sequence[str]) -> dict[str, NDArray[Any]]:
    """The arrays of these names; large ones are held by a file.

    Raises:
        DataError: the file is no valid .npz, or an array is missing, pickled, or longer or shorter than it says.
    """
    there = list_npz(path)
    with _open_archive(path) as archive:
        arrays: dict[str, NDArray[Any]] = {}
        problems: list[DataError] = []
        for name in names:
            try:
                if name in there:
                    arrays[name] = _unpack(archive, name, path)
            except DataError as problem:
                problems.append(problem)
        missing = [name for name in names if name not in there]
        if missing:
            expected, got = f"arrays {', '.join(missing)}", ", ".join(sorted(there)) or "none"
            hint = f"name the arrays {', '.join(names)}"
            problems.append(DataError(str(path), expected=expected, got=got, hint=hint))
        if problems:
            raise DataError.join(problems)
        return arrays


@contextmanager
def _open_archive(path: Path) -> Iterator[zipfile.ZipFile]:
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except DataError:
        raise
    # Of a damaged archive, a password and more than Python can unpack, zipfile tells by whatever comes about.
    except Exception as error:  # noqa: BLE001
        reason = str(error) or type(error).__name__
        raise DataError(str(path), f"not a whole .npz file: {reason}", _SAVE_AGAIN) from None


def _unpack(archive: zipfile.ZipFile, name: str, path: Path) -> NDArray[Any]:
    info = archive.getinfo(f"{name}.npy")
    where = f"{path}: {name}"
    if info.compress_type not in _COMPRESSIONS:
        raise DataError(where, "it is compressed by another method than numpy.savez has", _SAVE_AGAIN)
    most = path.stat().st_size * (MAX_EXPANSION if info.compress_type == zipfile.ZIP_DEFLATED else 1)
    if info.file_size > most:
        expected, got = f"at most {most:,} bytes in so short a file", f"{info.file_size:,}"
        raise DataError(where, expected=expected, got=got, hint=_SAVE_AGAIN)
    with archive.open(info) as member:
        shape, is_fortran, dtype = _read_header(member, where)
        if min(shape, default=0) < 0:
            raise DataError(where, expected="a shape of no negative sizes", got=str(shape), hint=_SAVE_AGAIN)
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
    expected = f"{size} bytes of plain values in C order"
    if dtype.hasobject:
        raise DataError(
            where,
            expected=expected,
            got="objects",
            hint="save numbers as uint8, names by .astype(str)",
        )
    if is_fortran:
        hint = "save numpy.ascontiguousarray of it"
        raise DataError(where, expected=expected, got="values in Fortran's order", hint=hint)
    if found != size or not dtype.itemsize:
        raise DataError(where, expected=expected, got=f"{found} bytes", hint=_SAVE_AGAIN)


def _read_header(member: IO[bytes], where: str) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    # NumPy reads as long a header as it says to have, and only then finds it too long.
    header = BytesIO(member.read(_MAX_HEADER_BYTES))
    try:
        version = np.lib.format.read_magic(header)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, is_fortran, dtype = read(header)
    except Exception as error:  # noqa: BLE001  (it is evaluated as Python's literals are, and fails in as many ways)
        reason = str(error) or type(error).__name__
        raise DataError(where, f"no header of a .npy array: {reason}", _SAVE_AGAIN) from None
    member.seek(header.tell())
    return shape, is_fortran, dtype
