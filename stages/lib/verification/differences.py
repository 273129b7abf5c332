"""What differs between two versions of a file, in the terms of its format: a key, a tensor, a pixel, not a byte."""

import csv
import io
import json
import zipfile
from collections.abc import Callable, Mapping
from itertools import zip_longest
from pathlib import Path, PurePath
from typing import Any

import h5py  # Keras's own format of weights, and so always there with it
import numpy as np
import onnx
from ai_edge_litert.tools.flatbuffer_utils import convert_bytearray_to_object, type_to_name
from google.protobuf.json_format import MessageToDict
from PIL import Image

from stages.lib.core.dvc_lock import parse_lock
from stages.lib.core.errors import show_controls

IDENTICAL = "identical"
_SHOWN = 60  # characters of a value
_ABSENT = object()  # the value of a path that a file does not have

Leaves = dict[str, Any]  # a file's arrays and plain values by path


def describe_difference(one: Path, other: Path) -> str:
    """The first thing that differs between two files, one's value first, in a line; IDENTICAL if nothing does.

    Of an array it is the first value that differs, with how many do, and by how much at most; of anything else the
    first key, cell or line. The format is what the other's name ends in, or one's, for an object of DVC's cache has no
    such ending. A file of no format that is known here, or not of its own, is compared as text, or as bytes.
    """
    missing = [number for number, path in (("first", one), ("second", other)) if not path.is_file()]
    if missing:
        return f"the {' and the '.join(missing)} is no file"
    contents = one.read_bytes(), other.read_bytes()
    if contents[0] == contents[1]:
        return IDENTICAL
    name = other.name if other.suffix else one.name
    differences = _compare(*(_read(name, content) for content in contents))
    prefix = ""
    if not differences:  # blanks, the order of keys, compression
        prefix, differences = "the same content, stored otherwise: ", _compare(*map(_read_plain, contents))
    more = f"; {len(differences) - 1:,} more differ" if differences[1:] else ""
    return show_controls(f"{prefix}{_describe(*differences[0])}{more}")


def _compare(one: Leaves, other: Leaves) -> list[tuple[str, Any, Any]]:
    """Each path that the two have not in common, with both values."""
    triples = [(path, one.get(path, _ABSENT), other.get(path, _ABSENT)) for path in one | other]
    return [triple for triple in triples if _identify(triple[1]) != _identify(triple[2])]


def _identify(value: Any) -> object:  # noqa: ANN401  # a leaf
    """What is equal for equal values alone: 1 is not 1.0 nor true here, 0 is not -0, and NaN is NaN."""
    return (value.dtype, value.shape, value.tobytes()) if isinstance(value, np.ndarray) else repr(value)


def _describe(path: str, one: Any, other: Any) -> str:  # noqa: ANN401  # leaves
    """How two values of a path differ."""
    if one is _ABSENT or other is _ABSENT:
        return f"{path}: only in the {'second' if one is _ABSENT else 'first'}"
    if not (isinstance(one, np.ndarray) and isinstance(other, np.ndarray)):
        return f"{path}: {_contrast(repr(one), repr(other))}".removeprefix(": ")
    if (one.dtype, one.shape) != (other.dtype, other.shape):
        return f"{path}: {one.dtype} {one.shape} against {other.dtype} {other.shape}"
    bits = [np.frombuffer(side.tobytes(), f"V{side.dtype.itemsize}") for side in (one, other)]
    rows = np.flatnonzero(bits[0] != bits[1])
    place = [int(index) for index in np.unravel_index(rows[0], one.shape)]
    values = [side.reshape(-1)[rows] for side in (one, other)]
    first = " against ".join(str(side[0]) for side in values)
    what = f"{path}{place or ''}: {first}; {rows.size:,} of {one.size:,} values differ"
    if one.dtype.kind not in "iuf":
        return what
    with np.errstate(invalid="ignore"):
        return f"{what}, by at most {np.abs(values[0].astype(float) - values[1].astype(float)).max():.3g}"


