"""What an exported model says of itself: inside ONNX's metadata_props and TFLite's metadata."""

import json
from typing import Any

import flatbuffers
import onnx
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.tools.flatbuffer_utils import convert_bytearray_to_object

# The entry of TFLite's metadata that holds the JSON object. TFLite's names for entries of its own are upper case.
_TFLITE_ENTRY = "classifier"
_TFLITE_FILE_ID = b"TFL3"
# `force_align` of a buffer's data in TFLite's schema.fbs: a kernel may read a weight as a word of several bytes.
_BUFFER_ALIGNMENT = 16


class _AligningBuilder(flatbuffers.Builder):  # type: ignore[misc]  # untyped
    """A builder that keeps the schema's `force_align`, which flatbuffers' generated Python code leaves out."""

    def StartVector(self, elemSize: int, numElems: int, alignment: int) -> Any:  # noqa: ANN401, N802, N803
        return super().StartVector(elemSize, numElems, _BUFFER_ALIGNMENT if elemSize == 1 else alignment)


def add_onnx_metadata(model: onnx.ModelProto, metadata: dict[str, Any]) -> None:
    """Put each key in metadata_props, its value as JSON."""
    onnx.helper.set_model_props(
        model, {key: json.dumps(value, sort_keys=True) for key, value in sorted(metadata.items())}
    )


def read_onnx_metadata(model: onnx.ModelProto) -> dict[str, Any]:
    """What `add_onnx_metadata` put into the model."""
    return {entry.key: json.loads(entry.value) for entry in model.metadata_props}


def add_tflite_metadata(content: bytes, metadata: dict[str, Any]) -> bytes:
    """The model with one more metadata entry that holds a JSON object."""
    model = convert_bytearray_to_object(bytearray(content))
    buffer, entry = schema.BufferT(), schema.MetadataT()
    buffer.data = list(json.dumps(metadata, sort_keys=True).encode())
    entry.name, entry.buffer = _TFLITE_ENTRY, len(model.buffers)
    model.buffers.append(buffer)
    model.metadata.append(entry)
    builder = _AligningBuilder(len(content))
    builder.Finish(model.Pack(builder), file_identifier=_TFLITE_FILE_ID)
    return bytes(builder.Output())


def read_tflite_metadata(content: bytes) -> dict[str, Any]:
    """What `add_tflite_metadata` put into the model; empty if there is nothing."""
    model = convert_bytearray_to_object(bytearray(content))
    for entry in model.metadata or []:
        if entry.name == _TFLITE_ENTRY.encode():
            found: dict[str, Any] = json.loads(bytes(model.buffers[entry.buffer].data))
            return found
    return {}
