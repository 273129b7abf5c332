"""Images that take far more memory or time to unpack than their bytes let expect: refused before either is spent."""

import math
import re
import struct
from collections.abc import Iterator
from io import BytesIO
from typing import BinaryIO, NamedTuple

from PIL import Image

from stages.lib.core.errors import DataError

# 67 million, more than a full-frame camera makes: unpacked and turned, 1.1 GB at most.
MAX_PIXELS = 1 << 26
MAX_BYTES = 1 << 26
# JPEG's longest side. Pillow keeps an address for each row.
MAX_SIDE = 65_535
# Chunks, segments and values of tags, each a few reads: Pillow takes some microseconds for one. MAX_PIXELS in a PNG of
# libpng's are 33,000 chunks.
_MAX_PIECES = 1 << 18
# Each goes through all pixels again. Encoders make a dozen; libtiff, which looks out for that, too, allows 100.
_MAX_SCANS = 20
# Sixteen times what a JPEG has room for.
_MAX_EXIF_BYTES = 1 << 20

# ITU-T T.81, table B.1. What stands for a byte FF among pixels, and restarts among them, begin no segment.
_JPEG_MAGIC = b"\xff\xd8"
_JPEG_MARKER = re.compile(rb"\xff+([^\x00\x01\xff\xd0-\xd7])")
_START_OF_IMAGE, _END_OF_IMAGE, _START_OF_SCAN, _PROGRESSIVE_FRAME = b"\xd8", b"\xd9", b"\xda", b"\xff\xc2"

# TIFF 6.0 (Adobe, 1992) and BigTIFF: the magic number by order of bytes.
_TIFF_MAGIC = {b"II*\0": "<", b"MM\0*": ">", b"II+\0": "<", b"MM\0+": ">"}
_COMPRESSION, _TILE_WIDTH, _TILE_LENGTH = 259, 322, 323
_JPEG_IN_TIFF = (6, 7)
_SUBDIRECTORIES = (34665, 34853, 40965)  # of EXIF data: those that Pillow goes into
# Types whose values Pillow keeps as bytes; of each of the others it makes an object.
_PLAIN_TYPES = (1, 2, 7)
_MAX_DIRECTORIES = 16

_BOMB = "more: a decompression bomb?"
_SAVE_AGAIN = "save it again as PNG, or leave it out"


class CountedBytes(BytesIO):
    """A file in memory that can be read in a bounded number of pieces: Pillow may go through it a byte at a time."""

    def __init__(self, content: bytes) -> None:
        super().__init__(content)
        self._pieces = 0

    def read(self, size: int | None = -1, /) -> bytes:
        """As of any file."""
        self._pieces += 1
        if self._pieces > _MAX_PIECES:
            raise ValueError(f"more than {_MAX_PIECES:,} pieces")
        return super().read(size)


def read_bounded(file: BinaryIO, name: str) -> bytes:
    """The content of an image's file, before Pillow sees it.

    Raises:
        DataError: it is longer than MAX_BYTES, or has a structure that an image of MAX_PIXELS has no use for.
    """
    content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise _refuse(name, f"a file of at most {MAX_BYTES:,} bytes", "more")
    if content.startswith(_JPEG_MAGIC):
        _require_few_scans(content, name)
    if content[:4] in _TIFF_MAGIC:
        _require_bounded_tiff(content, name)
    return content


def require_bounded(image: Image.Image, name: str) -> None:
    """Refuse, before its pixels are unpacked, an image that has too many.

    Raises:
        DataError: it has more than MAX_PIXELS, a side longer than MAX_SIDE, or EXIF data without end.
    """
    shown = f"{image.width} x {image.height}: a decompression bomb?"
    if image.width * image.height > MAX_PIXELS:
        raise _refuse(name, f"at most {MAX_PIXELS:,} pixels", shown)
    if max(image.size) > MAX_SIDE:
        raise _refuse(name, f"at most {MAX_SIDE:,} pixels a side", shown)
    if len(image.info.get("exif", b"")) > _MAX_EXIF_BYTES:
        raise _refuse(name, f"at most {_MAX_EXIF_BYTES:,} bytes of EXIF data", "more", "save it without EXIF data")


