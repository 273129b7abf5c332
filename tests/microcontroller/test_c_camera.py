"""The C camera code makes of a frame the bytes that ingest makes of the same image, whatever its size and format."""

import re
import subprocess

import numpy as np
import pytest
from PIL import Image, ImageOps

from stages.lib.data.image_decoding import find_background, fit_image
from stages.lib.microcontroller.c_program import MISSING_COMPILER, find_compiler
from stages.lib.microcontroller.device_sources import render_device_sources

COMPILER = find_compiler()
pytestmark = pytest.mark.skipif(COMPILER is None, reason=MISSING_COMPILER)
STRICT = ["-std=c99", "-pedantic", "-Wall", "-Wextra", "-Wconversion", "-Wsign-conversion", "-Werror"]
SANITIZERS = ["-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
FORMATS = ["GREY", "RGB888", "BGR888", "RGB565_BIG", "RGB565_LITTLE", "YUYV", "UYVY"]
SHAPES = [(28, 28), (13, 20), (28, 28, 3), (24, 9, 3)]
FRAMES_OF_EACH = 60  # for each format and shape: 1,680 in all
# What a sensor gives, and shapes at which something begins or ends: lines, single pixels, the model's own size.
SIZES = [(1, 1), (1, 9), (9, 1), (28, 28), (20, 13), (13, 20), (16, 24), (160, 120), (176, 144), (240, 320), (320, 240)]
# Widths and heights of frames whose height in 28 rows ends in a half.
ROUNDED_UP = [(56, 29), (112, 58), (168, 87)]
# Reads frames, each behind its format, width, height, stride, and whether it is cropped and inverted; writes the pixels
# behind whether the frame's background is other than in training. Memory has the size that the header names.
MAIN = """
#include "camera.h"
#include <stdio.h>
#include <stdlib.h>
int main(void) {
    uint32_t given[6];
    while (fread(given, sizeof given, 1, stdin) == 1) {
        const size_t size = (size_t)given[3] * given[2];
        uint8_t *const bytes = malloc(size), *const pixels = malloc(CLASSIFIER_PIXEL_BYTES);
        int32_t *const scratch = malloc(sizeof(int32_t) * CAMERA_SCRATCH_WORDS((size_t)given[1], (size_t)given[2]));
        struct camera_frame frame = {bytes, given[3], (uint16_t)given[1], (uint16_t)given[2],
                                     (enum camera_format)given[0], 0};
        if (fread(bytes, 1, size, stdin) != size)
            return 1;
        if (given[4])
            camera_crop(&frame);
        putchar(camera_must_invert(&frame));
        frame.is_negative = (int)given[5];
        if (camera_fit(&frame, pixels, scratch) != 1)
            return 2;
        fwrite(pixels, 1, CLASSIFIER_PIXEL_BYTES, stdout);
        free(bytes);
        free(pixels);
        free(scratch);
    }
    return 0;
}
"""


def render(image_shape, background="dark"):
    """The camera code for such a model, and what it needs of the classifier's header."""
    height, width, channels = (*image_shape, 1)[:3]
    sizes = {"HEIGHT": height, "WIDTH": width, "CHANNELS": channels, "PIXEL_BYTES": height * width * channels}
    defined = [f"#define CLASSIFIER_{name} {size}" for name, size in sizes.items()]
    return {**render_device_sources(background), "classifier.h": "\n".join(["#include <stdint.h>", *defined, ""])}


def compile_and_run(folder, sources, main, given, flags=()):
    """What a program of these sources answers to the bytes."""
    for name, text in {**sources, "main.c": main}.items():
        (folder / name).write_text(text)
    parts = ["main.c"] if '#include "camera.c"' in main else ["main.c", "camera.c"]
    subprocess.run([COMPILER, *STRICT, *flags, *parts, "-o", "program"], cwd=folder, check=True)
    done = subprocess.run([folder / "program"], input=given, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    return done.stdout


def make_frame(draws, kind, size):
    """The bytes (H, W, bytes of a pixel) of a made-up frame, and the image that it shows, as Pillow holds it."""
    width, height = size
    rows, columns = np.mgrid[:height, :width]
    waves = 128 + 127 * np.sin(rows[..., np.newaxis] * draws.uniform(0, 2, 3) + columns[..., np.newaxis] * 0.3)
    noise = draws.integers(0, 256, (height, width, 3))
    values = np.where(draws.random() < 0.5, waves, noise) * draws.uniform(0.2, 1) + draws.integers(0, 50)
    colours = values.clip(0, 255).astype(np.uint8)
    if kind == "GREY":
        return colours[..., :1], Image.fromarray(colours[..., 0])
    if kind in ("RGB888", "BGR888"):
        return colours[..., :: 1 if kind == "RGB888" else -1], Image.fromarray(colours)
    if kind in ("YUYV", "UYVY"):
        both = colours[..., :2]  # luma, chroma
        return both[..., :: 1 if kind == "YUYV" else -1], Image.fromarray(both[..., 0].copy())
    red, green, blue = (colours[..., index].astype(np.uint16) >> bits for index, bits in enumerate((3, 2, 3)))
    packed = red << 11 | green << 5 | blue
    shown = np.stack([red << 3 | red >> 2, green << 2 | green >> 4, blue << 3 | blue >> 2], axis=-1).astype(np.uint8)
    order = ">u2" if kind == "RGB565_BIG" else "<u2"
    return packed.astype(order)[..., np.newaxis].view(np.uint8), Image.fromarray(shown)


def crop(image, image_shape):
    """The largest window at the image's centre that has the model's proportions."""
    height, width = image_shape[:2]
    wide, high = image.height * width // height, image.width * height // width
    if 0 < wide < image.width:
        left = (image.width - wide) // 2
        return image.crop((left, 0, left + wide, image.height))
    if 0 < high < image.height:
        top = (image.height - high) // 2
        return image.crop((0, top, image.width, top + high))
    return image


def make_cases(kind, image_shape, sizes):
    """Frames as the program reads them, and what it must answer: all by ingest's own functions."""
    draws = np.random.default_rng(FORMATS.index(kind))
    is_grey = len(image_shape) == 2
    given, expected = [], []
    for index, size in enumerate(sizes):
        frame, image = make_frame(draws, kind, size)
        is_cropped, is_negative = index % 2, is_grey and index % 3 == 0
        padded = np.pad(frame, [(0, 0), (0, int(draws.integers(0, 3))), (0, 0)], constant_values=255)
        head = [FORMATS.index(kind), *size, padded[0].size, is_cropped, is_negative]
        given += [np.array(head, np.uint32).tobytes(), padded.tobytes()]
        image = crop(image, image_shape) if is_cropped else image
        image = image.convert("L" if is_grey else "RGB")
        must_invert = is_grey and find_background(np.asarray(image)[np.newaxis]) != "dark"
        image = ImageOps.invert(image) if is_negative else image
        expected.append(bytes([must_invert]) + fit_image(image, image_shape[:2]).tobytes())
    return b"".join(given), b"".join(expected)


def draw_sizes(count):
    """Widths and heights of frames: some that sensors have, the others anything, small ones more often."""
    draws = np.random.default_rng(0)
    drawn = [tuple(map(int, np.exp(draws.uniform(0, np.log(330), 2)))) for _ in range(count - len(SIZES))]
    return [*SIZES, *drawn]


@pytest.mark.parametrize("image_shape", SHAPES)
def test_frame_becomes_what_ingest_makes_of_it(image_shape, tmp_path):
    """Every byte, of frames of any size and format, cropped or not, inverted or not; memory is watched at its ends."""
    cases = {kind: make_cases(kind, image_shape, draw_sizes(FRAMES_OF_EACH)) for kind in FORMATS}
    given, expected = (b"".join(parts) for parts in zip(*cases.values(), strict=True))
    answers = np.frombuffer(compile_and_run(tmp_path, render(image_shape), MAIN, given, SANITIZERS), np.uint8)
    is_different = (answers != np.frombuffer(expected, np.uint8)).reshape(len(FORMATS), -1)

    assert dict(zip(FORMATS, is_different.sum(axis=1), strict=True)) == dict.fromkeys(FORMATS, 0)


def test_rounding_of_a_side_is_that_of_doubles(tmp_path):
    """Where a side would end in a half of a pixel, the roundings of Python's doubles decide, and so they do here."""
    given, expected = b"", b""
    for size in ROUNDED_UP:
        image = Image.fromarray(np.random.default_rng(0).integers(0, 100, size[::-1], np.uint8))
        given += np.array([0, *size, size[0], 0, 0], np.uint32).tobytes() + image.tobytes()
        expected += b"\0" + fit_image(image, (28, 28)).tobytes()
    heights = [round(height / width * 28) for width, height in ROUNDED_UP]

    assert heights == [15] * len(ROUNDED_UP)  # 14 is even
    assert compile_and_run(tmp_path, render((28, 28)), MAIN, given, SANITIZERS) == expected


def compute_weights(inputs, outputs):
    """The bicubic weights of each output as Pillow computes them: in doubles, then as whole numbers of 22 bits.

    Source: precompute_coeffs and normalize_coeffs_8bpc in Pillow's src/libImaging/Resample.c.
    """
    scale = max(inputs / outputs, 1)
    centres = (np.arange(outputs)[:, np.newaxis] + 0.5) * (inputs / outputs)
    distances = np.abs((np.arange(inputs) - centres + 0.5) / scale)
    near = (1.5 * distances - 2.5) * distances * distances + 1
    far = (((distances - 5) * distances + 8) * distances - 4) * -0.5
    weights = np.where(distances < 1, near, np.where(distances < 2, far, 0))
    shares = weights / weights.sum(axis=1, keepdims=True) * (1 << 22)
    return np.trunc(shares + np.copysign(0.5, shares)).astype(np.int32)


def test_weights_are_those_of_pillow(tmp_path):
    """Whole numbers give each weight that doubles give, from a side of one pixel to one of the largest frames."""
    main = """
#include "camera.c"
#include <stdio.h>
#include <string.h>
int main(void) {
    uint32_t given[2];
    static int32_t weights[CAMERA_MOST_PIXELS], row[CAMERA_MOST_PIXELS];
    while (fread(given, sizeof given, 1, stdin) == 1) {
        for (uint32_t output = 0; output < given[1]; output++) {
            int32_t first, count;
            compute_weights(given[0], given[1], output, &first, &count, weights);
            memset(row, 0, sizeof row);
            memcpy(row + first, weights, (size_t)count * sizeof *row);
            fwrite(row, sizeof *row, given[0], stdout);
        }
    }
    return 0;
}
"""
    sides = [(inputs, outputs) for outputs in (1, 8, 21, 28, 64) for inputs in (*range(1, 200), 240, 320, 640, 8192)]
    written = compile_and_run(tmp_path, render((28, 28)), main, np.array(sides, np.uint32).tobytes())
    expected = np.concatenate([compute_weights(*pair).ravel() for pair in sides])

    np.testing.assert_array_equal(np.frombuffer(written, np.int32), expected)


@pytest.mark.parametrize(
    ("image_shape", "background", "expected"),
    [((6, 8), "dark", [0, 0, 1]), ((6, 8), "light", [1, 1, 0]), ((6, 8, 3), None, [0, 0, 0])],
)
def test_frame_is_inverted_if_its_border_is_unlike_that_of_training(image_shape, background, expected, tmp_path):
    """By the median grey level of the border, from 128 on light; no colour frame is inverted."""
    frames = [np.full((6, 8), level, np.uint8) for level in (0, 127, 128)]
    given = b"".join(np.array([0, 8, 6, 8, 0, 0], np.uint32).tobytes() + frame.tobytes() for frame in frames)
    answers = compile_and_run(tmp_path, render(image_shape, background), MAIN, given)

    assert list(answers[:: 1 + int(np.prod(image_shape))]) == expected


@pytest.mark.parametrize("size", [(0, 5), (5, 0), (8193, 5), (5, 8193)])
def test_frame_of_a_size_out_of_range_is_refused(size, tmp_path):
    """Nothing is read or written, and 0 returned."""
    main = """
#include "camera.h"
#include <stdio.h>
int main(void) {
    uint32_t size[2];
    struct camera_frame frame = {NULL, 0, 0, 0, CAMERA_GREY, 0};
    if (fread(size, sizeof size, 1, stdin) != 1)
        return 1;
    frame.width = (uint16_t)size[0];
    frame.height = (uint16_t)size[1];
    return putchar('0' + camera_fit(&frame, NULL, NULL)) == EOF;
}
"""
    given = np.array(size, np.uint32).tobytes()

    assert compile_and_run(tmp_path, render((28, 28)), main, given, ["-Wno-nonnull"]) == b"0"


def test_source_has_no_floats_no_heap_and_no_library():
    """It may run where there is neither a floating-point unit nor a heap, and needs no header of a C library's own."""
    sources = render((28, 28))
    code = re.sub(r"/\*.*?\*/", "", sources["camera.c"] + sources["camera.h"], flags=re.DOTALL)

    assert not re.search(r"\b(float|double|malloc|free|memset|memcpy)\b", code)
    assert re.findall(r"#include <(.*)>", code) == ["stddef.h"]
