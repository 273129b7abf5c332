"""The names of optimizers, apart from TensorFlow, which takes seconds to import: params are checked without it."""

from typing import Literal, get_args

# Keras's classes in lower case: https://keras.io/api/optimizers/. Left out are MultiOptimizer, which takes other
# optimizers and no learning rate; LossScaleOptimizer, which wraps another for the sake of half precision; Adafactor,
# which divides 0 by 0 where neither a pixel nor a unit has a gradient, as at the edge of most images; and Ftrl, which
# begins by setting all weights to 0, from where a hidden layer cannot learn.
OptimizerName = Literal[
    "adadelta",
    "adagrad",
    "adam",
    "adamax",
    "adamw",
    "lamb",
    "lion",
    "muon",
    "nadam",
    "rmsprop",
    "schedulefreeadamw",
    "sgd",
]
OPTIMIZERS: tuple[OptimizerName, ...] = get_args(OptimizerName)
