"""IDX files are read whole, or refused with what is wrong."""

import gzip
import re
import struct

import numpy as np
import pytest

from stages.lib.core.errors import DataError
from stages.lib.data.idx import open_idx

IMAGES = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)


def format_idx(array, type_code=8):
    """The array as the format's description has it."""
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, type_code, array.ndim, *array.shape) + array.tobytes()


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
@pytest.mark.parametrize("array", [IMAGES, IMAGES.ravel(), IMAGES[:0]], ids=["images", "labels", "empty"])
def test_array_comes_back_from_a_file(tmp_path, array, pack):
    """Values, shape and type are those written, compressed or not, also where there is no image."""
    path = tmp_path / "x"
    path.write_bytes(pack(format_idx(array)))
    opened = open_idx(path, array.ndim)

    np.testing.assert_array_equal(np.array(opened), array, strict=True)


def test_plain_file_stays_on_disk_until_it_is_looked_at(tmp_path):
    """Images that are not compressed are memory-mapped, and cannot be written to."""
    path = tmp_path / "x"
    path.write_bytes(format_idx(IMAGES))
    opened = open_idx(path, 3)

    assert isinstance(opened, np.memmap)
    assert not opened.flags.writeable


def require_damaged(error, where, reported):
    """The error names the file and what is wrong with it, and has it fetched again."""
    assert error.where == where
    assert re.fullmatch(reported, error.problem)
    assert error.hint.startswith("download or copy the file again")


@pytest.mark.parametrize(
    ("content", "reported"),
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
@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
def test_damaged_file_on_disk_is_refused_with_what_is_wrong(tmp_path, content, reported, pack):
    """A header of another kind and values that are fewer or more than expected are errors of the data."""
    path = tmp_path / "x"
    path.write_bytes(pack(content))

    with pytest.raises(DataError) as refusal:
        open_idx(path, 3)

    require_damaged(refusal.value, str(path), reported.replace("got 25", "got (at least )?25"))


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
def test_huge_promise_is_refused_before_memory_is_allocated(tmp_path, pack):
    """A header that promises more than the file can hold, unpacked or not, costs nothing."""
    path = tmp_path / "x"
    path.write_bytes(pack(struct.pack(">BBBB3I", 0, 0, 8, 3, 2**32 - 1, 2**16, 2**16)))

    with pytest.raises(DataError) as refusal:
        open_idx(path, 3)

    require_damaged(refusal.value, str(path), r"expected 18446744069414584320 bytes of values .+, got (0|at most \d+)")


@pytest.mark.parametrize(
    ("damage", "reported"),
    [
        (lambda packed: packed[:-9], "Compressed file ended before"),
        (lambda packed: packed + b"more", "Not a gzipped file"),
        (lambda packed: packed[:-8] + bytes(8), "CRC check failed"),
    ],
    ids=["cut off", "followed by something else", "other bytes than were packed"],
)
def test_damaged_gzip_is_refused(tmp_path, damage, reported):
    """What gzip itself finds wrong is an error of the data."""
    path = tmp_path / "x"
    path.write_bytes(damage(gzip.compress(format_idx(IMAGES))))

    with pytest.raises(DataError) as refusal:
        open_idx(path, 3)

    require_damaged(refusal.value, str(path), f"not a whole gzip file: {reported}.*")


def test_second_member_of_a_gzip_is_refused(tmp_path):
    """What follows the expected values is not left unread."""
    path = tmp_path / "x"
    path.write_bytes(gzip.compress(format_idx(IMAGES)) + gzip.compress(b"more"))

    with pytest.raises(DataError) as refusal:
        open_idx(path, 3)

    require_damaged(refusal.value, str(path), r"expected 24 bytes of values .+, got at least 28")
