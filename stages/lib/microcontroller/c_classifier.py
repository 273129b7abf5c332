"""The int8 network as one C99 file without dependencies, whose answers are the integer reference's to the bit."""

import math
from collections.abc import Iterable, Sequence
from string import Template
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages.lib.core.errors import ExportError
from stages.lib.microcontroller.c_source import quote, require_class_names
from stages.lib.microcontroller.device_sources import read_template
from stages.lib.microcontroller.integer_network import IntegerNetwork, Layer

_LANES = 4  # as many as the template writes out
_LINE_WIDTH = 116
_LARGEST_INPUT = 255
_MANTISSA_BITS = 24  # of a float32
_MOST_SHIFT = 63  # of a 64-bit product


def render_classifier(network: IntegerNetwork, class_names: Sequence[str], background: str | None) -> dict[str, str]:
    """The texts of `classifier.h` and `classifier.c`.

    class_names: by class id. background: `dark` or `light`, of the training images; none for colour.

    Raises:
        ExportError: there are not as many names as classes, one holds a NUL, or a sum may exceed 32 bits.
    """
    require_class_names(class_names, network.class_count)
    height, width, *channels = network.image_shape
    sizes = [math.prod(layer.output_shape) for layer in network.layers]
    # Each layer writes to the end of the memory at which its input is not.
    scratch_bytes = max(map(sum, zip(sizes, [*sizes[1:], 0], strict=True)))
    offsets = [scratch_bytes - size if index % 2 else 0 for index, size in enumerate(sizes)]
    header = {
        "pixels": "red, green and blue 0..255" if channels else "the grey level 0..255",
        "background": f", on a {background} background as in training" if background else "",
        "height": height,
        "width": width,
        "channels": math.prod(channels),
        "pixel_bytes": math.prod(network.image_shape),
        "class_count": network.class_count,
        "scratch_bytes": scratch_bytes,
    }
    source = {
        "lanes": _LANES,
        "tables": _render_layers(network.layers, offsets),
        "exponentials": _wrap(network.exponentials),
        "class_names": "\n".join(f"    {quote(name)}," for name in class_names),
    }
    return {"classifier.h": _fill("classifier.h", header), "classifier.c": _fill("classifier.c", source)}


def _fill(name: str, values: dict[str, Any]) -> str:
    return Template(read_template(name)).substitute(values)


def _render_layers(layers: Sequence[Layer], offsets: Sequence[int]) -> str:
    """Each layer's arrays, and what a layer's record holds."""
    arrays, records = [], []
    for index, (layer, offset) in enumerate(zip(layers, offsets, strict=True)):
        multipliers, shifts = _split_factors(layer.factors)
        for kind, values in (
            ("int8_t weights", _order_weights(layer.kernel)),
            ("int32_t biases", _require_32_bits(layer)),
            ("uint32_t multipliers", multipliers),
            ("uint8_t shifts", shifts),
        ):
            arrays.append(f"static const {kind}_{index}[] = {{\n{_wrap(values)}\n}};\n")
        (_, width, depth), (rows, columns, units) = layer.input_shape, layer.output_shape
        names = ", ".join(f"{kind}_{index}" for kind in ("weights", "biases", "multipliers", "shifts"))
        sizes = (width * depth, depth, layer.kernel.shape[1], layer.pool, rows, columns, units, offset)
        numbers = (*sizes, layer.output_zero, layer.lowest)
        records.append(f"    {{{names}, {', '.join(map(str, numbers))}}},")
    return "\n".join([*arrays, "static const struct layer layers[] = {", *records, "};", ""])


def _order_weights(kernel: NDArray[np.int8]) -> NDArray[np.int8]:
    """(units, h, w, C) by group of units, rows, columns, depth and unit; zeros where a group has no unit."""
    units, *inputs = kernel.shape
    padded = np.zeros((-(-units // _LANES) * _LANES, math.prod(inputs)), np.int8)
    padded[:units] = kernel.reshape(units, -1)
    return padded.reshape(-1, _LANES, math.prod(inputs)).transpose(0, 2, 1).ravel()


def _require_32_bits(layer: Layer) -> NDArray[np.int64]:
    """The biases, with which no sum is beyond 32 bits, whatever the image."""
    largest = _LARGEST_INPUT * np.abs(layer.kernel.astype(np.int64)).sum(axis=(1, 2, 3)) + np.abs(layer.folded_biases)
    limit = np.iinfo(np.int32).max
    if largest.max() > limit:
        raise ExportError(
            "the C source",
            expected=f"sums of at most {limit:,}, which 32 bits hold",
            got=f"{int(largest.max()):,}",
            hint="lower ingest.image_size or the units of the first layer",
        )
    return layer.folded_biases


def _split_factors(factors: NDArray[np.float32]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Multipliers of 24 bits, and by how many bits a product is shifted; a factor too small for any output is 0."""
    mantissas, exponents = np.frexp(factors.astype(np.float64))
    multipliers = (mantissas * (1 << _MANTISSA_BITS)).astype(np.int64)
    shifts = _MANTISSA_BITS - exponents.astype(np.int64)
    assert shifts.min() >= 1
    is_tiny = shifts > _MOST_SHIFT
    return np.where(is_tiny, 0, multipliers), np.where(is_tiny, 1, shifts)


def _wrap(values: Iterable[Any]) -> str:
    """The numbers in lines, indented."""
    lines, line = [], "   "
    for value in values:
        if len(line) + len(f" {value},") > _LINE_WIDTH:
            lines.append(line)
            line = "   "
        line += f" {value},"
    return "\n".join([*lines, line])
