"""What an int8 network takes of a board is known from its sizes, before it is trained."""

from ast import literal_eval

import numpy as np
import pytest
from samples import NORMALIZATION

from stages.lib.data.normalization import Normalization
from stages.lib.exports.conversion import calibrate, convert_to_int8_tflite, fold_normalization
from stages.lib.exports.model_metadata import add_tflite_metadata
from stages.lib.microcontroller.arena import bound_arena
from stages.lib.model.boards import find_limits
from stages.lib.model.deterministic_tensorflow import keras
from stages.lib.model.int8_footprint import Sizes, bound_file, compute_arena, describe_misfit, find_misfit
from stages.lib.model.network import Architecture, build_network

UNO = find_limits("arduino_uno_r4", None, None)
# What a remedy leaves free for what is not counted: the metadata, and the schema's tables.
MAX_FILE_ROOM = 1024


def make_int8(sizes):
    """The int8 export of a network that nobody trained, but whose biases are not zero, as of one that is trained."""
    keras.utils.set_random_seed(0)
    image_shape = (*sizes.image_size, sizes.channels) if sizes.channels > 1 else sizes.image_size
    architecture = Architecture(sizes.hidden_units, sizes.conv_blocks)
    network = build_network(image_shape, architecture, sizes.class_count, "softmax")
    network.set_weights([weights + np.float32(0.01) for weights in network.get_weights()])
    normalization = Normalization(NORMALIZATION.shift * sizes.channels, NORMALIZATION.divisor * sizes.channels)
    pixel_network = fold_normalization(network, normalization)
    images = np.random.default_rng(0).integers(0, 256, (10, *image_shape), np.uint8)
    content = convert_to_int8_tflite(pixel_network, calibrate(pixel_network, images))
    return add_tflite_metadata(content, {"class_names": [str(label) for label in range(sizes.class_count)]})


@pytest.mark.parametrize(
    "sizes",
    [
        Sizes((28, 28), (20,), 10),
        Sizes((28, 28), (32, 16), 10),
        Sizes((6, 8), (), 3),
        Sizes((4, 4), (1,), 2),
        Sizes((96, 96), (20,), 2),
        Sizes((32, 32), (512, 512), 10),
        Sizes((28, 28), (4, 4, 4, 4, 4, 4), 10),
        Sizes((6, 8), (4,), 3, channels=3),
        Sizes((28, 28), (), 10, ((8,), (16,))),
        Sizes((28, 28), (20,), 10, ((12, 12), (24, 24))),
        Sizes((13, 10), (5,), 3, ((1,),)),
        Sizes((24, 24), (), 10, ((8, 8, 8, 8, 8, 8),)),
        Sizes((32, 32), (), 10, ((32, 32), (64, 64)), channels=3),
        Sizes((33, 31), (16, 16), 10, ((8,), (8,), (8,)), channels=3),
    ],
)
def test_sizes_tell_what_the_file_tells(sizes):
    """The arena is that of the file, and the file is no smaller and not much larger than was told."""
    content = make_int8(sizes)

    assert compute_arena(sizes) == bound_arena(content)
    assert bound_file(sizes) <= len(content) <= bound_file(sizes) + MAX_FILE_ROOM


def test_network_that_fits_is_not_spoken_of():
    """The lecture's network fits the smallest board."""
    assert find_misfit(Sizes((28, 28), (20,), 10), UNO) is None


def fits(sizes):
    """Whether the export itself would fit."""
    content = make_int8(sizes)
    return describe_misfit(bound_arena(content), len(content), sizes, UNO) is None


def test_pixels_are_lowered_where_no_unit_helps():
    """Two copies of the input alone exceed the arena: the hint is the image size, and following it helps."""
    misfit = find_misfit(Sizes((96, 96), (20,), 2), UNO)

    assert misfit.where == "model_int8.tflite on arduino_uno_r4"
    assert misfit.problem == (
        "needs 20,624 bytes of RAM, where 16,384 are allowed, and at least 186,576 bytes of flash, where 131,072 are "
        "allowed"
    )
    assert misfit.hint == (
        "the input is what costs: lower ingest.image_size to about [79, 79], "
        "or set export.board to nucleo_f401re, which is larger"
    )
    assert fits(Sizes((79, 79), (20,), 2))
    assert find_misfit(Sizes((96, 96), (20,), 2), find_limits("nucleo_f401re", None, None)) is None


