"""What an exported model says of itself: inside ONNX's metadata_props and TFLite's metadata."""

import json
from typing import Any

import onnx
from ai_edge_litert import schema_py_generated as schema

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
