"""What an exported model says of itself: inside ONNX's metadata_props and TFLite's metadata."""

import json
from pathlib import Path
from typing import Any

import onnx
from ai_edge_litert import schema_py_generated as schema

from stages.lib.core.errors import ExportError
from stages.lib.exports.canonical_tflite import canonicalize_tflite, read_tflite

# The entry of TFLite's metadata that holds the JSON object. TFLite's names for entries of its own are upper case.
_TFLITE_ENTRY = "classifier"


def add_onnx_metadata(model: onnx.ModelProto, metadata: dict[str, Any]) -> None:
    """Put each key in metadata_props, its value as JSON."""
    onnx.helper.set_model_props(
        model, {key: json.dumps(value, sort_keys=True) for key, value in sorted(metadata.items())}
    )


def read_onnx_metadata(model: onnx.ModelProto) -> dict[str, Any]:
    """What `add_onnx_metadata` put into the model."""
    return {entry.key: json.loads(entry.value) for entry in model.metadata_props}


def add_tflite_metadata(content: bytes, metadata: dict[str, Any]) -> bytes:
    """The model's canonical bytes, with one more metadata entry that holds a JSON object."""
    model = read_tflite(content)
    buffer, entry = schema.BufferT(), schema.MetadataT()
    buffer.data = list(json.dumps(metadata, sort_keys=True, separators=(",", ":")).encode())
    entry.name, entry.buffer = _TFLITE_ENTRY, len(model.buffers)
    model.buffers.append(buffer)
    model.metadata.append(entry)
    return canonicalize_tflite(model)


def read_tflite_metadata(content: bytes) -> dict[str, Any]:
    """What `add_tflite_metadata` put into the model; empty if there is nothing."""
    model = read_tflite(content)
    for entry in model.metadata or []:
        if entry.name == _TFLITE_ENTRY.encode():
            found: dict[str, Any] = json.loads(bytes(model.buffers[entry.buffer].data))
            return found
    return {}


def read_metadata(model_path: Path) -> dict[str, Any]:
    """What the exported model says of its classes and its input.

    Raises:
        ExportError: it says nothing, as a model from elsewhere does.
    """
    if model_path.suffix == ".onnx":
        metadata = read_onnx_metadata(onnx.load(model_path, load_external_data=False))
    else:
        metadata = read_tflite_metadata(model_path.read_bytes())
    if not {"background", "class_names", "image_size"} <= metadata.keys():
        hint = "name a model that the export stage wrote, such as models/export/model.onnx"
        raise ExportError(str(model_path), "there are no class names in it", hint)
    return metadata


def find_image_shape(metadata: dict[str, Any]) -> tuple[int, ...]:
    """The shape of an image that the model takes: (H, W) or (H, W, 3)."""
    channels = metadata.get("channels", 1)  # a model of an earlier version does not say
    return (*metadata["image_size"], channels) if channels > 1 else tuple(metadata["image_size"])
