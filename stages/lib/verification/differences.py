"""What differs between two versions of a file, in the terms of its format: a key, a tensor, a pixel, not a byte."""

import csv
import io
import json
import zipfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path, PurePath
from typing import Any, NamedTuple

import h5py  # Keras's own format of weights, and so always there with it
import numpy as np
import onnx
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.tools.flatbuffer_utils import convert_bytearray_to_object
from numpy.typing import NDArray
from PIL import Image
from ruamel.yaml import YAML

_SHOWN = 60  # characters of a value
_SHOWN_BYTES = 8

# How the numbers of a TFLite tensor's buffer are to be read.
_TFLITE_TYPES = {
    schema.TensorType.FLOAT32: "<f4",
    schema.TensorType.FLOAT16: "<f2",
    schema.TensorType.INT8: "i1",
    schema.TensorType.UINT8: "u1",
    schema.TensorType.INT16: "<i2",
    schema.TensorType.INT32: "<i4",
    schema.TensorType.INT64: "<i8",
}
_TFLITE_TYPE_NAMES = {number: name for name, number in vars(schema.TensorType).items() if not name.startswith("_")}
_TFLITE_OPERATOR_NAMES = {
    number: name for name, number in vars(schema.BuiltinOperator).items() if not name.startswith("_")
}


class _Parts(dict[str, Any]):
    """The parts of a file: their names end in a colon where a key of JSON has a dot before it."""


class _Found(NamedTuple):
    """A difference."""

    place: str  # empty where the whole differs
    what: str

    def put_below(self, key: str, separator: str) -> "_Found":
        """The same difference, as seen from the dict or the list that has it under `key`."""
        joint = separator if self.place and not self.place.startswith("[") else ""
        return _Found(f"{key}{joint}{self.place}", self.what)


class _Unreadable(NamedTuple):
    """A file that is not of its format."""

    content: bytes
    format: str
    reason: str


def describe_difference(one: Path, other: Path) -> str:
    """The first thing that differs between two files, one's value first, in a line; `identical` if nothing does.

    .json and dvc.lock give the path of the key, .npy the index, .csv the line and the column (line 1 is the header),
    .png the size or the pixel (row and column), .onnx and .tflite the node or the tensor by its name; .keras and .zip
    the member, and in it, as in .h5, the data set. Any other format gives the byte, and so does a file that is not of
    its format.
    The format is what the other's name ends in, or one's, for an object of DVC's cache has no such ending.
    """
    missing = [number for number, path in (("first", one), ("second", other)) if not path.is_file()]
    if missing:
        return f"the {' and the '.join(missing)} is no file"
    contents = one.read_bytes(), other.read_bytes()
    if contents[0] == contents[1]:
        return "identical"
    name = other.name if other.suffix else one.name
    found = _compare(*(_read(name, content) for content in contents))
    if found is None:
        return f"the same content, stored otherwise: {_compare_bytes(*contents)}"
    return f"{found.place}: {found.what}" if found.place else found.what


def _read(name: str, content: bytes) -> Any:  # noqa: ANN401  (parts, arrays and values of JSON, whatever the format has)
    """What a file holds: parts by their names, arrays and plain values; its bytes if its format is not known."""
    suffix = PurePath(name).suffix.lower()
    if suffix not in _READERS:
        return content
    try:
        return _READERS[suffix](content)
    except Exception as error:  # noqa: BLE001  # a damaged file makes each parser fail in ways of its own
        reason = " ".join(str(error).split()) or type(error).__name__
        return _Unreadable(content, suffix, _shorten(reason))


def _read_json(content: bytes) -> Any:  # noqa: ANN401  (any JSON value)
    return json.loads(content)


def _read_lock(content: bytes) -> Any:  # noqa: ANN401  (what YAML has)
    """A dvc.lock, its deps and outs by their paths."""

    def name_paths(value: Any) -> Any:  # noqa: ANN401
        if isinstance(value, dict):
            return {str(key): name_paths(item) for key, item in value.items()}
        if isinstance(value, list) and all(isinstance(item, dict) and "path" in item for item in value):
            return _name_apart((str(item["path"]), name_paths(item)) for item in value)
        return value

    return name_paths(YAML(typ="safe", pure=True).load(content))


def _read_npy(content: bytes) -> NDArray[Any]:
    array: NDArray[Any] = np.load(io.BytesIO(content), allow_pickle=False)
    return array


def _read_csv(content: bytes) -> _Parts:
    """Lines by their number, each as columns by the header's names."""
    reader = csv.reader(io.StringIO(content.decode(), newline=""), strict=True)
    header = next(reader, [])
    lines: list[tuple[str, Any]] = [("line 1, the header", header)]
    for row in reader:
        names = [*header, *(f"column {number}" for number in range(len(header) + 1, len(row) + 1))]
        lines.append((f"line {reader.line_num}", _name_apart(zip(names, row, strict=False))))
    return _Parts(lines)