def _require_few_scans(content: bytes, name: str) -> None:
    place = scans = 0
    for _ in range(_MAX_PIECES):
        found = _JPEG_MARKER.search(content, place)
        if not found or found[1] == _END_OF_IMAGE:
            return
        place = found.end()
        scans += found[1] == _START_OF_SCAN
        if scans > _MAX_SCANS:
            raise _refuse(name, f"a JPEG of at most {_MAX_SCANS} scans", _BOMB, _SAVE_AGAIN)
        if found[1] not in (_START_OF_IMAGE, _START_OF_SCAN):
            place += int.from_bytes(content[place : place + 2], "big")
    raise _refuse(name, f"a JPEG of at most {_MAX_PIECES:,} segments", "more", _SAVE_AGAIN)


class _Tag(NamedTuple):
    number: int
    kind: int  # the type of its values
    length: int  # how many values
    value: int  # where the values are, or the value itself if it is one


def _require_bounded_tiff(content: bytes, name: str) -> None:
    values = 0
    for tags in _iterate_directories(content):
        numbers = [tag.number for tag in tags]
        if len(set(numbers)) < len(numbers):
            # Pillow would take the one for the size, libtiff the other.
            raise DataError(name, "a TIFF tag stands in it twice", _SAVE_AGAIN)
        values += sum(tag.length for tag in tags if tag.kind not in _PLAIN_TYPES)
        if values > _MAX_PIECES:
            raise _refuse(name, f"at most {_MAX_PIECES:,} values of TIFF tags", "more", _SAVE_AGAIN)
        tile = math.prod(tag.value for tag in tags if tag.number in (_TILE_WIDTH, _TILE_LENGTH))
        if tile > MAX_PIXELS:
            raise _refuse(name, f"tiles of at most {MAX_PIXELS:,} pixels", _BOMB)
        # "TIFF Technical Note 2" (1995) has baseline JPEG alone, which a decoder goes through once.
        is_jpeg = any(tag.number == _COMPRESSION and tag.value in _JPEG_IN_TIFF for tag in tags)
        if is_jpeg and _PROGRESSIVE_FRAME in content:
            raise _refuse(name, "baseline JPEG in a TIFF", "a progressive one", _SAVE_AGAIN)


def _iterate_directories(content: bytes) -> Iterator[list[_Tag]]:
    """The tags of the first image and of its EXIF data, as far as they are there."""
    order, is_big = _TIFF_MAGIC[content[:4]], 43 in content[2:4]
    waiting = list(_unpack(f"{order}Q" if is_big else f"{order}I", content, 8 if is_big else 4))
    for _ in range(_MAX_DIRECTORIES):
        if not waiting:
            return
        start = waiting.pop()
        counted = _unpack(f"{order}Q" if is_big else f"{order}H", content, start)
        count = min(counted[0] if counted else 0, _MAX_PIECES)
        first, size, entry = (8, 20, f"{order}HHQQ") if is_big else (2, 12, f"{order}HHII")
        tags = []
        for place in range(start + first, start + first + count * size, size):
            fields = _unpack(entry, content, place)
            if not fields:
                break
            tag = _Tag(*fields)
            if tag.kind == 3 and tag.length == 1:  # a SHORT is at the left of its field
                tag = tag._replace(value=_unpack(f"{order}H", content, place + size - (8 if is_big else 4))[0])
            tags.append(tag)
        waiting += [tag.value for tag in tags if tag.number in _SUBDIRECTORIES]
        yield tags


def _unpack(pattern: str, content: bytes, place: int) -> tuple[int, ...]:
    is_there = place + struct.calcsize(pattern) <= len(content)
    return struct.unpack_from(pattern, content, place) if is_there else ()


def _refuse(name: str, expected: str, got: str, hint: str = "make it smaller, or leave it out") -> DataError:
    return DataError(name, expected=expected, got=got, hint=hint)
