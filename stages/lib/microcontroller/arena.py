"""How many bytes of arena a .tflite file needs at the most in TensorFlow Lite Micro, computed from the file alone.

The runtime's own allocator says it exactly (`stages.lib.exports.tflite_micro`), but its package is not made for every
platform. This bound is the same on all of them: it follows from whole numbers in the file, and from the sizes of the
runtime's records on a 64-bit machine, with some room. On a microcontroller most of these records are half as large.

An arena has two ends (tensorflow/lite/micro/docs/memory_management.md in the runtime's sources). At the tail lies what
is handed out for good. At the head lie the tensors, which share memory where they do not live at the same time; before
that, the head serves the kernels while they are prepared, and the planner while it places the tensors.
"""

from collections.abc import Sequence
from typing import Any

from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.tools.flatbuffer_utils import convert_bytearray_to_object

# Tensors begin at multiples of this many bytes (MicroArenaBufferAlignment of TensorFlow Lite Micro).
_ALIGNMENT = 16
# Found by its recording allocator, which lists what it hands out, and rounded up; a test holds that they are enough.
# Of the tail: the interpreter's records and those of input and output; of each operator its node, its registration and
# what its kernel keeps; of each tensor a TfLiteEvalTensor; of each channel that has a scale of its own a multiplier and
# a shift.
_TAIL_BYTES, _OPERATOR_BYTES, _TENSOR_BYTES, _CHANNEL_BYTES = 640, 176, 24, 8
# Of the head while a kernel is prepared: the records of its tensors, and a zero point for each channel of one.
_PREPARING_BYTES, _ZERO_POINT_BYTES = 512, 4
# Of the head while the tensors are placed: a record of each.
_PLACING_BYTES, _PLACED_BYTES = 64, 56
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
    model = convert_bytearray_to_object(bytearray(content))
    (graph,) = model.subgraphs
    channels = [_count_channels(graph, operator) for operator in graph.operators]
    tail = (
        _TAIL_BYTES
        + _OPERATOR_BYTES * len(graph.operators)
        + _TENSOR_BYTES * len(graph.tensors)
        + _CHANNEL_BYTES * sum(channels)
    )
    sizes, is_chain = _list_sizes(model, graph)
    head = max(
        bound_shared(sizes) if is_chain else sum(sizes),
        _PREPARING_BYTES + _ZERO_POINT_BYTES * max(channels),
        _PLACING_BYTES + _PLACED_BYTES * len(graph.tensors),
    )
    return _align(tail) + _align(head)


def bound_shared(sizes: Sequence[int]) -> int:
    """Bytes of memory that a chain of tensors shares at the most.

    sizes: of the tensors, in the order in which they are made; each lives until the next has been made from it.

    The runtime's planner (GreedyMemoryPlanner) places the largest first, each at the lowest place where it meets no
    neighbour in the chain. One that has no neighbour yet lies at the beginning. One that has a single neighbour lies
    before it, if that is not at the beginning, for it is no larger than what lies there; else behind it. One that has
    both lies behind one of them at the most, which had at most one neighbour itself. So nothing reaches further than
    three in a row are long, whatever the order of equal ones.
    """
    return max(sum(sizes[start : start + 3]) for start in range(len(sizes)))


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
    return _align(size)


def _count_channels(graph: Any, operator: Any) -> int:  # noqa: ANN401
    """The channels of an operator's weights, if each has a scale of its own; else 0."""
    quantizations = [graph.tensors[index].quantization for index in operator.inputs]
    counts = [len(found.scale) for found in quantizations if found is not None and found.scale is not None]
    return max((count for count in counts if count > 1), default=0)


def _align(size: int) -> int:
    return -(-size // _ALIGNMENT) * _ALIGNMENT