def _read_png(content: bytes) -> _Parts:
    with Image.open(io.BytesIO(content), formats=["PNG"]) as picture:
        picture.load()
        colours = np.asarray(picture.convert("RGBA"))  # (H, W, 4)
        # A pixel is one value, not four.
        pixels = colours.view([(channel, "u1") for channel in ("red", "green", "blue", "alpha")])[..., 0]  # (H, W)
        info = {str(key): value if isinstance(value, str) else repr(value) for key, value in picture.info.items()}
        size = f"{picture.width} x {picture.height}"
        return _Parts({"size": size, "mode": picture.mode, "pixel": pixels, **info})


def _read_zip(content: bytes) -> _Parts:
    """Members by name, each read in its own format, and then what the archive itself says of them."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        entries = archive.infolist()
        members = _name_apart((entry.filename, _read(entry.filename, archive.read(entry))) for entry in entries)
    about = ("date_time", "compress_type", "create_system", "external_attr", "comment", "extra")
    headers = _name_apart(
        (f"entry of {entry.filename}", {key: repr(getattr(entry, key)) for key in about}) for entry in entries
    )
    return _Parts(members | headers)


def _read_h5(content: bytes) -> _Parts:
    """Data sets by their path, and the attributes of whatever has some."""
    parts = _Parts()

    def add(name: str, item: h5py.Group | h5py.Dataset) -> None:
        if isinstance(item, h5py.Dataset):
            parts[name] = np.asarray(item[()]) if item.dtype.kind in "biufc" else repr(item[()])
        parts.update({f"{name}@{key}".lstrip("/"): repr(value) for key, value in sorted(item.attrs.items())})

    with h5py.File(io.BytesIO(content), "r") as file:
        add("/", file)
        file.visititems(add)
    return parts


def _read_onnx(content: bytes) -> _Parts:
    model = onnx.ModelProto.FromString(content)
    if not model.ir_version:  # protobuf takes almost any bytes for a message of fields that it does not know
        raise ValueError("no ir_version")
    graph = model.graph
    nodes = (
        (
            node.name or f"node {number}",
            {
                "op_type": f"{node.domain}.{node.op_type}".lstrip("."),
                "input": list(node.input),
                "output": list(node.output),
                "doc_string": node.doc_string,
                **{attribute.name: _read_attribute(attribute) for attribute in node.attribute},
            },
        )
        for number, node in enumerate(graph.node)
    )
    values = (*graph.input, *graph.output, *graph.value_info)
    return _Parts(
        {
            **{key: getattr(model, key) for key in ("ir_version", "producer_name", "producer_version", "doc_string")},
            "opset_import": {opset.domain or "ai.onnx": opset.version for opset in model.opset_import},
            "metadata_props": _name_apart(
                (entry.key, _read_text(entry.value.encode())) for entry in model.metadata_props
            ),
            "graph": {"name": graph.name, "doc_string": graph.doc_string},
            **_name_apart((f"value {value.name}", " ".join(str(value).split())) for value in values),
            **_name_apart(
                (f"initializer {tensor.name}", onnx.numpy_helper.to_array(tensor)) for tensor in graph.initializer
            ),
            **_name_apart(nodes),
        }
    )


def _read_attribute(attribute: onnx.AttributeProto) -> Any:  # noqa: ANN401  (an array or a text)
    if attribute.type == onnx.AttributeProto.TENSOR:
        return onnx.numpy_helper.to_array(attribute.t)
    return " ".join(str(attribute).split())


def _read_tflite(content: bytes) -> _Parts:
    if content[4:8] != b"TFL3":
        raise ValueError("no TFL3 in bytes 4 to 7")
    model = convert_bytearray_to_object(bytearray(content))
    codes = [_name_operator(code) for code in model.operatorCodes or []]
    tensors: list[tuple[str, Any]] = []
    operators: list[tuple[str, Any]] = []
    kept = {0}  # buffers that are told of where they belong; number 0 is always empty
    for number, graph in enumerate(model.subgraphs):
        where = "" if number == 0 else f"subgraph {number} "
        for tensor in graph.tensors:
            kept.add(tensor.buffer)
            tensors.append((f"{where}tensor {_decode(tensor.name)}", _describe_tensor(tensor, model.buffers)))
        operators += [
            (f"{where}operator {position} {codes[operator.opcodeIndex]}", _simplify(operator))
            for position, operator in enumerate(graph.operators)
        ]
        operators.append((f"{where}graph", {key: _simplify(getattr(graph, key)) for key in ("inputs", "outputs")}))
    metadata = [(_decode(entry.name), entry.buffer) for entry in model.metadata or []]
    kept |= {buffer for _, buffer in metadata}
    others = (number for number in range(len(model.buffers)) if number not in kept)
    return _Parts(
        {
            "version": model.version,
            "description": _simplify(model.description),
            "operator codes": codes,
            **_name_apart(tensors),
            **_name_apart(operators),
            **_name_apart(
                (f"metadata {name}", _read_text(_get_buffer(model.buffers, buffer))) for name, buffer in metadata
            ),
            **{f"buffer {number}": _get_buffer(model.buffers, number) for number in others},
            "signature": _simplify(model.signatureDefs),
        }
    )


def _name_operator(code: Any) -> str:  # noqa: ANN401  (an OperatorCodeT)
    builtin = max(code.builtinCode, code.deprecatedBuiltinCode)  # the newer field holds what a byte cannot
    return f"{_TFLITE_OPERATOR_NAMES.get(builtin, builtin)} v{code.version}{_decode(code.customCode)}"


def _describe_tensor(tensor: Any, buffers: list[Any]) -> dict[str, Any]:  # noqa: ANN401  (a TensorT)
    content = _get_buffer(buffers, tensor.buffer)
    item = _TFLITE_TYPES.get(tensor.type)
    values: Any = np.frombuffer(content, item) if item and len(content) % np.dtype(item).itemsize == 0 else content
    shape = [int(size) for size in ([] if tensor.shape is None else tensor.shape)]
    if isinstance(values, np.ndarray) and values.size == np.prod(shape):
        values = values.reshape(shape)
    return {
        "shape": shape,
        "type": _TFLITE_TYPE_NAMES.get(tensor.type, tensor.type),
        "quantization": _simplify(tensor.quantization),
        "buffer": values,
    }


def _get_buffer(buffers: list[Any], number: int) -> bytes:
    data = buffers[number].data
    return b"" if data is None else bytes(data)


def _simplify(value: Any) -> Any:  # noqa: ANN401  (any object of a flatbuffer)
    """The same as plain values: dicts by attribute, lists, texts and numbers."""
    if isinstance(value, bytes):
        return _decode(value)
    if isinstance(value, (list, np.ndarray)):
        return [_simplify(item) for item in value]
    if hasattr(value, "__dict__"):
        return {key: _simplify(item) for key, item in vars(value).items()}
    return value.item() if isinstance(value, np.generic) else value


def _decode(name: bytes | None) -> str:
    return (name or b"").decode(errors="backslashreplace")


def _read_text(content: bytes) -> Any:  # noqa: ANN401  (any JSON value, else the bytes)
    """JSON if it is that."""
    try:
        return json.loads(content)
    except ValueError:
        return content


def _name_apart(items: Iterable[tuple[str, Any]]) -> _Parts:
    """Parts by name; where names repeat, by name and number."""
    parts = _Parts()
    for name, value in items:
        unique, number = name, 2
        while unique in parts:
            unique, number = f"{name} ({number})", number + 1
        parts[unique] = value
    return parts


_READERS: Mapping[str, Callable[[bytes], Any]] = {
    ".csv": _read_csv,
    ".h5": _read_h5,
    ".json": _read_json,
    ".keras": _read_zip,
    ".lock": _read_lock,
    ".npy": _read_npy,
    ".npz": _read_zip,
    ".onnx": _read_onnx,
    ".png": _read_png,
    ".tflite": _read_tflite,
    ".zip": _read_zip,
}


def _compare(one: Any, other: Any) -> _Found | None:  # noqa: ANN401  (what `_read` gives)
    """Where two contents differ first, and how; none if they do not."""
    if isinstance(one, _Unreadable) or isinstance(other, _Unreadable):
        return _compare_unreadable(one, other)
    if isinstance(one, dict) and isinstance(other, dict):
        return _compare_dicts(one, other)
    if isinstance(one, list) and isinstance(other, list):
        return _compare_lists(one, other)
    if isinstance(one, np.ndarray) and isinstance(other, np.ndarray):
        return _compare_arrays(one, other)
    if isinstance(one, bytes) and isinstance(other, bytes):
        return None if one == other else _Found("", _compare_bytes(one, other))
    # By their texts, for 1 is not 1.0 nor true here, and NaN is NaN.
    return None if repr(one) == repr(other) else _Found("", _contrast(repr(one), repr(other)))


def _compare_unreadable(one: Any, other: Any) -> _Found | None:  # noqa: ANN401
    broken = [(name, side) for name, side in (("first", one), ("second", other)) if isinstance(side, _Unreadable)]
    problems = [f"the {name} is no valid {side.format} file ({side.reason})" for name, side in broken]
    if len(broken) == 2:
        if one.content == other.content:
            return None
        problems.append(_compare_bytes(one.content, other.content))
    return _Found("", "; ".join(problems))


def _compare_dicts(one: dict[str, Any], other: dict[str, Any]) -> _Found | None:
    """The first key with other values, then keys that one of them lacks, then their order."""
    separator = ": " if isinstance(one, _Parts) else "."
    for key, value in one.items():
        found = _compare(value, other[key]) if key in other else None
        if found:
            return found.put_below(key, separator)
    for name, keys, others in (("first", one, other), ("second", other, one)):
        lone = [key for key in keys if key not in others]
        if lone:
            return _Found(lone[0], f"only in the {name}" + (f", as are {len(lone) - 1:,} more" if lone[1:] else ""))
    moved = next((pair for pair in zip(one, other, strict=True) if pair[0] != pair[1]), None)
    return _Found("", f"another order, {moved[0]} against {moved[1]}") if moved else None


def _compare_lists(one: list[Any], other: list[Any]) -> _Found | None:
    for number, pair in enumerate(zip(one, other, strict=False)):
        found = _compare(*pair)
        if found:
            return found.put_below(f"[{number}]", ".")
    return _Found("", f"{len(one):,} against {len(other):,} items") if len(one) != len(other) else None


def _compare_arrays(one: NDArray[Any], other: NDArray[Any]) -> _Found | None:
    """Type, shape, then the first value whose bits differ."""
    if one.dtype != other.dtype:
        return _Found("", f"dtype {one.dtype} against {other.dtype}")
    if one.shape != other.shape:
        return _Found("", f"shape {one.shape} against {other.shape}")
    if one.size == 0 or one.dtype.itemsize == 0:
        return None
    bits = f"V{one.dtype.itemsize}"  # as numbers, NaN is not NaN and 0 is -0
    sides = [np.ascontiguousarray(array).reshape(-1).view(bits) for array in (one, other)]
    differing = np.nonzero(sides[0] != sides[1])[0]
    if not differing.size:
        return None
    place = [int(number) for number in np.unravel_index(differing[0], one.shape)]
    values = [str(array[tuple(place)]) for array in (one, other)]
    if values[0] == values[1]:
        values = [
            f"{value} (0x{side[differing[0]].tobytes().hex()})" for value, side in zip(values, sides, strict=True)
        ]
    what = f"{values[0]} against {values[1]}{_summarize(one, other, differing.size)}"
    return _Found(str(place) if place else "", what)


def _summarize(one: NDArray[Any], other: NDArray[Any], count: int) -> str:
    """How many values differ, and by how much at most, if that can be said."""
    if one.size == 1:
        return ""
    summary = f"; {count:,} of {one.size:,} values differ"
    if one.dtype.kind not in "iuf":
        return summary
    with np.errstate(invalid="ignore", over="ignore"):
        distances = np.abs(one.astype(np.float64) - other.astype(np.float64))
    return summary if np.isnan(distances).any() else f"{summary}, by at most {distances.max():.3g}"


def _compare_bytes(one: bytes, other: bytes) -> str:
    """The first byte that differs, with its line if both are texts, and both sizes if they are not the same."""
    length = min(len(one), len(other))
    sides = (np.frombuffer(side, np.uint8, length) if length else np.empty(0, np.uint8) for side in (one, other))
    differing = np.nonzero(np.not_equal(*sides))[0]
    offset = int(differing[0]) if differing.size else length
    sizes = "" if len(one) == len(other) else f"; {len(one):,} bytes against {len(other):,}"
    lines = [_find_line(side, offset) for side in (one, other)]
    if lines[0] is not None and lines[1] is not None:
        number = one.count(b"\n", 0, offset) + 1
        return f"byte {offset:,}, line {number:,}: {_contrast(*map(repr, lines))}{sizes}"
    shown = [side[offset : offset + _SHOWN_BYTES].hex(" ") or "the end" for side in (one, other)]
    return f"byte {offset:,}: {shown[0]} against {shown[1]}{sizes}"


def _find_line(content: bytes, offset: int) -> str | None:
    """The line of a text around a byte; none if it is no text."""
    if b"\0" in content:
        return None
    try:
        content.decode()
    except UnicodeDecodeError:
        return None
    start = content.rfind(b"\n", 0, offset) + 1
    end = content.find(b"\n", offset)
    return content[start : None if end < 0 else end].decode()


def _contrast(one: str, other: str) -> str:
    """Both texts, or of long ones what stands around the first difference."""
    pairs = zip(one, other, strict=False)
    place = next((number for number, (left, right) in enumerate(pairs) if left != right), min(len(one), len(other)))
    start = max(0, place - _SHOWN // 3) if max(len(one), len(other)) > _SHOWN else 0
    shown = [_shorten(text[start:]) for text in (one, other)]
    return f"{'…' * (start > 0)}{shown[0]} against {'…' * (start > 0)}{shown[1]}"


def _shorten(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"
