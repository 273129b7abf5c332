"""Arrays in an .npz file, unpacked a piece at a time and never unpickled."""

import math
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from stages.lib.arrays import allocate
from stages.lib.errors import DataError

_CHUNK_BYTES = 1 << 20


def open_npz(path: Path, names: Sequence[str]) -> dict[str, NDArray[Any]]:
    """The arrays of these names; large ones are held by a file.

    Raises:
        DataError: the file is no sound .npz, or an array is missing, pickled, or longer or shorter than it says.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return {name: _unpack(archive, name, path) for name in names}
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, NotImplementedError) as error:
        raise DataError(str(path), expected="a whole .npz file", got=str(error), do="write it again") from None


def _unpack(archive: zipfile.ZipFile, name: str, path: Path) -> NDArray[Any]:
    try:
        info = archive.getinfo(f"{name}.npy")
    except KeyError:
        got = ", ".join(sorted(member.removesuffix(".npy") for member in archive.namelist())) or "none"
        raise DataError(str(path), expected=f"an array {name}", got=got, do="name the arrays so") from None
    with archive.open(info) as member:
        shape, is_fortran, dtype = _read_header(member)
        size = math.prod(shape) * dtype.itemsize
        if dtype.hasobject or is_fortran or info.file_size - member.tell() != size:
            raise DataError(
                f"{path}: {name}",
                expected=f"{size} bytes of plain values in C order",
                got="objects" if dtype.hasobject else f"{info.file_size - member.tell()} bytes",
                do="write it again with numpy.savez",
            )
        values = allocate((size,), np.uint8)
        filled = 0
        while piece := member.read(_CHUNK_BYTES):
            values[filled : filled + len(piece)] = np.frombuffer(piece, np.uint8)
            filled += len(piece)
    return values.view(dtype).reshape(shape)


def _read_header(member: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = np.lib.format.read_magic(member)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, is_fortran, dtype = read(member)
    return shape, is_fortran, dtype
