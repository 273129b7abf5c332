"""How much of a microcontroller's memory a network takes as an int8 file, told from its sizes alone.

So a network that is too large is known before it is trained. `stages.lib.microcontroller.arena` tells it from a file.
"""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from stages.lib.core.errors import ExportError, ParamsError
from stages.lib.model.boards import Limits, find_board
from stages.lib.model.network import KERNEL_SIZE, POOL_SIZE, require_fitting_images

# Tensors begin at multiples of this many bytes (MicroArenaBufferAlignment of TensorFlow Lite Micro).
_ALIGNMENT = 16
# Found by its recording allocator, which lists what it hands out, and rounded up; a test holds that they are enough.
# Of the tail: the interpreter's records and those of input and output; of each operator its node, its registration and
# what its kernel keeps; of each tensor a TfLiteEvalTensor; of each channel that has a scale of its own a multiplier and
# a shift.
_TAIL_BYTES, _OPERATOR_BYTES, _TENSOR_BYTES, _CHANNEL_BYTES = 640, 176, 24, 8
# Of the head while a kernel is prepared: the records of its tensors, and a zero point for each channel of its weights
# and of its biases.
_PREPARING_BYTES, _ZERO_POINTS_BYTES = 512, 2 * 4
# Of the head while the tensors are placed: a record of each.
_PLACING_BYTES, _PLACED_BYTES = 64, 56

# Of the file: each bias, scale and zero point; what describes a layer and a pooling; and for all that is not the
# network's, such as its metadata, no less and usually no more.
_BIAS_BYTES, _SCALE_BYTES, _ZERO_POINT_BYTES = 4, 4, 8
_LAYER_BYTES, _POOLING_BYTES = 288, 192
_LEAST_BYTES, _USUAL_BYTES = 1280, 3328


INT8_NAME = "model_int8.tflite"


class Sizes(NamedTuple):
    """What a network's weights and tensors are as large as."""

    image_size: tuple[int, ...]  # (H, W)
    hidden_units: tuple[int, ...]
    class_count: int
    conv_blocks: tuple[tuple[int, ...], ...] = ()  # of each block, the filters of its convolutions
    channels: int = 1  # of an image


class _Layer(NamedTuple):
    """A convolution or a dense layer."""

    inputs: int  # of each unit or filter
    units: int
    made: list[int]  # bytes of its answers, and of these after a pooling


def _list_layers(sizes: Sizes) -> list[_Layer]:
    (height, width), depth = sizes.image_size, sizes.channels
    layers = []
    for filters in sizes.conv_blocks:
        for count in filters:
            height, width = height - (KERNEL_SIZE - 1), width - (KERNEL_SIZE - 1)
            layers.append(_Layer(KERNEL_SIZE**2 * depth, count, [height * width * count]))
            depth = count
        height, width = height // POOL_SIZE, width // POOL_SIZE
        layers[-1].made.append(height * width * depth)
    inputs = height * width * depth
    for units in (*sizes.hidden_units, sizes.class_count):
        layers.append(_Layer(inputs, units, [units]))
        inputs = units
    return layers


