"""int8 exports of networks that nobody trained: dense ones and convolutions, with images to answer."""

from functools import cache

import numpy as np
from samples import IMAGE_SIZE, NORMALIZATION, make_split

from stages.lib.data.normalization import Normalization
from stages.lib.exports.conversion import calibrate, convert_to_int8_tflite, fold_normalization
from stages.lib.model.deterministic_tensorflow import keras
from stages.lib.model.network import Architecture, build_network

# Some as those it was calibrated on, some unlike them, and the darkest and brightest there are.
IMAGES = np.concatenate(
    [
        make_split(300, seed=3).images,
        np.random.default_rng(0).integers(0, 256, (300, *IMAGE_SIZE), np.uint8),
        np.zeros((1, *IMAGE_SIZE), np.uint8),
        np.full((1, *IMAGE_SIZE), 255, np.uint8),
    ]
)
# Hidden units, and by what the weights are enlarged: the larger, the surer the answers. With these, no probability is
# within 1e-5 of half a step, where float32, in which LiteRT computes a softmax, may round to the other side.
NETWORKS = [((), 1), ((), 3), ((4,), 1), ((4,), 6), ((5, 7), 1), ((5, 7), 6), ((12, 12, 12), 2)]
# The shape of an image, filters by block, hidden units. Some have a row or a column that no pooling takes.
CONVOLUTIONS = [
    ((28, 28), ((8,), (16,)), (20,)),
    ((24, 24), ((12, 12), (24, 24)), ()),
    ((13, 10), ((3,),), ()),
    ((32, 32, 3), ((32, 32), (64, 64)), (16,)),
    ((13, 10, 3), ((5,), (4,)), (7,)),
    ((6, 8, 3), (), (5,)),
]
COLOUR_NORMALIZATION = Normalization(shift=(40.0, 50.0, 60.0), divisor=(255.0, 60.0, 70.0))


@cache
def make_int8(hidden_units, factor=1.0, *, has_biases=True):
    """The int8 export of a network that nobody trained, with a shift of pixels to be folded in."""
    keras.utils.set_random_seed(0)
    network = build_network(IMAGE_SIZE, Architecture(hidden_units), 3, "softmax")
    draw = np.random.default_rng(0).normal
    network.set_weights(
        [
            factor * weights if weights.ndim == 2 else draw(scale=0.1 * factor, size=weights.shape) * has_biases
            for weights in network.get_weights()
        ]
    )
    pixel_network = fold_normalization(network, NORMALIZATION)
    return convert_to_int8_tflite(pixel_network, calibrate(pixel_network, make_split(60, seed=1).images))


@cache
def make_convolutional(image_shape, conv_blocks, hidden_units):
    """The int8 export of such a network that nobody trained, and images to answer."""
    keras.utils.set_random_seed(0)
    network = build_network(image_shape, Architecture(hidden_units, conv_blocks), 10, "softmax")
    draws = np.random.default_rng(0)
    network.set_weights(
        [
            1.5 * weights if weights.ndim > 1 else draws.normal(scale=0.1, size=weights.shape)
            for weights in network.get_weights()
        ]
    )
    normalization = NORMALIZATION if len(image_shape) == 2 else COLOUR_NORMALIZATION
    pixel_network = fold_normalization(network, normalization)
    images = draws.integers(0, 256, (150, *image_shape), np.uint8)
    return convert_to_int8_tflite(pixel_network, calibrate(pixel_network, images[:50])), images
