"""How many bytes of arena a .tflite file needs at the most in TensorFlow Lite Micro, computed from the file alone.

The runtime's own allocator says it exactly (`stages.lib.exports.tflite_micro`), but its package is not made for every
platform. This bound is the same on all of them: it follows from whole numbers in the file, and from the sizes of the
runtime's records on a 64-bit machine, with some room. On a microcontroller most of these records are half as large.
"""

from typing import Any

from ai_edge_litert import schema_py_generated as schema

from stages.lib.exports.canonical_tflite import read_tflite
from stages.lib.model.int8_footprint import add_up_arena, align, bound_shared

_WIDTHS = {
    schema.TensorType.UINT8: 1,
    schema.TensorType.INT8: 1,
    schema.TensorType.INT16: 2,
    schema.TensorType.INT32: 4,
    schema.TensorType.FLOAT32: 4,
}


def bound_arena(content: bytes) -> int:
    """Bytes of arena in which a .tflite file answers for one image at a time, its kernels being the reference ones.

    content: holds one graph, of tensors of 8-bit, 16-bit and 32-bit numbers.
    """
    model = read_tflite(content)
    (graph,) = model.subgraphs
    channels = [_count_channels(graph, operator) for operator in graph.operators]
    sizes, is_chain = _list_sizes(model, graph)
    shared_bytes = bound_shared(sizes) if is_chain else sum(sizes)
    return add_up_arena(len(graph.operators), len(graph.tensors), channels, shared_bytes)


def _list_sizes(model: Any, graph: Any) -> tuple[list[int], bool]:  # noqa: ANN401  (the schema's objects are untyped)
    """Bytes of the input and of what each operator makes, and whether each is made from the one before alone."""
    made, sizes = [*graph.inputs], [_measure(graph.tensors[index]) for index in graph.inputs]
    is_chain = len(made) == 1
    for operator in graph.operators:
        is_chain = is_chain and [index for index in operator.inputs if index in made] == made[-1:]
        made += [*operator.outputs]
        # A reshaped tensor lies where it lay before.
        if model.operatorCodes[operator.opcodeIndex].builtinCode != schema.BuiltinOperator.RESHAPE:
            sizes += [_measure(graph.tensors[index]) for index in operator.outputs]
    return sizes, is_chain


def _measure(tensor: Any) -> int:  # noqa: ANN401
    """Bytes of a tensor for one image."""
    size = _WIDTHS[tensor.type]
    for length in tensor.shape:
        size *= abs(int(length))  # -1 is a batch of any size
    return align(size)


def _count_channels(graph: Any, operator: Any) -> int:  # noqa: ANN401
    """The channels of an operator's weights, if each has a scale of its own; else 0."""
    quantizations = [graph.tensors[index].quantization for index in operator.inputs]
    counts = [len(found.scale) for found in quantizations if found is not None and found.scale is not None]
    return max((count for count in counts if count > 1), default=0)