def align(size: int) -> int:
    """The next multiple of what tensors begin at."""
    return -(-size // _ALIGNMENT) * _ALIGNMENT


def add_up_arena(operator_count: int, tensor_count: int, channels: Sequence[int], shared_bytes: int) -> int:
    """Bytes of arena that are surely enough for a file with so many operators and tensors.

    channels: those of each operator's weights that have a scale of their own. shared_bytes: that tensors share.

    An arena has two ends (tensorflow/lite/micro/docs/memory_management.md in the runtime's sources). At the tail lies
    what is handed out for good. At the head lie the tensors, which share memory where they do not live at the same
    time; before that, the head serves the kernels while they are prepared, and the planner while it places the tensors.
    """
    tail = _TAIL_BYTES + _OPERATOR_BYTES * operator_count + _TENSOR_BYTES * tensor_count
    head = max(
        shared_bytes,
        _PREPARING_BYTES + _ZERO_POINTS_BYTES * max(channels),
        _PLACING_BYTES + _PLACED_BYTES * tensor_count,
    )
    return align(tail + _CHANNEL_BYTES * sum(channels)) + align(head)


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


def compute_arena(sizes: Sizes) -> int:
    """Bytes of arena that are surely enough for the network's int8 file."""
    layers, pixels = _list_layers(sizes), math.prod(sizes.image_size) * sizes.channels
    # Pixels as uint8 and as int8, what layers make, the softmax as int8 and as uint8; reshaping takes no room.
    answers = [size for layer in layers for size in layer.made]
    made = [pixels, pixels, *answers, sizes.class_count, sizes.class_count]
    channels = [layer.units if layer.units > 1 else 0 for layer in layers]
    # Before the first dense layer, and before convolutions of grey images, which have a channel then.
    reshapes = 2 if sizes.conv_blocks and sizes.channels == 1 else 1
    # Beside these: what is reshaped and its shape, and of each layer its weights and its biases.
    tensor_count = len(made) + 2 * reshapes + 2 * len(layers)
    # Beside layers and poolings: QUANTIZE, SOFTMAX, QUANTIZE.
    operator_count = len(answers) + reshapes + 3
    return add_up_arena(operator_count, tensor_count, channels, bound_shared([align(size) for size in made]))


def bound_file(sizes: Sizes) -> int:
    """Bytes that the network's int8 file has at the least: equal arrays are in it once."""
    layers = _list_layers(sizes)
    units = [layer.units for layer in layers]
    weights = sum((layer.inputs + _BIAS_BYTES) * layer.units for layer in layers)
    # Of weights and of biases; a bias's is the input's times the weights', and that of pixels is 1.
    scales = _SCALE_BYTES * (2 * sum(units) - units[0])
    # All are 0, so that layers of one size share theirs.
    zero_points = _ZERO_POINT_BYTES * sum(set(units))
    tables = _LAYER_BYTES * len(layers) + _POOLING_BYTES * len(sizes.conv_blocks) + _LEAST_BYTES
    return weights + scales + zero_points + tables


def find_misfit(sizes: Sizes, limits: Limits) -> ExportError | None:
    """What of the network's int8 file will surely be too large, with what to do about it; none if nothing is."""
    return describe_misfit(compute_arena(sizes), bound_file(sizes), sizes, limits, "at least ")


def describe_misfit(
    arena_bytes: int, file_bytes: int, sizes: Sizes, limits: Limits, at_least: str = ""
) -> ExportError | None:
    """That the arena or the file is too large, and which of the params to lower to what; none if both fit.

    at_least: said before the size of the file.
    """
    figures = [
        ("RAM", limits.max_arena_bytes, arena_bytes, ""),
        ("flash", limits.max_file_bytes, file_bytes, at_least),
    ]
    misfits = [figure for figure in figures if figure[2] > figure[1]]
    if not misfits:
        return None
    needed = " and ".join(
        f"{least}{got:,} bytes of {memory}, where {limit:,} are allowed," for memory, limit, got, least in misfits
    ).removesuffix(",")
    otherwise = "raise the limits in export.microcontroller"
    if limits.is_of_board:
        larger = find_board(arena_bytes, file_bytes)
        otherwise = f"set export.board to {larger}, which is larger" if larger else ""
    remedies = [remedy for remedy in (_find_smaller(sizes, limits), otherwise) if remedy]
    hint = ", or ".join(remedies) or "set export.board to null, and the limits to numbers"
    return ExportError(f"{INT8_NAME} on {limits.where}", f"needs {needed}", hint)


def _find_smaller(sizes: Sizes, limits: Limits) -> str:
    """Fewer units or filters, whichever lose the smaller share, where these can be few enough, else fewer pixels.

    Empty if none of these helps.
    """

    def fits(changed: Sizes) -> bool:
        file_bytes = bound_file(changed) - _LEAST_BYTES + _USUAL_BYTES
        return compute_arena(changed) <= limits.max_arena_bytes and file_bytes <= limits.max_file_bytes

    remedies = []  # what is left, as a share, and how to say it
    for most, units in _iterate_smaller(sizes.hidden_units):
        if fits(sizes._replace(hidden_units=units)):
            remedies.append((most, f"lower train.hidden_units to about {list(units)}"))
            break
    for most, filters in _iterate_smaller([count for block in sizes.conv_blocks for count in block]):
        remaining = iter(filters)
        blocks = tuple(tuple(next(remaining) for _ in block) for block in sizes.conv_blocks)
        if fits(sizes._replace(conv_blocks=blocks)):
            remedies.append((most, f"lower train.conv_blocks to about {[list(block) for block in blocks]}"))
            break
    if remedies:
        return max(remedies)[1]
    for _, size in _iterate_smaller(sizes.image_size):
        try:
            require_fitting_images(size, sizes.conv_blocks)
        except ParamsError:
            return ""
        if fits(sizes._replace(image_size=size)):
            return f"the input is what costs: lower ingest.image_size to about {list(size)}"
    return ""


def _iterate_smaller(lengths: Sequence[int]) -> Iterator[tuple[float, tuple[int, ...]]]:
    """Ever smaller lengths in the same proportions, each with the share that is left of the largest."""
    largest = max(lengths, default=0)
    for most in range(largest - 1, 0, -1):
        yield most / largest, tuple(max(1, length * most // largest) for length in lengths)
