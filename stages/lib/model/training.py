"""The training loop: compiled steps over data that need not fit in memory."""

import math
from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from stages.lib.core.arrays import Split
from stages.lib.core.errors import TrainingError
from stages.lib.model.deterministic_tensorflow import keras, tf
from stages.lib.model.network import has_convolutions
from stages.lib.model.order_free import VALUE_BITS, compute_slopes, measure_cross_entropy, round_in_place
from stages.lib.model.order_free_network import compile_logits, compute_logits
from stages.lib.model.order_free_optimizers import apply_gradients
from stages.lib.model.shuffling import MEMORY_BUDGET, MemoryBudget, count_group_rows, draw_groups, split_into_blocks

# One thread takes a dense network's ops in a fixed order, without the bookkeeping that several would need: a sixth less
# time. It runs loops as they are, in which TensorFlow finds no convolutions to give to oneDNN.
_DENSE_EXECUTOR, _EXECUTOR = "SINGLE_THREADED_EXECUTOR", ""
# TensorFlow takes memory as it is only where it begins at a multiple of this many bytes, else it copies it.
_ALIGNMENT = 64


class EarlyStopping(NamedTuple):
    """When to stop before the last epoch; the weights of the best one are kept."""

    monitor: Literal["val_loss", "val_accuracy"]  # what the best epoch is known by
    patience: int  # epochs in a row that are no new best


class Schedule(NamedTuple):
    """How long to train, in steps of how many images, and in which order."""

    epochs: int
    batch_size: int
    seed: int
    early_stopping: EarlyStopping | None = None


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
    schedule: Schedule,
    *,
    on_epoch_end: Callable[[Epoch], None],
    budget: MemoryBudget = MEMORY_BUDGET,
) -> Epoch:
    """Train a network that ends in logits, in place, on sparse categorical cross-entropy.

    train, validation: float32 images (N, H, W) and class ids (N,), memory-mapped or not; validation may be empty, if
    there is no early stopping. Each epoch sees all images once, in an order that only the seed and the epoch's number
    decide. The last batch of a group of images that is in memory at a time (see `draw_groups`) may be smaller.

    Returns the epoch whose weights the network ends with: the last or, with early stopping, the best.

    Raises:
        TrainingError: the loss or a weight is no longer a finite number.
    """
    train_epoch = _prepare_training(network, optimizer, train, schedule, budget)
    evaluate = _prepare_evaluation(network, validation, budget)
    stopping = schedule.early_stopping
    best: Epoch | None = None
    for number in range(1, schedule.epochs + 1):
        epoch = Epoch(number, *train_epoch(number), *evaluate())
        _require_finite(epoch, network)
        on_epoch_end(epoch)
        if best is None or stopping is None or _is_better(epoch, best, stopping.monitor):
            best, best_weights = epoch, network.get_weights()
        elif number - best.number >= stopping.patience:
            break
    assert best is not None, "a schedule has at least one epoch"
    network.set_weights(best_weights)
    return best


def _is_better(epoch: Epoch, other: Epoch, monitor: str) -> bool:
    if monitor == "val_loss":
        return epoch.val_loss < other.val_loss
    return epoch.val_accuracy > other.val_accuracy


def _require_finite(epoch: Epoch, network: keras.Model) -> None:
    measured = [epoch.loss] if np.isnan(epoch.val_accuracy) else [epoch.loss, epoch.val_loss]
    # The loss is measured before each step: what the last step did shows in the weights alone.
    if not all(np.isfinite(values).all() for values in (measured, *network.get_weights())):
        raise TrainingError(
            f"epoch {epoch.number}",
            f"the loss or a weight is no longer a finite number (loss {' and '.join(map(str, measured))})",
            "lower train.learning_rate",
        )


def _prepare_training(
    network: keras.Model, optimizer: keras.Optimizer, train: Split, schedule: Schedule, budget: MemoryBudget
) -> Callable[[int], tuple[float, float]]:
    """A function that trains for the epoch of a number and gives its loss and accuracy while it learned."""
    memory = _GroupMemory(train, budget)
    take_steps = _compile_steps(network, optimizer, schedule)
    row_count, row_bytes = len(train.labels), _count_row_bytes(train)
    executor = _EXECUTOR if has_convolutions(network) else _DENSE_EXECUTOR

    def train_epoch(number: int) -> tuple[float, float]:
        loss_sum, correct = 0.0, 0
        for group in draw_groups(row_count, row_bytes, seed=schedule.seed, epoch=number, budget=budget):
            images, labels = memory.load(group.blocks)
            with tf.experimental.function_executor_type(executor):
                logits = take_steps(images, tf.constant(labels), tf.constant(group.order))
            group_loss_sum, group_correct = measure_cross_entropy(logits.numpy(), labels[group.order])
            loss_sum, correct = loss_sum + group_loss_sum, correct + group_correct
        return loss_sum / row_count, correct / row_count

    return train_epoch


