"""C source for microcontrollers: a fully quantized .tflite file for TensorFlow Lite Micro, and answers to check it by.

Everything that the source says of the model is read from the file. The text is ASCII and equal for equal arguments.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray

from stages.lib.core.errors import ExportError
from stages.lib.exports.canonical_tflite import read_tflite

_WHERE = "the C source"
_BYTES_PER_LINE = 12
_OPERATOR_NAMES = {number: name for name, number in vars(schema.BuiltinOperator).items() if not name.startswith("_")}
# What a string literal cannot hold as it is, and `?`, for two of them begin a trigraph.
_ESCAPED = b'"\\?'

_HEADER = """\
/* An image classifier for TensorFlow Lite Micro: the bytes of model_int8.tflite, and what firmware must know of them.
 * Rendered from that file: change the model, not this text.
 *
 *     tflite::MicroMutableOpResolver<MODEL_INT8_OPERATOR_COUNT> resolver;
 *     MODEL_INT8_REGISTER_OPERATORS(resolver);
 *     alignas(16) static uint8_t arena[MODEL_INT8_ARENA_BYTES];
 *     tflite::MicroInterpreter interpreter(tflite::GetModel(model_int8), resolver, arena, sizeof(arena));
 *     if (interpreter.AllocateTensors() != kTfLiteOk) fail();
 *
 * In:  copy the camera's bytes, {pixels}, row by row, to interpreter.input(0)->data.uint8 as they are.
 *      Nothing is to be normalized: the model does it.
 * Out: after interpreter.Invoke(), interpreter.output(0)->data.uint8 holds a byte for each class. Its probability is
 *      (byte - MODEL_INT8_OUTPUT_ZERO_POINT) * MODEL_INT8_OUTPUT_SCALE, its name is in model_int8_class_names.
 */
#ifndef MODEL_INT8_H
#define MODEL_INT8_H

#ifdef __cplusplus
extern "C" {{
#endif

/* The file, aligned to 16 bytes. */
#define MODEL_INT8_BYTES {byte_count}
extern const unsigned char model_int8[];

/* uint8: {level} = (byte - zero point) * scale{background}. */
#define MODEL_INT8_INPUT_HEIGHT {height}
#define MODEL_INT8_INPUT_WIDTH {width}
#define MODEL_INT8_INPUT_CHANNELS {channels}
#define MODEL_INT8_INPUT_SCALE {input_scale}
#define MODEL_INT8_INPUT_ZERO_POINT {input_zero_point}

/* uint8: probability = (byte - zero point) * scale. */
#define MODEL_INT8_CLASS_COUNT {class_count}
#define MODEL_INT8_OUTPUT_SCALE {output_scale}
#define MODEL_INT8_OUTPUT_ZERO_POINT {output_zero_point}

/* UTF-8, by class id. */
extern const char *const model_int8_class_names[];

/* Enough for TensorFlow Lite Micro's reference kernels on a 64-bit host, computed from this model's tensors. A 32-bit
 * target needs less, since its pointers are half as wide: ask interpreter.arena_used_bytes(). Kernels made for one chip
 * may want scratch memory on top. */
#define MODEL_INT8_ARENA_BYTES {arena_bytes}

/* The operators of the model, for a resolver that holds no others. */
#define MODEL_INT8_OPERATOR_COUNT {operator_count}
#define MODEL_INT8_REGISTER_OPERATORS(resolver) \\
    do {{ \\
{registrations}
    }} while (0)

#ifdef __cplusplus
}}
#endif

#endif
"""

_SOURCE = """\
#include "model_int8.h"

#include <stdalign.h>

/* Weights begin at multiples of 16 bytes within the file, and kernels read words of them: so must the file itself. */
alignas(16) const unsigned char model_int8[] = {{
{values}
}};

const char *const model_int8_class_names[] = {{
{class_names}
}};
"""

_GOLDEN = """\
/* Images, and what the model must answer to them, for firmware to check itself. The bytes of classifier_predict are
 * these. In TensorFlow Lite Micro, copy each image to the model's input and invoke: its kernels round differently, and
 * each output byte is at most GOLDEN_TOLERANCE away from its answer.
 */
#ifndef GOLDEN_H
#define GOLDEN_H

#include <stdint.h>

#define GOLDEN_IMAGE_COUNT {image_count}
#define GOLDEN_IMAGE_HEIGHT {height}
#define GOLDEN_IMAGE_WIDTH {width}
#define GOLDEN_IMAGE_CHANNELS {channels}
#define GOLDEN_CLASS_COUNT {class_count}
#define GOLDEN_TOLERANCE {tolerance}

/* The rows of each image, in which the channels of a pixel lie side by side. */
static const uint8_t
    golden_images[GOLDEN_IMAGE_COUNT][GOLDEN_IMAGE_HEIGHT][GOLDEN_IMAGE_WIDTH * GOLDEN_IMAGE_CHANNELS] = {{
{images}
}};

static const uint8_t golden_answers[GOLDEN_IMAGE_COUNT][GOLDEN_CLASS_COUNT] = {{
{answers}
}};

#endif
"""


class _Port(NamedTuple):
    """The model's input or output."""

    shape: tuple[int, ...]  # with the batch
    scale: str  # as a float of C
    zero_point: int