def _contrast(one: str, other: str) -> str:
    """Both texts, or of long ones what stands around the first difference."""
    place = next(number for number, pair in enumerate(zip_longest(one, other)) if pair[0] != pair[1])
    start = place - _SHOWN // 3 if max(len(one), len(other)) > _SHOWN else 0
    shown = [f"…{text[start:]}" if start > 0 else text for text in (one, other)]
    return " against ".join(text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…" for text in shown)


def _read(name: str, content: bytes) -> Leaves:
    """What a file holds; that it is not of its format is a value, too."""
    suffix = PurePath(name).suffix.lower()
    if suffix not in _READERS:
        return _read_plain(content)
    try:
        return {"format": suffix, **_READERS[suffix](content)}
    except Exception as error:  # noqa: BLE001  # a damaged file makes each parser fail in ways of its own
        return {"format": f"no valid {suffix} file: {str(error) or type(error).__name__}", **_read_plain(content)}


def _read_plain(content: bytes) -> Leaves:
    """The lines of a text, else the bytes."""
    try:
        return {f"line {number}": line for number, line in enumerate(content.decode().split("\n"), start=1)}
    except UnicodeDecodeError:
        return {"bytes": np.frombuffer(content, np.uint8)}


def _flatten(value: Any, path: str = "") -> Leaves:  # noqa: ANN401  # dicts, lists and objects, nested
    """The leaves of a nested value by dotted paths, with the own names of a list's items where these differ."""
    value = vars(value) if hasattr(value, "__dict__") else value
    if not isinstance(value, (dict, list)) or not value:
        return {path: value}
    if isinstance(value, dict):
        named = {f".{key}": item for key, item in value.items()}
    else:
        items = [vars(item) if hasattr(item, "__dict__") else item for item in value]
        named = {f"[{number}]": item for number, item in enumerate(items)}
        for key in ("key", "name", "path"):
            own = {f".{item[key]}": item for item in items if isinstance(item, dict) and isinstance(item.get(key), str)}
            named = own if len(own) == len(items) else named
    return {
        end: leaf
        for name, item in named.items()
        for end, leaf in _flatten(item, f"{path}{name}".removeprefix(".")).items()
    }


def _read_csv(content: bytes) -> Leaves:
    """Cells by line and column, the header's own among them."""
    reader = csv.reader(io.StringIO(content.decode(), newline=""), strict=True)
    header: list[str] = []
    leaves: Leaves = {}
    for row in reader:
        header = header or row
        leaves |= {f"line {reader.line_num}: {name}": cell for name, cell in zip_longest(header, row, fillvalue="")}
    return leaves


def _read_h5(content: bytes) -> Leaves:
    """Data sets by their path, and the attributes of whatever has some."""
    leaves: Leaves = {}

    def add(name: str, item: h5py.Group | h5py.Dataset) -> None:
        if isinstance(item, h5py.Dataset):
            leaves[name] = np.asarray(item[()]) if item.dtype.kind in "biufc" else repr(item[()])
        leaves.update({f"{name}@{key}": repr(value) for key, value in sorted(item.attrs.items())})

    with h5py.File(io.BytesIO(content), "r") as file:
        add("", file)
        file.visititems(add)
    return leaves


def _read_onnx(content: bytes) -> Leaves:
    """Initializers as arrays, and the fields of all other parts."""
    model = onnx.ModelProto.FromString(content)
    if not model.ir_version:  # protobuf takes almost any bytes for a message of fields that it does not know
        raise ValueError("no ir_version")
    arrays = {f"initializer {tensor.name}": onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    model.graph.ClearField("initializer")
    return {**_flatten(MessageToDict(model, preserving_proto_field_name=True)), **arrays}


def _read_png(content: bytes) -> Leaves:
    """Pixels as an array (H, W, 4), and what the file says beside them."""
    with Image.open(io.BytesIO(content), formats=["PNG"]) as picture:
        picture.load()
        return {"mode": picture.mode, **_flatten(picture.info), "pixel": np.asarray(picture.convert("RGBA"))}


def _read_tflite(content: bytes) -> Leaves:
    """Tensors with their buffers as arrays, and the fields of all other parts."""
    if content[4:8] != b"TFL3":
        raise ValueError("no TFL3 in bytes 4 to 7")
    model = convert_bytearray_to_object(bytearray(content))
    contents = [b"" if buffer.data is None else bytes(buffer.data) for buffer in model.buffers]
    tensors = [tensor for graph in model.subgraphs for tensor in graph.tensors]
    used = {tensor.buffer for tensor in tensors}
    model.buffers = [None if number in used else content for number, content in enumerate(contents)]
    for tensor in tensors:
        tensor.name = tensor.name.decode(errors="backslashreplace")
        values = np.frombuffer(contents[tensor.buffer], type_to_name(tensor.type).lower())
        tensor.buffer = values.reshape(tensor.shape) if values.size else None
    return _flatten(model)


def _read_zip(content: bytes) -> Leaves:
    """Members, each read in its own format, and their times."""
    leaves: Leaves = {}
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        for entry in archive.infolist():
            inner = {"time": entry.date_time, **_read(entry.filename, archive.read(entry))}
            leaves |= {f"{entry.filename}: {path}": value for path, value in inner.items()}
    return leaves


_READERS: Mapping[str, Callable[[bytes], Leaves]] = {
    ".csv": _read_csv,
    ".h5": _read_h5,
    ".json": lambda content: _flatten(json.loads(content)),
    ".keras": _read_zip,
    ".lock": lambda content: _flatten(parse_lock(content.decode()).model_dump()),
    ".npy": lambda content: {"array": np.load(io.BytesIO(content), allow_pickle=False)},
    ".npz": _read_zip,
    ".onnx": _read_onnx,
    ".png": _read_png,
    ".tflite": _read_tflite,
    ".zip": _read_zip,
}