def test_units_are_lowered_where_that_is_enough():
    """Weights exceed the flash: the hint is fewer units, in their proportion, and following it helps."""
    misfit = find_misfit(Sizes((28, 28), (400, 200), 10), UNO)

    assert misfit.problem.startswith("needs at least ")
    assert misfit.hint.startswith("lower train.hidden_units to about [")
    units = misfit.hint.partition("[")[2].partition("]")[0].split(", ")
    assert fits(Sizes((28, 28), tuple(map(int, units)), 10))


def test_image_that_is_not_square_keeps_its_proportion():
    """Both sides shrink alike."""
    hint = find_misfit(Sizes((60, 240), (20,), 2), UNO).hint
    height, width = map(int, hint.partition("[")[2].partition("]")[0].split(", "))

    assert abs(width - 4 * height) < 4
    assert fits(Sizes((height, width), (20,), 2))


@pytest.mark.parametrize(
    ("sizes", "knob"),
    [
        pytest.param(Sizes((32, 32), (), 10, ((32, 32), (64, 64)), channels=3), "train.conv_blocks", id="RAM"),
        pytest.param(Sizes((32, 32), (20,), 10, ((8,), (300, 100)), channels=3), "train.conv_blocks", id="flash"),
        pytest.param(Sizes((32, 32), (600,), 10, ((8,), (16,))), "train.hidden_units", id="units"),
        pytest.param(Sizes((100, 80), (20,), 10, ((1, 1), (1, 1))), "ingest.image_size", id="pixels"),
        pytest.param(Sizes((60, 90), (), 10, ((1,), (1,)), channels=3), "ingest.image_size", id="colour"),
    ],
)
def test_what_is_lowered_of_a_convolutional_network_helps(sizes, knob):
    """Filters where they cost memory, units where they do, else pixels; following the hint is enough."""
    hint = find_misfit(sizes, UNO).hint
    told, _, rest = hint.partition(" to about ")
    lowered = literal_eval(rest[: rest.rindex("]") + 1])
    changes = {
        "train.conv_blocks": {"conv_blocks": lowered},
        "train.hidden_units": {"hidden_units": lowered},
        "ingest.image_size": {"image_size": lowered},
    }

    assert told.endswith(knob)
    assert fits(sizes._replace(**changes[knob]))


def test_images_are_not_lowered_to_what_convolutions_leave_nothing_of():
    """Where smaller images would shrink to nothing, another board is the remedy."""
    misfit = find_misfit(Sizes((100, 100), (), 10, ((1, 1), (1, 1), (1, 1), (1, 1)), channels=3), UNO)

    assert misfit.hint == "set export.board to arduino_nano_33_ble, which is larger"


def test_limits_that_were_given_are_what_to_raise():
    """A larger board changes nothing where params.yaml has numbers."""
    misfit = find_misfit(Sizes((28, 28), (20,), 10), find_limits("arduino_uno_r4", None, 12_000))

    assert misfit.where == "model_int8.tflite on arduino_uno_r4"
    assert misfit.hint == "lower train.hidden_units to about [9], or raise the limits in export.microcontroller"


def test_network_that_no_remedy_helps_still_has_a_hint():
    """Limits that nothing fits, and a network that no board has room for."""
    no_size = find_misfit(Sizes((28, 28), (), 10), find_limits(None, 100, 100))
    no_board = find_misfit(Sizes((2, 2), (), 100_000), UNO)

    assert no_size.hint == "raise the limits in export.microcontroller"
    assert no_board.hint == "set export.board to null, and the limits to numbers"


def test_file_is_told_as_it_is():
    """After export both figures are exact."""
    misfit = describe_misfit(20_000, 140_000, Sizes((28, 28), (20,), 10), UNO)

    assert misfit.problem.startswith("needs 20,000 bytes of RAM")
    assert "140,000 bytes of flash" in misfit.problem
    assert "at least" not in misfit.problem