def render_c_model(
    content: bytes, class_names: Sequence[str], background: str | None, arena_bytes: int
) -> dict[str, str]:
    """A fully quantized .tflite file as the texts of `model_int8.h` and `model_int8.c`.

    content: takes uint8 (batch, H, W) or (batch, H, W, 3), gives uint8 (batch, classes).
    class_names: by class id, any text without the character NUL; a byte that Python could not decode in a file's name
    (PEP 383) comes through as that byte.
    background: `dark` or `light`, what the images have that the model learned from; none for colour.
    arena_bytes: enough for TensorFlow Lite Micro. The header is C99 and C++11, the source C11.

    Raises:
        ExportError: the model takes or gives other than uint8, the names are not as many as its classes, or one
            holds a NUL, which ends a string in C.
    """
    model = read_tflite(content)
    (graph,) = model.subgraphs
    images, probabilities = _read_port(graph, graph.inputs), _read_port(graph, graph.outputs)
    _, height, width, *channels = images.shape
    _, class_count = probabilities.shape
    require_class_names(class_names, class_count)
    operators = list_operators(content)
    header = _HEADER.format(
        byte_count=len(content),
        height=height,
        width=width,
        channels=math.prod(channels),
        pixels="red, green and blue of each pixel, 0..255" if channels else "grey levels 0..255",
        level="level of red, green or blue" if channels else "grey level",
        input_scale=images.scale,
        input_zero_point=images.zero_point,
        background=f", of images on a {background} background as in training" if background else "",
        class_count=class_count,
        output_scale=probabilities.scale,
        output_zero_point=probabilities.zero_point,
        arena_bytes=arena_bytes,
        operator_count=len(operators),
        registrations="\n".join(f"        (resolver).{_name_method(operator)}(); \\" for operator in operators),
    )
    source = _SOURCE.format(
        values="\n".join(
            "    " + " ".join(f"0x{value:02x}," for value in content[start : start + _BYTES_PER_LINE])
            for start in range(0, len(content), _BYTES_PER_LINE)
        ),
        class_names="\n".join(f"    {quote(name)}," for name in class_names),
    )
    return {"model_int8.h": header, "model_int8.c": source}


def render_c_golden(images: NDArray[np.uint8], answers: NDArray[np.uint8], tolerance: int) -> dict[str, str]:
    """Images and the answers that the model must give to them, as the text of `golden.h`: C99 and C++11.

    images: uint8 (N, H, W) or (N, H, W, 3), at least one. answers: uint8 (N, classes), the model's output bytes.
    tolerance: how far an output byte may be from its answer, in steps of the output's scale.
    """
    image_count, height, width, *channels = images.shape
    # C fills what is missing with zeros, and says nothing.
    assert len(answers) == image_count > 0
    rows = images.reshape(image_count, height, -1)
    golden = _GOLDEN.format(
        image_count=image_count,
        height=height,
        width=width,
        channels=math.prod(channels),
        class_count=answers.shape[1],
        tolerance=tolerance,
        images="\n".join(f"    {{\n{_render_rows(image, '        ')}\n    }}," for image in rows),
        answers=_render_rows(answers, "    "),
    )
    return {"golden.h": golden}


def list_operators(content: bytes) -> list[str]:
    """The distinct operators of a .tflite file, in order of first use, as TFLite's schema names them."""
    model = read_tflite(content)
    codes = [model.operatorCodes[step.opcodeIndex].builtinCode for graph in model.subgraphs for step in graph.operators]
    return [_OPERATOR_NAMES[code] for code in dict.fromkeys(codes)]


def _read_port(graph: Any, indices: Sequence[int]) -> _Port:  # noqa: ANN401  (the schema's objects are untyped)
    (index,) = indices
    tensor = graph.tensors[index]
    quantization = tensor.quantization
    if tensor.type != schema.TensorType.UINT8 or quantization is None or quantization.scale is None:
        raise ExportError(
            _WHERE,
            expected="quantized uint8 as the model's input and output",
            got=f"another type, in the tensor {tensor.name.decode()}",
            hint="give it model_int8.tflite",
        )
    # Every float32 is a double, too, and Python writes a double such that it reads back the same, always with a
    # point or an exponent, as C asks for before an `f`.
    scale = repr(float(quantization.scale[0])) + "f"
    return _Port(tuple(tensor.shape), scale, int(quantization.zeroPoint[0]))


def _name_method(operator: str) -> str:
    """The method of TensorFlow Lite Micro's MicroMutableOpResolver: CONV_2D is AddConv2D."""
    return "Add" + operator.title().replace("_", "")


def require_class_names(class_names: Sequence[str], class_count: int) -> None:
    """Refuse more or fewer names than classes.

    Raises:
        ExportError: saying both numbers.
    """
    if len(class_names) != class_count:
        raise ExportError(
            _WHERE, expected=f"{class_count} class names", got=str(len(class_names)), hint="name each class once"
        )


def quote(name: str) -> str:
    """A string literal of C that holds the name's UTF-8.

    Raises:
        ExportError: the name holds a NUL, which ends a string in C.
    """
    encoded = name.encode(errors="surrogateescape")
    if 0 in encoded:
        raise ExportError(_WHERE, f"the class name {name!r} holds a NUL", "rename the class")
    # An octal escape ends after three digits at the latest; a hexadecimal one would take in the letters that follow.
    return '"' + "".join(f"\\{byte:03o}" if _needs_escape(byte) else chr(byte) for byte in encoded) + '"'


def _needs_escape(byte: int) -> bool:
    return byte in _ESCAPED or not 0x20 <= byte < 0x7F


def _render_rows(rows: NDArray[np.uint8], indent: str) -> str:
    """A line for each row of (rows, columns), the numbers below one another."""
    return "\n".join(f"{indent}{{{', '.join(f'{value:3}' for value in row)}}}," for row in rows.tolist())
