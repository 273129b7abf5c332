"""IDX files are read whole, or refused with what is wrong."""

import struct

import numpy as np
import pytest

from stages.lib.errors import DataError
from stages.lib.idx import parse_idx

IMAGES = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)


def format_idx(array, type_code=8):
    """The array as the format's description has it."""
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, type_code, array.ndim, *array.shape) + array.tobytes()


@pytest.mark.parametrize("array", [IMAGES, IMAGES.ravel(), IMAGES[:0]], ids=["images", "labels", "empty"])
def test_array_comes_back(array):
    """Values, shape and type are those written, also where there is no image."""
    parsed = parse_idx(format_idx(array), array.ndim, "x")

    np.testing.assert_array_equal(parsed, array, strict=True)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (format_idx(IMAGES, type_code=9), "expected an IDX header that starts with 00000803, got 00000903"),
        (format_idx(IMAGES.ravel()), "expected an IDX header that starts with 00000803, got 00000801"),
        (b"<html><head><title>", "expected an IDX header that starts with 00000803, got 3c68746d"),
        (format_idx(IMAGES)[:15], "expected an IDX header that starts with 00000803, got 00000803"),
        (b"", "expected an IDX header that starts with 00000803, got nothing"),
        (format_idx(IMAGES)[:-1], r"expected 24 bytes of values for the shape \(2, 3, 4\), got 23"),
        (format_idx(IMAGES) + b"\0", r"expected 24 bytes of values for the shape \(2, 3, 4\), got 25"),
        (format_idx(IMAGES)[:16], r"expected 24 bytes of values for the shape \(2, 3, 4\), got 0"),
    ],
    ids=["type", "dimensions", "html", "cut header", "nothing", "truncated", "trailing", "header alone"],
)
def test_damaged_file_is_refused_with_what_is_wrong(content, told):
    """A header of another kind and values that are fewer or more than promised are faults of the data."""
    with pytest.raises(DataError, match=f"train-images: {told}; fetch the file again"):
        parse_idx(content, 3, "train-images")
