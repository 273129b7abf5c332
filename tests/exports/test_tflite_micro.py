"""TensorFlow Lite Micro answers for the int8 export, refuses the others, and says how much memory it takes."""

import re

import numpy as np
import pytest
from runs import describe_need
from samples import IMAGE_SIZE, NORMALIZATION, make_split, run_python

from stages.lib.data.normalization import Normalization
from stages.lib.exports.conversion import calibrate, convert_to_int8_tflite, fold_normalization
from stages.lib.exports.parity_matrix import NOT_FOR_MICRO, find_unsupported_reason
from stages.lib.exports.runtimes import load_content
from stages.lib.exports.tflite_micro import HAS_MICRO, MicroInterpreter, measure_arena
from stages.lib.microcontroller.arena import bound_arena
from stages.lib.model.deterministic_tensorflow import keras
from stages.lib.model.network import Architecture, build_network

if not HAS_MICRO:
    pytest.skip(describe_need("tflite_micro"), allow_module_level=True)

from tflite_micro.python.tflite_micro import runtime  # behind the question whether it is there

INT8 = "model_int8.tflite"
IMAGES = make_split(20, seed=3).images
# Its allocator hands out memory in pieces of this alignment (tflite::MicroArenaBufferAlignment).
ARENA_ALIGNMENT = 16
# Runs one image in an arena of the given size: a process of its own, for in one that is far too small it crashes.
ARENA_CODE = """
import sys
from pathlib import Path
import numpy as np
from tflite_micro.python.tflite_micro import runtime
content = Path(sys.argv[1]).read_bytes()
interpreter = runtime.Interpreter.from_bytes(content, arena_size=int(sys.argv[2]))
interpreter.set_input(np.zeros(interpreter.get_input_details(0)["shape"], np.uint8), 0)
interpreter.invoke()
print(interpreter.get_output(0).tolist())
"""


def make_int8(image_shape, hidden_units, class_count=3, conv_blocks=()):
    """The int8 export of a network that nobody trained; its biases are not zero, else the file would have none."""
    keras.utils.set_random_seed(0)
    network, draws = (
        build_network(image_shape, Architecture(hidden_units, conv_blocks), class_count, "softmax"),
        np.random.default_rng(0),
    )
    network.set_weights([weights + 0.1 * draws.random(weights.shape) for weights in network.get_weights()])
    normalization = NORMALIZATION if len(image_shape) == 2 else Normalization((40.0, 50.0, 60.0), (255.0, 60.0, 70.0))
    pixel_network = fold_normalization(network, normalization)
    images = draws.integers(0, 256, (10, *image_shape), np.uint8)
    return convert_to_int8_tflite(pixel_network, calibrate(pixel_network, images))


@pytest.mark.parametrize(("name", "reason"), NOT_FOR_MICRO.items())
def test_file_that_is_not_for_it_is_refused_by_the_operator_we_name(small_model, capfd, name, reason):
    """TensorFlow Lite Micro itself refuses these files, at loading or at the first image, for the reason we tell."""
    content = small_model.exports[name]
    with pytest.raises(RuntimeError):  # noqa: PT012  (which of the three refuses is the runtime's affair)
        interpreter = runtime.Interpreter.from_bytes(content, arena_size=1 << 20)
        interpreter.set_input(IMAGES[:1], 0)
        interpreter.invoke()
    (refusing_operator,) = re.findall(r"^Node (\w+) \(number \d+\) failed", capfd.readouterr().err, re.MULTILINE)

    assert reason.startswith(f"its {refusing_operator} takes no ")


@pytest.mark.parametrize("name", NOT_FOR_MICRO)
def test_file_that_is_not_for_it_is_a_runtime_error(small_model, name):
    """An interpreter that cannot answer is not made, or does not answer: RuntimeError, whatever the file."""
    with pytest.raises(RuntimeError):
        MicroInterpreter(small_model.exports[name]).answer(IMAGES[:1])


def test_every_other_export_is_for_it(small_model):
    """Each .tflite file is either one that it refuses or one that it runs."""
    able = [
        name
        for name in small_model.exports
        if name.endswith(".tflite") and not find_unsupported_reason(name, "tflite_micro")
    ]

    assert able == [INT8]
    assert MicroInterpreter(small_model.exports[INT8]).answer(IMAGES).shape == (20, 3)


def test_answers_are_its_own_output_bytes(small_model):
    """The answer to several images is, image by image, what the runtime's own interface gives."""
    content = small_model.exports[INT8]
    interpreter = runtime.Interpreter.from_bytes(content, arena_size=1 << 20)
    rows = []
    for image in IMAGES:
        interpreter.set_input(image[np.newaxis], 0)
        interpreter.invoke()
        rows.append(interpreter.get_output(0)[0].copy())

    np.testing.assert_array_equal(MicroInterpreter(content).answer(IMAGES), np.array(rows, np.uint8), strict=True)


