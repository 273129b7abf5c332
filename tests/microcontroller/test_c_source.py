"""The C source holds the model, its numbers and its names, byte for byte, for compilers of C and of C++."""

import re
import shutil
import subprocess

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter
from ai_edge_litert.tools.flatbuffer_utils import convert_bytearray_to_object, convert_object_to_bytearray
from samples import CLASS_NAMES, IMAGE_SIZE, make_split, run_python

from stages.lib.core.errors import ExportError
from stages.lib.data.normalization import Normalization
from stages.lib.exports.conversion import calibrate, convert_to_int8_tflite, convert_to_tflite, fold_normalization
from stages.lib.exports.model_metadata import add_tflite_metadata
from stages.lib.microcontroller.c_source import list_operators, render_c_golden, render_c_model
from stages.lib.model.deterministic_tensorflow import keras
from stages.lib.model.network import Architecture, build_network

ARENA_BYTES = 2064
WARNINGS = ["-Wall", "-Wextra", "-Werror", "-pedantic"]
IMAGES = make_split(12, seed=3).images
COLOUR_IMAGES = np.stack([IMAGES, IMAGES[:, ::-1], IMAGES // 2], axis=-1)
ANSWERS = np.random.default_rng(0).integers(0, 256, (12, 3), np.uint8)
# The converter's own, one that needs nine digits, and the ends of what a float32 holds.
SCALES = [None, 0.0134473005, 1 / 3, 1e-5, 3.4028235e38, 1.1754944e-38, 1e-45]

# The header's numbers, a line each; a float as its exact value, with the size of its type.
NUMBERS_MAIN = """
#include <stdio.h>
#include "model_int8.h"
int main(void) {
    printf("%d\\n%d\\n", MODEL_INT8_INPUT_HEIGHT, MODEL_INT8_INPUT_WIDTH);
    printf("%d\\n%d\\n", MODEL_INT8_INPUT_CHANNELS, MODEL_INT8_CLASS_COUNT);
    printf("%a\\n%d\\n", (double)MODEL_INT8_INPUT_SCALE, MODEL_INT8_INPUT_ZERO_POINT);
    printf("%a\\n%d\\n", (double)MODEL_INT8_OUTPUT_SCALE, MODEL_INT8_OUTPUT_ZERO_POINT);
    printf("%d\\n%d\\n", (int)sizeof(MODEL_INT8_INPUT_SCALE), (int)sizeof(MODEL_INT8_OUTPUT_SCALE));
    return 0;
}
"""
# The class names as they lie in memory, each with the NUL that ends it.
NAMES_MAIN = """
#include <stdio.h>
#include <string.h>
#include "model_int8.h"
int main(void) {
    for (int label = 0; label < MODEL_INT8_CLASS_COUNT; label++) {
        fwrite(model_int8_class_names[label], 1, strlen(model_int8_class_names[label]) + 1, stdout);
    }
    return 0;
}
"""
BYTES_MAIN = """
#include <stdio.h>
#include "model_int8.h"
int main(void) {
    return fwrite(model_int8, 1, MODEL_INT8_BYTES, stdout) != MODEL_INT8_BYTES;
}
"""
# The source is included, for only there is the array's size known. The compiler is asked for the alignment that the
# array was declared with: it may give an array more by itself.
DEFINITION_MAIN = """
#include <stdint.h>
#include <stdio.h>
#include "model_int8.inc"
int main(void) {
    printf("%d %d ", (int)__extension__ __alignof__(model_int8), (int)((uintptr_t)model_int8 % 16));
    printf("%d %d\\n", (int)sizeof(model_int8), (int)(sizeof(model_int8_class_names) / sizeof(char *)));
    return 0;
}
"""
# The macro must be one statement, of any expression that names a resolver. The C names are declared once more, which
# a compiler of C++ refuses if the header did not say that they are C's.
RESOLVER_MAIN = """
#include <cstdio>
#include <string>
#include "model_int8.h"
extern "C" const unsigned char model_int8[];
extern "C" const char *const model_int8_class_names[];
struct Resolver {
    std::string calls;
    void AddFullyConnected() { calls += " AddFullyConnected"; }
    void AddQuantize() { calls += " AddQuantize"; }
    void AddReshape() { calls += " AddReshape"; }
    void AddSoftmax() { calls += " AddSoftmax"; }
};
int main() {
    Resolver resolver, *pointer = &resolver;
    if (model_int8[4] == 'T')
        MODEL_INT8_REGISTER_OPERATORS(*pointer);
    else
        return 1;
    std::printf("%d%s %s\\n", MODEL_INT8_OPERATOR_COUNT, resolver.calls.c_str(), model_int8_class_names[0]);
}
"""
ARENA_MAIN = """
#include <stdio.h>
#include "model_int8.h"
int main(void) {
    printf("%d\\n", MODEL_INT8_ARENA_BYTES);
    return 0;
}
"""
# The header's counts in the first line, then its arrays as they lie in memory.
GOLDEN_MAIN = """
#include "golden.h"
#include <stdio.h>
int main(void) {
    printf("%d %d ", GOLDEN_IMAGE_COUNT, GOLDEN_IMAGE_HEIGHT);
    printf("%d %d ", GOLDEN_IMAGE_WIDTH, GOLDEN_IMAGE_CHANNELS);
    printf("%d %d\\n", GOLDEN_CLASS_COUNT, GOLDEN_TOLERANCE);
    fwrite(golden_images, 1, sizeof(golden_images), stdout);
    fwrite(golden_answers, 1, sizeof(golden_answers), stdout);
    return 0;
}
"""


@pytest.fixture(scope="module")
def pixel_network():
    """A network that nobody trained, for raw pixels."""
    keras.utils.set_random_seed(0)
    network = build_network(IMAGE_SIZE, Architecture((4,)), 3, "softmax")
    return fold_normalization(network, Normalization((0.0,), (255.0,)))


@pytest.fixture(scope="module")
def content(pixel_network):
    """The network as an int8 .tflite file."""
    return add_tflite_metadata(
        convert_to_int8_tflite(pixel_network, calibrate(pixel_network, IMAGES)), {"class_names": CLASS_NAMES}
    )


@pytest.fixture(scope="module")
def texts(content):
    """The network as C source."""
    return render_c_model(content, CLASS_NAMES, "dark", ARENA_BYTES)


def compile_file(path, standard, *arguments):
    """What a compiler of this machine makes of a file; any warning fails."""
    name = "c++" if standard.startswith("c++") else "cc"
    compiler = shutil.which(name)
    if compiler is None:
        pytest.skip(f"no {name} on this machine to compile the C source with")
    command = [compiler, f"-std={standard}", *WARNINGS, str(path), *map(str, arguments)]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert result.returncode == 0, result.stderr


def run_program(folder, texts, main, standard="c11"):
    """The bytes that a program prints which is made of the C source and of `main`, written in `standard`."""
    objects = []
    for name, text in texts.items():
        (folder / name).write_bytes(text.encode("ascii"))
    for source in [name for name in texts if name.endswith(".c")]:
        objects.append((folder / source).with_suffix(".o"))
        compile_file(folder / source, "c11", "-c", "-o", objects[-1])
    main_path = folder / ("main.cpp" if standard.startswith("c++") else "main.c")
    main_path.write_text(main, encoding="ascii")
    compile_file(main_path, standard, *objects, "-o", folder / "program")
    return subprocess.run([folder / "program"], capture_output=True, check=True, timeout=120).stdout


def change(content, edit):
    """A .tflite file with something in it changed."""
    model = convert_bytearray_to_object(bytearray(content))
    edit(model)
    return bytes(convert_object_to_bytearray(model))


def rescale(content, scale):
    """A .tflite file with this scale for its input, another for its output, and unlike zero points."""

    def edit(model):
        (graph,) = model.subgraphs
        (images,), (probabilities,) = graph.inputs, graph.outputs
        for index, factor, zero_point in ((images, 1, 3), (probabilities, 0.7, 255)):
            quantization = graph.tensors[index].quantization
            quantization.scale, quantization.zeroPoint = [np.float32(scale * factor)], [zero_point]

    return change(content, edit)


def test_compiled_array_is_the_file(texts, content, tmp_path):
    """A compiled program holds the .tflite file, byte for byte, and knows its length."""
    assert run_program(tmp_path, texts, BYTES_MAIN) == content


def test_array_is_aligned_and_of_its_size(texts, content, tmp_path):
    """The array is aligned to 16 bytes, as the file's weights ask for, and ends with the file; a name per class."""
    included = {"model_int8.h": texts["model_int8.h"], "model_int8.inc": texts["model_int8.c"]}
    found = run_program(tmp_path, included, DEFINITION_MAIN)

    assert found.decode().split() == ["16", "0", str(len(content)), str(len(CLASS_NAMES))]


def test_source_compiles_as_cplusplus(texts, tmp_path):
    """A compiler of C++ takes the .c file, too: some firmware has all of its files renamed to .cpp."""
    included = {"model_int8.h": texts["model_int8.h"], "model_int8.inc": texts["model_int8.c"]}
    main = '#include "model_int8.inc"\n' + NAMES_MAIN

    assert run_program(tmp_path, included, main, "c++11").split(b"\0")[:-1] == [name.encode() for name in CLASS_NAMES]


@pytest.mark.parametrize("standard", ["c99", "c11", "c++11", "c++17"])
@pytest.mark.parametrize("scale", SCALES)
def test_numbers_are_those_of_the_file(content, tmp_path, standard, scale):
    """Sizes, scales and zero points are what LiteRT reads from the file, scales to the last bit of a float32."""
    file = content if scale is None else rescale(content, scale)
    interpreter = Interpreter(model_content=file)
    (images,), (probabilities,) = interpreter.get_input_details(), interpreter.get_output_details()
    texts = render_c_model(file, CLASS_NAMES, "dark", ARENA_BYTES)
    *sizes, input_scale, input_zero, output_scale, output_zero, input_bytes, output_bytes = (
        run_program(tmp_path, texts, NUMBERS_MAIN, standard).decode().split()
    )

    assert [int(size) for size in sizes] == [*images["shape"][1:], 1, *probabilities["shape"][1:]]
    assert (float.fromhex(input_scale), int(input_zero)) == images["quantization"]
    assert (float.fromhex(output_scale), int(output_zero)) == probabilities["quantization"]
    assert (int(input_bytes), int(output_bytes)) == (4, 4)


@pytest.mark.parametrize("standard", ["c++11", "c++17"])
def test_cplusplus_registers_each_operator_once(texts, content, tmp_path, standard):
    """The macro calls a resolver's method for each operator of the file, once, and their count fits."""
    printed = run_program(tmp_path, texts, RESOLVER_MAIN, standard).decode().split()

    assert list_operators(content) == ["QUANTIZE", "RESHAPE", "FULLY_CONNECTED", "SOFTMAX"]
    assert printed == ["4", "AddQuantize", "AddReshape", "AddFullyConnected", "AddSoftmax", CLASS_NAMES[0]]


def test_operators_are_those_of_the_file(pixel_network):
    """Another file has its own operators, in its own order."""
    assert list_operators(convert_to_tflite(pixel_network)) == ["CAST", "RESHAPE", "FULLY_CONNECTED", "SOFTMAX"]


@pytest.mark.parametrize(
    ("operator", "method"),
    [("CONV_2D", "AddConv2D"), ("GATHER_ND", "AddGatherNd"), ("RELU6", "AddRelu6"), ("TANH", "AddTanh")],
)
def test_method_is_named_as_tensorflow_lite_micro_names_it(content, operator, method):
    """Words begin with capitals, and so does what follows a digit."""

    def swap_operator(model):
        codes = [code for code in model.operatorCodes if code.builtinCode == schema.BuiltinOperator.SOFTMAX]
        for code in codes:
            code.builtinCode = getattr(schema.BuiltinOperator, operator)

    header = render_c_model(change(content, swap_operator), CLASS_NAMES, "dark", None)["model_int8.h"]

    assert re.findall(r"\(resolver\)\.(\w+)\(\);", header)[-1] == method


@pytest.mark.parametrize(
    "name",
    [
        "",
        " ",
        "Größe",
        "数字",
        "😀",
        'say "no"',
        "it's",
        "back\\slash",
        "\\",
        "\\n",
        "trigraph ??/",
        "??=??'??!",
        "*/ end of a comment /*",
        "// a comment \\",
        "two\nlines",
        "\r\n\t\v\a\x1f\x7f",
        "é1",
        "éf",
        "\x017",
        "%s%n%%",
        "0" * 300,
        "a byte that is no UTF-8: \udce9",
    ],
)
def test_class_name_comes_through_as_utf8(content, tmp_path, name):
    """Whatever a class is called, C has the bytes of its name, and its neighbours theirs."""
    names = ["left", name, "right"]
    texts = render_c_model(content, names, "dark", ARENA_BYTES)
    printed = run_program(tmp_path, texts, NAMES_MAIN)

    assert re.fullmatch(r"[ -~\n]+\n", texts["model_int8.c"])
    assert printed == b"".join(name.encode(errors="surrogateescape") + b"\0" for name in names)


def test_arena_is_a_macro(content, tmp_path):
    """The arena's size is a number that a program can declare its memory with, and the header says what it is of."""
    texts = render_c_model(content, CLASS_NAMES, "dark", ARENA_BYTES)

    assert run_program(tmp_path, texts, ARENA_MAIN).decode().strip() == str(ARENA_BYTES)
    assert "64-bit host" in texts["model_int8.h"]


@pytest.mark.parametrize("standard", ["c99", "c11", "c++11"])
def test_golden_arrays_are_images_and_answers(tmp_path, standard):
    """A compiled program holds images and answers byte for byte, in order, and knows their counts."""
    printed = run_program(tmp_path, render_c_golden(IMAGES, ANSWERS, 2), GOLDEN_MAIN, standard)

    assert printed == b"12 6 8 1 3 2\n" + IMAGES.tobytes() + ANSWERS.tobytes()


@pytest.fixture(scope="module")
def colour_content():
    """A convolutional network for colour images, which nobody trained, as an int8 .tflite file."""
    keras.utils.set_random_seed(0)
    network = build_network((*IMAGE_SIZE, 3), Architecture((), ((4,),)), 3, "softmax")
    pixel_network = fold_normalization(network, Normalization((0.0,) * 3, (255.0,) * 3))
    return convert_to_int8_tflite(pixel_network, calibrate(pixel_network, COLOUR_IMAGES))


@pytest.mark.parametrize("standard", ["c99", "c11", "c++11"])
def test_golden_arrays_hold_colour_images(tmp_path, standard):
    """The same of images whose pixels have three bytes each."""
    printed = run_program(tmp_path, render_c_golden(COLOUR_IMAGES, ANSWERS, 2), GOLDEN_MAIN, standard)

    assert printed == b"12 6 8 3 3 2\n" + COLOUR_IMAGES.tobytes() + ANSWERS.tobytes()


def test_header_of_a_colour_model_tells_its_channels(colour_content, tmp_path):
    """Three channels, in which order, and no word of a background, which colour has none of."""
    texts = render_c_model(colour_content, CLASS_NAMES, None, ARENA_BYTES)
    sizes = run_program(tmp_path, texts, NUMBERS_MAIN).decode().split()[:4]

    assert sizes == ["6", "8", "3", "3"]
    assert "red, green and blue of each pixel, 0..255" in texts["model_int8.h"]
    assert "background" not in texts["model_int8.h"]
    assert "grey" not in texts["model_int8.h"]


def test_convolution_registers_its_operators(colour_content, tmp_path):
    """The macro registers convolution and pooling where the file has them."""
    texts = render_c_model(colour_content, CLASS_NAMES, None, ARENA_BYTES)
    resolver = RESOLVER_MAIN.replace(
        "    void AddFullyConnected",
        '    void AddConv2D() { calls += " AddConv2D"; }\n    void AddMaxPool2D() { calls += " AddMaxPool2D"; }\n'
        "    void AddFullyConnected",
    )
    printed = run_program(tmp_path, texts, resolver, "c++11").decode().split()[:-1]

    assert printed == ["6", "AddQuantize", "AddConv2D", "AddMaxPool2D", "AddReshape", "AddFullyConnected", "AddSoftmax"]


def test_golden_header_needs_nothing_but_stdint():
    """Firmware without a file system or a C library can include the golden header."""
    text = render_c_golden(IMAGES, ANSWERS, 2)["golden.h"]

    assert re.findall(r"#include (.*)", text) == ["<stdint.h>"]


def test_headers_can_be_included_twice(texts, tmp_path):
    """Two parts of a firmware can include the same headers, and one part can do so twice."""
    part = {"part.c": '#include "golden.h"\n#include "model_int8.h"\n'}
    # A compiler refuses a macro that comes back with another value.
    other = "#undef {0}\n#define {0} 0\n"
    main = (
        f'#include "golden.h"\n{other.format("GOLDEN_TOLERANCE")}'
        f'#include "model_int8.h"\n{other.format("MODEL_INT8_BYTES")}#include "model_int8.h"\n{GOLDEN_MAIN}'
    )

    assert run_program(tmp_path, texts | render_c_golden(IMAGES, ANSWERS, 2) | part, main).startswith(b"12 6 8 1 3 0\n")


def test_text_is_plain_and_ends_its_lines(texts):
    """All texts are printable ASCII with newlines alone, none of it space at the end of a line."""
    for text in (texts | render_c_golden(IMAGES, ANSWERS, 2)).values():
        assert re.fullmatch(r"[ -~\n]+\n", text)
        assert not re.search(r" $", text, re.MULTILINE)


def test_array_has_twelve_bytes_a_line(texts, content):
    """The file's bytes are written as 0x00, twelve to a line, so that two versions can be compared by line."""
    lines = re.findall(r"^    (0x.*)$", texts["model_int8.c"], re.MULTILINE)
    count, rest = divmod(len(content), 12)

    assert all(re.fullmatch(r"(0x[0-9a-f]{2}, ){11}0x[0-9a-f]{2},", line) for line in lines[:count])
    assert [line.count(",") for line in lines[count:]] == ([rest] if rest else [])


def test_source_is_the_same_bytes_again(texts, content, tmp_path):
    """Another process renders the same bytes from the same file, and loads no TensorFlow for it."""
    (tmp_path / "model.tflite").write_bytes(content)
    program = (
        "import sys, pathlib; from stages.lib.microcontroller.c_source import render_c_model;"
        "content = pathlib.Path('model.tflite').read_bytes();"
        f"print(*render_c_model(content, {CLASS_NAMES}, 'dark', {ARENA_BYTES}).values(), sep='', end='');"
        "print('tensorflow' in sys.modules, end='')"
    )
    other = run_python("-c", program, cwd=tmp_path, PYTHONHASHSEED="1")

    assert other.stdout == "".join(texts.values()) + "False", other.stderr
    assert render_c_golden(IMAGES, ANSWERS, 2) == render_c_golden(IMAGES.copy(), ANSWERS.copy(), 2)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["left", "right"], "expected 3 class names, got 2"),
        (["left", "middle", "right", "up"], "expected 3 class names, got 4"),
        (["left", "mid\0dle", "right"], r"the class name 'mid\x00dle' holds a NUL"),
    ],
)
def test_names_that_do_not_fit_are_refused(content, names, message):
    """Too few or too many names, or one that C would cut off, end in one line."""
    with pytest.raises(ExportError) as refusal:
        render_c_model(content, names, "dark", ARENA_BYTES)

    assert refusal.value.problem == message


@pytest.mark.parametrize("port", ["inputs", "outputs"])
def test_signed_input_or_output_is_refused(content, port):
    """A model that takes or gives int8 is no model for firmware that has bytes 0..255."""

    def make_signed(model):
        (graph,) = model.subgraphs
        (index,) = getattr(graph, port)
        graph.tensors[index].type = schema.TensorType.INT8

    with pytest.raises(ExportError) as refusal:
        render_c_model(change(content, make_signed), CLASS_NAMES, "dark", ARENA_BYTES)

    assert refusal.value.expected == "quantized uint8 as the model's input and output"


def test_float_model_is_refused(pixel_network):
    """A model of floats has no scales that a header could hold."""
    with pytest.raises(ExportError) as refusal:
        render_c_model(convert_to_tflite(pixel_network), CLASS_NAMES, "dark", ARENA_BYTES)

    assert refusal.value.expected == "quantized uint8 as the model's input and output"


@pytest.mark.parametrize("background", ["dark", "light"])
def test_header_tells_the_background(content, background):
    """Whose camera sees dark on light learns from the header that the model saw the opposite, or not."""
    header = render_c_model(content, CLASS_NAMES, background, ARENA_BYTES)["model_int8.h"]

    assert f"on a {background} background" in header
