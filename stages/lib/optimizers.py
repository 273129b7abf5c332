"""The names of optimizers, apart from TensorFlow, which takes seconds to import: params are checked without it."""

from typing import Literal, get_args

# Keras's classes in lower case: https://keras.io/api/optimizers/. Three are left out: MultiOptimizer, which takes other
# optimizers and no learning rate; LossScaleOptimizer, which wraps another for the sake of half precision; and
# Adafactor, which divides 0 by 0 where neither a pixel nor a unit has a gradient, as at the edge of most images.
OptimizerName = Literal[
    "adadelta",
    "adagrad",
    "adam",
    "adamax",
    "adamw",
    "ftrl",
    "lamb",
    "lion",
    "muon",
    "nadam",
    "rmsprop",
    "schedulefreeadamw",
    "sgd",
]
OPTIMIZERS: tuple[OptimizerName, ...] = get_args(OptimizerName)
