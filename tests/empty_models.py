"""Model files that hold metadata and no network."""

import onnx
from ai_edge_litert import schema_py_generated as schema
from onnx import TensorProto, helper

from stages.lib.exports.model_metadata import add_onnx_metadata, add_tflite_metadata


def write_onnx(path, metadata):
    """The smallest ONNX model there is, with this metadata."""
    value = helper.make_tensor_value_info("images", TensorProto.UINT8, ["batch"])
    model = helper.make_model(helper.make_graph([], "nothing", [value], [value]))
    add_onnx_metadata(model, metadata)
    onnx.save(model, path)
    return path


def write_tflite(path, metadata):
    """The smallest TFLite model there is, with this metadata."""
    model = schema.ModelT()
    model.version, model.operatorCodes, model.subgraphs = 3, [], []
    model.buffers, model.metadata = [schema.BufferT()], []
    builder = schema.flatbuffers.Builder()
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    path.write_bytes(add_tflite_metadata(bytes(builder.Output()), metadata))
    return path