def _compile_steps(
    network: keras.Model, optimizer: keras.Optimizer, schedule: Schedule
) -> tf.types.experimental.Callable:
    """A function that takes one step for each batch of the images (N, H, W) and labels (N,), in the given order (N,).

    The images are on a grid. It gives the logits of each image, in that order, before the step on it.
    """
    weights, batch_size = network.trainable_variables, schedule.batch_size
    optimizer.build(weights)

    # Of any number of rows: compiled once, whatever the size of a group. Without AutoGraph, which would take longer to
    # rewrite these lines than TensorFlow takes to compile them.
    @tf.function(
        autograph=False,
        input_signature=[
            tf.TensorSpec(network.input_shape, tf.float32),
            tf.TensorSpec([None], tf.int32),
            tf.TensorSpec([None], tf.int64),
        ],
    )
    def take_steps(all_images: tf.Tensor, all_labels: tf.Tensor, order: tf.Tensor) -> tf.Tensor:
        def take_step(rows: tf.Tensor) -> tf.Tensor:  # (B,)
            images, labels = tf.gather(all_images, rows), tf.gather(all_labels, rows)  # (B, H, W), (B,)
            dropout_key = tf.stack([schedule.seed, tf.cast(optimizer.iterations, tf.int64)])
            with tf.GradientTape() as tape:
                logits = compute_logits(network, images, batch_size, dropout_key)
            slopes = compute_slopes(logits, labels)  # (B, classes)
            apply_gradients(optimizer, tape.gradient(logits, weights, output_gradients=slopes), weights)
            return logits

        row_count, class_count = tf.size(order), network.output_shape[-1]
        whole = row_count // batch_size * batch_size
        # Batches of a size that is known when this is compiled: a tenth less time.
        batches = tf.reshape(order[:whole], [-1, batch_size])
        signature = tf.TensorSpec([batch_size, class_count], tf.float64)
        logits = tf.map_fn(take_step, batches, fn_output_signature=signature, parallel_iterations=1)
        # The smaller last one, if there is one: a loop, for a condition would wait for the one thread that it is in.
        none = tf.compat.v1.placeholder_with_default(tf.zeros([0, class_count], tf.float64), [None, class_count])
        last_start = tf.range(whole, row_count, batch_size)
        last_logits = tf.foldl(lambda _, start: take_step(order[start:]), last_start, none)
        return tf.concat([tf.reshape(logits, [-1, class_count]), last_logits], axis=0)

    return take_steps


class _GroupMemory:
    """The images of one group as a tensor, in the same memory for every group."""

    def __init__(self, split: Split, budget: MemoryBudget) -> None:
        row_count = count_group_rows(len(split.labels), _count_row_bytes(split), budget)
        self._split = split
        # One grid for all groups: what an image is rounded to does not depend on the others in its group.
        self._largest = max(split.images.max(), -split.images.min())
        self._buffer = _allocate_aligned((row_count, *split.images.shape[1:]))
        # Not a copy: the tensor is that memory.
        self._images = tf.experimental.dlpack.from_dlpack(self._buffer.__dlpack__())
        self._labels = np.empty(0, np.int32)
        self._blocks: list[slice] = []

    def load(self, blocks: list[slice]) -> tuple[tf.Tensor, NDArray[np.int32]]:
        """The images, at least as many as there are rows in the blocks, on a grid, and their labels.

        The images are those of the blocks until the next call.
        """
        if blocks != self._blocks:  # where one group is all there is, it is read once
            start = 0
            for block in blocks:
                images = self._split.images[block]
                self._buffer[start : start + len(images)] = images
                start += len(images)
            round_in_place(self._buffer[:start], self._largest, VALUE_BITS)
            labels = np.concatenate([self._split.labels[block] for block in blocks])
            self._labels, self._blocks = labels.astype(np.int32), blocks
        return self._images, self._labels


def _allocate_aligned(shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Float32 memory that TensorFlow takes as it is."""
    size = math.prod(shape) * np.dtype(np.float32).itemsize
    memory = np.empty(size + _ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % _ALIGNMENT
    return memory[start : start + size].view(np.float32).reshape(shape)


def _prepare_evaluation(network: keras.Model, split: Split, budget: MemoryBudget) -> Callable[[], tuple[float, float]]:
    """A function that gives the network's loss and accuracy on a split; NaN on an empty one."""
    row_count = len(split.labels)
    blocks = split_into_blocks(row_count, _count_row_bytes(split), budget)
    predict = compile_logits(network)

    def evaluate() -> tuple[float, float]:
        if not row_count:
            return float("nan"), float("nan")
        loss_sum, correct = 0.0, 0
        for block in blocks:
            block_loss_sum, block_correct = measure_cross_entropy(predict(split.images[block]), split.labels[block])
            loss_sum, correct = loss_sum + block_loss_sum, correct + block_correct
        return loss_sum / row_count, correct / row_count

    return evaluate


def _count_row_bytes(split: Split) -> int:
    return split.images.itemsize * math.prod(split.images.shape[1:])
