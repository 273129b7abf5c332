"""The IDX format that MNIST is published in.

Source: "The IDX file format" in Y. LeCun, C. Cortes, C. Burges, The MNIST database of handwritten digits: two zero
bytes, a type code (0x08 is unsigned byte), the number of dimensions, each dimension as a big-endian 32-bit integer,
then the values in C order.
"""

import math
import struct

import numpy as np
from numpy.typing import NDArray

from stages.lib.errors import DataError

_UNSIGNED_BYTE = 0x08


def parse_idx(content: bytes, dimensions: int, name: str) -> NDArray[np.uint8]:
    """The array of unsigned bytes that an IDX file holds; `dimensions` is 3 for images (N, H, W), 1 for labels (N,).

    Raises:
        DataError: the header is of another kind, or the values are fewer or more than it promises.
    """
    header_size = 4 + 4 * dimensions
    magic = bytes([0, 0, _UNSIGNED_BYTE, dimensions])
    if len(content) < header_size or content[:4] != magic:
        raise DataError(
            name,
            expected=f"an IDX header that starts with {magic.hex()}",
            got=content[:4].hex() or "nothing",
            do="fetch the file again",
        )
    shape = struct.unpack(f">{dimensions}I", content[4:header_size])
    if len(content) - header_size != math.prod(shape):
        raise DataError(
            name,
            expected=f"{math.prod(shape)} bytes of values for the shape {shape}",
            got=str(len(content) - header_size),
            do="fetch the file again",
        )
    return np.frombuffer(content, np.uint8, offset=header_size).reshape(shape)