def test_sizes_and_scale_are_those_of_the_file(small_model):
    """The image's size, and how an output byte becomes a probability, come from the file: 0..255 is 0 to 255/256."""
    interpreter = MicroInterpreter(small_model.exports[INT8])

    assert (interpreter.image_shape, interpreter.scale, interpreter.zero_point) == (IMAGE_SIZE, 1 / 256, 0)


@pytest.mark.parametrize(
    ("image_size", "hidden_units"), [((28, 28), [20]), ((28, 28), [32, 16]), ((6, 8), [4]), ((6, 8), [])]
)
def test_arena_is_the_smallest_in_which_the_model_runs(tmp_path, image_size, hidden_units):
    """In an arena of the measured size a fresh interpreter runs; in one that is a piece smaller it does not."""
    content = make_int8(image_size, hidden_units)
    (tmp_path / INT8).write_bytes(content)
    size = measure_arena(content)
    enough, too_little = (
        run_python("-c", ARENA_CODE, INT8, str(bytes_), cwd=tmp_path) for bytes_ in (size, size - ARENA_ALIGNMENT)
    )

    assert enough.returncode == 0, f"{size} bytes: {enough.stderr}"
    assert too_little.returncode != 0, f"{size - ARENA_ALIGNMENT} bytes are enough"
    assert "TFLM failed to allocate tensors" in too_little.stderr


# What the bound may be above the measured arena: room for records, and for tensors that do not share all they could.
MAX_ARENA_ROOM = 1.2
# With convolutions three tensors in a row may be of sizes of which its planner puts the third beside the first.
MAX_CONVOLUTION_ROOM = 1.3


@pytest.mark.parametrize(
    ("image_size", "hidden_units", "class_count"),
    [
        ((28, 28), [20], 3),
        ((28, 28), [32, 16], 3),
        ((28, 28), [8] * 8, 3),
        ((6, 8), [], 3),
        ((4, 4), [1], 3),
        ((32, 32), [512, 512], 3),
        ((28, 28), [20], 200),  # preparing a kernel takes more than the tensors
        ((28, 28), [1000, 450, 950, 1000], 3),  # here, too
        ((3, 3), [300, 280, 299, 300, 10], 3),  # between its larger neighbours a tensor finds no place
    ],
)
def test_computed_arena_is_enough_and_not_much_more(image_size, hidden_units, class_count):
    """What the C header says, without TensorFlow Lite Micro, is at least what that measures, and no waste."""
    content = make_int8(image_size, hidden_units, class_count)
    bound, measured = bound_arena(content), measure_arena(content)

    assert measured <= bound <= MAX_ARENA_ROOM * measured


@pytest.mark.parametrize(
    ("image_shape", "conv_blocks", "hidden_units"),
    [
        ((28, 28), ((8,), (16,)), []),
        ((28, 28), ((12, 12), (24, 24)), [20]),
        ((32, 32, 3), ((32, 32), (64, 64)), []),
        ((32, 32, 3), ((8,), (8,), (8,)), [16, 16]),
        ((13, 10, 3), ((3,),), []),
        ((6, 6), ((1, 1),), []),
        ((16, 16), ((128,),), []),  # preparing a kernel takes zero points for each of many filters
        ((10, 10, 3), (), [20]),
    ],
)
def test_computed_arena_is_enough_for_convolutions(image_shape, conv_blocks, hidden_units):
    """The same of convolutions, pooling and colour."""
    content = make_int8(image_shape, hidden_units, conv_blocks=conv_blocks)
    bound, measured = bound_arena(content), measure_arena(content)

    assert measured <= bound <= MAX_CONVOLUTION_ROOM * measured


def test_measuring_changes_neither_figure_nor_answers(small_model):
    """The arena is the same before and after any image, and the answers are those of an interpreter unmeasured."""
    interpreter = MicroInterpreter(small_model.exports[INT8])
    before = interpreter.read_allocation()
    answers = interpreter.answer(IMAGES)

    assert interpreter.read_allocation() == before
    np.testing.assert_array_equal(answers, MicroInterpreter(small_model.exports[INT8]).answer(IMAGES))


def test_measuring_says_nothing(small_model, capfd):
    """The allocator's report is read, not shown."""
    measure_arena(small_model.exports[INT8])
    written = capfd.readouterr()

    assert (written.out, written.err) == ("", "")


def test_answers_are_litert_within_rounding(small_model):
    """Its kernels round otherwise than LiteRT's: probabilities differ by few steps of 1/256, if at all."""
    steps_allowed = 3  # 1 measured
    one, other = (load_content(small_model.exports[INT8], name, INT8)(IMAGES) for name in ("tflite_micro", "litert"))

    assert np.abs(one - other).max() <= steps_allowed / 256
