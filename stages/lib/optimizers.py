"""The names of optimizers, apart from TensorFlow, which takes seconds to import: params are checked without it."""

from typing import Literal, get_args

# Keras's classes in lower case: https://keras.io/api/optimizers/. Two are left out: MultiOptimizer, for it takes other
# optimizers and no learning rate, and LossScaleOptimizer, which wraps another for the sake of half precision.
OptimizerName = Literal[
    "adadelta",
    "adafactor",
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
