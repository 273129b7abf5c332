"""The training loop: one compiled pass over the data for each epoch."""

from collections.abc import Callable
from typing import NamedTuple, cast

import numpy as np

from stages.lib.arrays import Split
from stages.lib.deterministic_tensorflow import keras, tf
from stages.lib.errors import TrainingError


class Epoch(NamedTuple):
    """Mean cross-entropy (nats) and accuracy (0..1) of one epoch; of validation NaN where there is no such split."""

    number: int
    loss: float
    accuracy: float
    val_loss: float
    val_accuracy: float


def fit(
    network: keras.Model,
    optimizer: keras.Optimizer,
    train: Split,
    validation: Split,
    *,
    epochs: int,
    batch_size: int,
    seed: int,
    on_epoch_end: Callable[[Epoch], None],
) -> None:
    """Train a network that ends in logits, in place, on sparse categorical cross-entropy.

    train, validation: float32 images (N, H, W) and class ids (N,); validation may be empty. Each epoch sees all
    images once, in an order that only `seed` and the epoch's number decide; its last batch may be smaller.

    Raises:
        TrainingError: the loss or a weight is no longer a finite number.
    """
    run_epoch = _compile_epoch(network, optimizer, train, batch_size)
    evaluate = _compile_evaluation(network, validation)
    for number in range(1, epochs + 1):
        order = np.random.default_rng([seed, number]).permutation(len(train.labels))
        epoch = Epoch(number, *map(float, run_epoch(tf.constant(order))), *map(float, evaluate()))
        measured = [epoch.loss, epoch.val_loss] if len(validation.labels) else [epoch.loss]
        # The loss is measured before each step: what the last step did shows in the weights alone.
        if not all(np.isfinite(values).all() for values in (measured, *network.get_weights())):
            raise TrainingError(
                f"epoch {number}",
                expected="a finite loss and finite weights",
                got=f"a loss of {' and '.join(map(str, measured))}",
                do="lower train.learning_rate",
            )
        on_epoch_end(epoch)


def _compile_epoch(
    network: keras.Model, optimizer: keras.Optimizer, train: Split, batch_size: int
) -> Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]:
    """A function from the order of the images (N,) to the epoch's loss and accuracy while it learned."""
    # Held as tensors: the steps of an epoch then never go back to Python.
    all_images, all_labels = tf.constant(train.images), tf.constant(train.labels, tf.int32)
    weights = network.trainable_variables
    optimizer.build(weights)

    @tf.function
    def run_epoch(order: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        loss_sum, correct = tf.constant(0.0), tf.constant(0)
        for start in tf.range(0, len(train.labels), batch_size):
            rows = order[start : start + batch_size]
            images, labels = tf.gather(all_images, rows), tf.gather(all_labels, rows)  # (B, H, W), (B,)
            with tf.GradientTape() as tape:
                logits = network(images, training=True)  # (B, classes)
                losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)  # (B,)
                loss = tf.reduce_mean(losses)
            optimizer.apply(tape.gradient(loss, weights), weights)
            loss_sum += tf.reduce_sum(losses)
            correct += _count_correct(logits, labels)
        return loss_sum / len(train.labels), correct / len(train.labels)

    return cast("Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]", run_epoch)


def _compile_evaluation(network: keras.Model, split: Split) -> Callable[[], tuple[tf.Tensor, tf.Tensor]]:
    """A function that gives the network's loss and accuracy on a split; NaN on an empty one."""
    images, labels = tf.constant(split.images), tf.constant(split.labels, tf.int32)

    @tf.function
    def evaluate() -> tuple[tf.Tensor, tf.Tensor]:
        logits = network(images, training=False)  # (N, classes)
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
        return tf.reduce_mean(losses), _count_correct(logits, labels) / len(split.labels)

    return cast("Callable[[], tuple[tf.Tensor, tf.Tensor]]", evaluate)


def _count_correct(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    return tf.reduce_sum(tf.cast(tf.argmax(logits, axis=1, output_type=tf.int32) == labels, tf.int32))
