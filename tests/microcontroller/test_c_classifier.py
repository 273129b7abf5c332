"""The C99 classifier compiles without a warning, and answers what the integer reference answers, to the bit."""

import re
import subprocess
from itertools import pairwise

import numpy as np
import pytest
from int8_models import CONVOLUTIONS, IMAGES, NETWORKS, make_convolutional, make_int8

from stages.lib.core.errors import ExportError
from stages.lib.microcontroller.c_classifier import render_classifier
from stages.lib.microcontroller.c_program import MISSING_COMPILER, find_compiler, run_classifier
from stages.lib.microcontroller.integer_network import read_network
from stages.lib.microcontroller.integer_reference import IntegerReference

COMPILER = find_compiler()
pytestmark = pytest.mark.skipif(COMPILER is None, reason=MISSING_COMPILER)
STRICT = ["-std=c99", "-pedantic", "-Wall", "-Wextra", "-Wconversion", "-Wsign-conversion", "-Werror"]
SANITIZERS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
# Reads pairs of a product and a shift, writes each product rounded.
ROUNDING_MAIN = """
#include "classifier.c"
#include <stdio.h>
int main(void) {
    struct { uint64_t sum, multiplier, shift; } given;
    while (fread(&given, sizeof given, 1, stdin) == 1) {
        uint64_t rounded = round_product(
            round_to_float32((uint32_t)given.sum) * given.multiplier, (unsigned)given.shift);
        fwrite(&rounded, sizeof rounded, 1, stdout);
    }
    return 0;
}
"""


def render(content, background="dark"):
    network = read_network(content)
    return render_classifier(network, [f"class {index}" for index in range(network.class_count)], background)


