"""Keras's optimizers, with sums and powers that are the same on every processor."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages.lib.model.deterministic_tensorflow import keras, tf
from stages.lib.model.optimizers import OptimizerName
from stages.lib.model.order_free import VALUE_BITS, add_up, multiply, round_to_grid

# Of a power of a decay rate that is subtracted from 1 in float32: the next smaller one changes nothing.
_SMALLEST_POWER = 2.0**-27


def create_optimizer(
    name: OptimizerName, learning_rate: float | NDArray[np.float32], weight_decay: float | None = None
) -> keras.Optimizer:
    """Keras's optimizer of that name; all but what is given here is as Keras has it.

    learning_rate: of all steps, or an array of that of each. weight_decay: the share of a kernel that each step takes
    off, times the learning rate; biases keep theirs (I. Loshchilov and F. Hutter, Decoupled Weight Decay
    Regularization, 2019). None is Keras's default.
    """
    # Not `keras.optimizers.get`, which does not know Lamb.
    classes = {class_name.lower(): optimizer for class_name, optimizer in vars(keras.optimizers).items()}
    classes |= {"adam": FusedAdam, "muon": _Muon}
    rate = _RateOfStep(learning_rate) if isinstance(learning_rate, np.ndarray) else learning_rate
    if weight_decay is None:
        return classes[name](learning_rate=rate)
    also = {"adam_weight_decay": weight_decay} if name == "muon" else {}  # of convolutions
    optimizer = classes[name](learning_rate=rate, weight_decay=weight_decay, **also)
    optimizer.exclude_from_weight_decay(var_names=["bias"])
    return optimizer


class _RateOfStep(keras.optimizers.schedules.LearningRateSchedule):  # type: ignore[misc]  # Keras ships without types
    """The learning rate from a table; after its end the last one."""

    def __init__(self, rates: NDArray[np.float32]) -> None:
        self._rates = tf.constant(rates)

    def __call__(self, step: Any) -> tf.Tensor:  # noqa: ANN401  (a number or a tensor)
        """The rate of the step of this number, from 0."""
        return tf.gather(self._rates, tf.minimum(tf.cast(step, tf.int32), tf.size(self._rates) - 1))


def apply_gradients(
    optimizer: keras.Optimizer, gradients: Sequence[tf.Tensor], weights: Sequence[keras.Variable]
) -> None:
    """Update the weights in place, the same to the bit on every processor."""
    with _lend_operations(optimizer):
        optimizer.apply(gradients, weights)


class FusedAdam(keras.optimizers.Adam):  # type: ignore[misc]  # Keras ships without types
    """Keras's adam, each update by TensorFlow's one op for it instead of a dozen: a training step takes a fifth less.

    The same formula, apart from how float32 rounds 1 - beta. Of Keras's settings it knows the learning rate, the betas,
    epsilon and the decay of weights: no clipping or averaging.
    https://www.tensorflow.org/api_docs/python/tf/raw_ops/ResourceApplyAdam
    """

    def apply(self, grads: Sequence[tf.Tensor], trainable_variables: Sequence[keras.Variable]) -> None:
        """Update the weights and their two moments in place."""
        if not self.built:
            self.build(trainable_variables)
        self._apply_weight_decay(trainable_variables)
        learning_rate = tf.cast(self.learning_rate, tf.float32)  # of the step that the counter is still at
        # Once for all weights: a twentieth of a step.
        step = tf.convert_to_tensor(self.iterations.assign_add(1))
        shared = {
            "beta1_power": _raise_to_step(self.beta_1, step),
            "beta2_power": _raise_to_step(self.beta_2, step),
            "lr": learning_rate,
            "beta1": self.beta_1,
            "beta2": self.beta_2,
            "epsilon": self.epsilon,
        }
        for gradient, variable in zip(grads, trainable_variables, strict=True):
            index = self._get_variable_index(variable)
            tf.raw_ops.ResourceApplyAdam(
                var=variable.value.handle,
                m=self._momentums[index].value.handle,
                v=self._velocities[index].value.handle,
                grad=gradient,
                **shared,
            )


class _Muon(keras.optimizers.Muon):  # type: ignore[misc]  # Keras ships without types
    """Keras's muon, whose products are exact."""

    def zeropower_via_newtonschulz5(self, x: tf.Tensor, steps: int) -> tf.Tensor:
        """The nearest orthogonal matrix to x, roughly, as Keras's method of this name computes it."""
        is_tall = x.shape[0] > x.shape[1]
        matrix = tf.cast(tf.transpose(x) if is_tall else x, tf.float64)
        matrix = matrix / (tf.sqrt(_sum_all(tf.square(matrix))) + 1e-7)
        for _ in range(steps):
            gram = _multiply_rounded(matrix, tf.transpose(matrix))
            polynomial = self.muon_b * gram + self.muon_c * _multiply_rounded(gram, gram)
            matrix = self.muon_a * matrix + _multiply_rounded(polynomial, matrix)
        return tf.cast(tf.transpose(matrix) if is_tall else matrix, tf.float32)


class _Operations:
    """`keras.ops`, but for those that differ between processors, as Keras's optimizers use them."""

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401  (whatever Keras has)
        return getattr(keras.ops, name)

    @staticmethod
    def power(base: Any, exponent: Any) -> tf.Tensor:  # noqa: ANN401  (numbers or tensors)
        """A square, or a decay rate's power by the number of the step."""
        if isinstance(exponent, int):
            assert exponent == 2, "no optimizer takes another power of a tensor"
            return tf.square(base)
        rate = tf.get_static_value(tf.convert_to_tensor(base))
        assert rate is not None, "no optimizer changes its decay rate"
        return _raise_to_step(float(rate), exponent)

    @staticmethod
    def sum(values: Any) -> tf.Tensor:  # noqa: ANN401
        """The sum of all values."""
        return tf.cast(_sum_all(tf.cast(values, tf.float64)), tf.float32)


@contextmanager
def _lend_operations(optimizer: keras.Optimizer) -> Iterator[None]:
    """Let the optimizer's formulas, as Keras has them, be computed with `_Operations`."""
    modules = {sys.modules[base.__module__] for base in type(optimizer).__mro__}
    lent = [module for module in modules if getattr(module, "ops", None) is keras.src.ops]
    for module in lent:
        vars(module)["ops"] = _Operations()
    try:
        yield
    finally:
        for module in lent:
            vars(module)["ops"] = keras.src.ops


def _raise_to_step(rate: float, step: tf.Tensor) -> tf.Tensor:
    """rate^step, float32, by multiplication; below 2^-27 it stays as it is."""
    count = int(np.ceil(np.log(_SMALLEST_POWER) / np.log(rate))) + 1
    powers = np.cumprod(np.full(count, np.float32(rate), np.float64)).astype(np.float32)
    return tf.gather(powers, tf.minimum(tf.cast(step, tf.int32), count) - 1)


def _sum_all(values: tf.Tensor) -> tf.Tensor:
    return add_up(tf.reshape(values, [-1]), int(np.prod(values.shape)))


def _multiply_rounded(one: tf.Tensor, other: tf.Tensor) -> tf.Tensor:
    one, other = (round_to_grid(factor, tf.reduce_max(tf.abs(factor)), VALUE_BITS) for factor in (one, other))
    return multiply(one, other, terms=one.shape[1], bits=2 * VALUE_BITS)