def compile_and_run(folder, sources, main, given, flags=STRICT):
    """What a program of these sources answers to the bytes."""
    for name, text in {**sources, "main.c": main}.items():
        (folder / name).write_text(text)
    parts = ["main.c"] if '#include "classifier.c"' in main else ["main.c", "classifier.c"]
    subprocess.run([COMPILER, *flags, *parts, "-o", "program"], cwd=folder, check=True)
    done = subprocess.run([folder / "program"], input=given, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    return done.stdout


@pytest.mark.parametrize(("hidden_units", "factor"), NETWORKS)
def test_dense_network_answers_as_the_reference(hidden_units, factor):
    """Every byte, whatever the network and the images."""
    content = make_int8(hidden_units, factor)
    answers = run_classifier(COMPILER, render(content), IMAGES, 3)

    np.testing.assert_array_equal(answers, IntegerReference(content).answer(IMAGES), strict=True)


@pytest.mark.parametrize(("image_shape", "conv_blocks", "hidden_units"), CONVOLUTIONS)
def test_convolutional_network_answers_as_the_reference(image_shape, conv_blocks, hidden_units):
    """Convolution, pooling and colour, with rows that no pooling takes and groups of units that are not full."""
    content, images = make_convolutional(image_shape, conv_blocks, hidden_units)
    answers = run_classifier(COMPILER, render(content), images, 10)

    np.testing.assert_array_equal(answers, IntegerReference(content).answer(images), strict=True)


@pytest.mark.parametrize("optimization", ["-O0", "-O3"])
def test_no_warning_and_no_undefined_behaviour(tmp_path, optimization):
    """Strict flags say nothing, and neither do the sanitizers of addresses and of undefined behaviour."""
    content, images = make_convolutional(*CONVOLUTIONS[4])
    main = (
        '#include "classifier.h"\n#include <stdio.h>\n#include <stdlib.h>\n'
        "int main(void) {\n"
        "    uint8_t *pixels = malloc(CLASSIFIER_PIXEL_BYTES), *scratch = malloc(CLASSIFIER_SCRATCH_BYTES);\n"
        "    uint8_t *answers = malloc(CLASSIFIER_CLASS_COUNT);\n"
        "    while (fread(pixels, 1, CLASSIFIER_PIXEL_BYTES, stdin) == CLASSIFIER_PIXEL_BYTES) {\n"
        "        classifier_predict(pixels, answers, scratch);\n"
        "        fwrite(answers, 1, CLASSIFIER_CLASS_COUNT, stdout);\n"
        "    }\n"
        "    free(pixels); free(scratch); free(answers);\n    return 0;\n}\n"
    )
    # Each array has the size that the header names and is watched at both ends.
    answers = compile_and_run(tmp_path, render(content), main, images.tobytes(), [*STRICT, optimization, *SANITIZERS])

    assert answers == IntegerReference(content).answer(images).tobytes()


def test_product_is_rounded_as_float32_is(tmp_path):
    """A sum as a float32, times a float32, to the nearest whole number: halves that are so only after rounding, too."""
    draws = np.random.default_rng(0)
    sums = np.concatenate([draws.integers(0, 1 << bits, 40_000) for bits in range(1, 32)])
    multipliers = draws.integers(1 << 23, 1 << 24, len(sums))
    shifts = draws.integers(16, 50, len(sums))
    # Sums such that the product is next to a half: below, on, and above it.
    wholes = draws.integers(0, 256, 200_000)
    close_multipliers = draws.integers(1 << 23, 1 << 24, len(wholes))
    close_shifts = draws.integers(36, 48, len(wholes))
    close = ((2 * wholes + 1) << (close_shifts - 1)) // close_multipliers + draws.integers(-1, 2, len(wholes))
    # Halves themselves, and what is one only as a float32.
    few = draws.integers(1, 1 << 10, 50_000)
    sums = np.concatenate([sums, close.clip(0, (1 << 31) - 1), few, few])
    multipliers = np.concatenate([multipliers, close_multipliers, np.full(50_000, 1 << 23), np.full(50_000, 0x800001)])
    shifts = np.concatenate([shifts, close_shifts, draws.integers(24, 33, 50_000), draws.integers(24, 33, 50_000)])
    factors = np.ldexp(multipliers.astype(np.float32), -shifts)
    expected = np.rint(sums.astype(np.float32) * factors).astype(np.uint64)
    is_output = expected < 512  # more is cut off before it matters
    given = np.stack([sums, multipliers, shifts], axis=1).astype(np.uint64)[is_output]
    content = make_int8(*NETWORKS[0])
    rounded = np.frombuffer(
        compile_and_run(tmp_path, render(content), ROUNDING_MAIN, given.tobytes(), ["-O2"]), np.uint64
    )

    assert np.count_nonzero(is_output) > 500_000
    np.testing.assert_array_equal(rounded, expected[is_output])


def test_calls_do_not_depend_on_one_another(tmp_path):
    """Scratch memory may hold anything before a call."""
    content, images = make_convolutional(*CONVOLUTIONS[0])
    main = """
#include "classifier.h"
#include <stdio.h>
#include <string.h>
int main(void) {
    static CLASSIFIER_SCRATCH(scratch);
    uint8_t pixels[CLASSIFIER_PIXEL_BYTES], answers[CLASSIFIER_CLASS_COUNT];
    int fill = 0;
    while (fread(pixels, 1, sizeof pixels, stdin) == sizeof pixels) {
        memset(scratch, fill++ % 2 ? 0xff : 0x5a, sizeof scratch);
        classifier_predict(pixels, answers, scratch);
        fwrite(answers, 1, sizeof answers, stdout);
    }
    return 0;
}
"""
    answers = compile_and_run(tmp_path, render(content), main, images[:20].tobytes())

    assert answers == IntegerReference(content).answer(images[:20]).tobytes()


def test_class_is_the_first_with_the_largest_probability(tmp_path):
    """As NumPy's argmax finds it."""
    answers = np.array([[1, 2, 3], [3, 2, 1], [7, 7, 0], [0, 7, 7], [0, 0, 0]], np.uint8)
    main = """
#include "classifier.h"
#include <stdio.h>
int main(void) {
    uint8_t answers[CLASSIFIER_CLASS_COUNT];
    while (fread(answers, 1, sizeof answers, stdin) == sizeof answers)
        printf("%s\\n", classifier_class_names[classifier_find_class(answers)]);
    return 0;
}
"""
    said = compile_and_run(tmp_path, render(make_int8(*NETWORKS[0])), main, answers.tobytes())

    assert said.decode().splitlines() == [f"class {index}" for index in answers.argmax(axis=1)]


def test_source_has_no_floats_no_heap_and_no_wide_division():
    """It may run where there is neither a floating-point unit nor a heap."""
    source = render(make_convolutional(*CONVOLUTIONS[0])[0])["classifier.c"]
    code = re.sub(r"/\*.*?\*/", "", source[source.index("static void add_products") :], flags=re.DOTALL)

    assert not re.search(r"\b(float|double|malloc|free|int64_t|memcpy)\b", code)
    assert re.findall(r"[^\n]*[/%][^\n]*", code) == re.findall(r"[^\n]*(?:sum / 2\) / sum|% 2|sizeof)[^\n]*", code)
    assert re.findall(r"#include <(.*)>", source) == ["stddef.h"]


def test_header_says_what_the_images_are():
    """Grey on the background of training, or colours."""
    grey = render(make_int8(*NETWORKS[0]), "light")["classifier.h"]
    colour = render(make_convolutional(*CONVOLUTIONS[4])[0], None)["classifier.h"]

    assert "of each pixel the grey level 0..255, as a camera gives them, on a light background as in training." in grey
    assert "of each pixel red, green and blue 0..255, as a camera gives them." in colour
    assert "#define CLASSIFIER_CHANNELS 3" in colour


def test_memory_is_that_of_two_neighbouring_layers():
    """What one layer gives and the next one makes of it, never more."""
    content, _ = make_convolutional((24, 24), ((12, 12), (24, 24)), ())
    sizes = [22 * 22 * 12, 10 * 10 * 12, 8 * 8 * 24, 3 * 3 * 24, 10]
    expected = max(one + other for one, other in pairwise(sizes))

    assert f"#define CLASSIFIER_SCRATCH_BYTES {expected}\n" in render(content)["classifier.h"]


def test_compiler_that_fails_is_told_in_one_line(tmp_path, monkeypatch):
    """What it said first of an error, and what to do."""
    compiler = tmp_path / "cc"
    compiler.write_text("#!/bin/sh\necho 'hello\nx.c:1: error: no such thing\nmore' >&2\nexit 3\n")
    compiler.chmod(0o755)
    monkeypatch.setenv("CC", str(compiler))
    with pytest.raises(ExportError) as refusal:
        run_classifier(find_compiler(), render(make_int8(*NETWORKS[0])), IMAGES, 3)

    assert refusal.value.problem == "`cc` failed: x.c:1: error: no such thing"
    assert refusal.value.hint == "set CC to another compiler"


def test_names_that_are_not_as_many_as_classes_are_refused():
    """A name too few would shift nothing, but leave a class without one."""
    with pytest.raises(ExportError) as refusal:
        render_classifier(read_network(make_int8(*NETWORKS[0])), ["one", "two"], "dark")

    assert (refusal.value.expected, refusal.value.got) == ("3 class names", "2")


def test_sums_beyond_32_bits_are_refused():
    """Such weights and so many pixels that no 32-bit sum holds them."""
    network = read_network(make_int8((), 1))
    layer = network.layers[0]
    kernel = np.full((3, 1, 1, 70_000), 127, np.int8)
    large = network._replace(layers=(layer._replace(kernel=kernel, input_shape=(1, 1, 70_000)),))
    with pytest.raises(ExportError) as refusal:
        render_classifier(large, ["a", "b", "c"], "dark")

    assert refusal.value.expected == "sums of at most 2,147,483,647, which 32 bits hold"
