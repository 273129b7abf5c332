"""The training loop: compiled steps over data that need not fit in memory."""

import math
from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from stages.lib.arrays import Split
from stages.lib.deterministic_tensorflow import keras, tf
from stages.lib.errors import TrainingError
from stages.lib.shuffling import MEMORY_BUDGET, MemoryBudget, count_group_rows, draw_groups, split_into_blocks

# One thread takes the ops in a fixed order, without the bookkeeping that several would need: a sixth less time.
_EXECUTOR = "SINGLE_THREADED_EXECUTOR"
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
    kept: Epoch | None = None
    for number in range(1, schedule.epochs + 1):
        epoch = Epoch(number, *train_epoch(number), *evaluate())
        _require_finite(epoch, network)
        on_epoch_end(epoch)
        if kept is None or stopping is None or _is_better(epoch, kept, stopping.monitor):
            kept, kept_weights = epoch, network.get_weights()
        elif number - kept.number >= stopping.patience:
            break
    assert kept is not None, "a schedule has at least one epoch"
    network.set_weights(kept_weights)
    return kept


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
            expected="a finite loss and finite weights",
            got=f"a loss of {' and '.join(map(str, measured))}",
            do="lower train.learning_rate",
        )


def _prepare_training(
    network: keras.Model, optimizer: keras.Optimizer, train: Split, schedule: Schedule, budget: MemoryBudget
) -> Callable[[int], tuple[float, float]]:
    """A function that trains for the epoch of a number and gives its loss and accuracy while it learned."""
    memory = _GroupMemory(train, budget)
    take_steps = _compile_steps(network, optimizer, schedule.batch_size)
    row_count, row_bytes = len(train.labels), _count_row_bytes(train)

    def train_epoch(number: int) -> tuple[float, float]:
        loss_sum, correct = 0.0, 0
        for group in draw_groups(row_count, row_bytes, seed=schedule.seed, epoch=number, budget=budget):
            images, labels = memory.load(group.blocks)
            with tf.experimental.function_executor_type(_EXECUTOR):
                group_loss_sum, group_correct = take_steps(images, labels, tf.constant(group.order))
            loss_sum, correct = loss_sum + float(group_loss_sum), correct + int(group_correct)
        return loss_sum / row_count, correct / row_count

    return train_epoch


def _compile_steps(network: keras.Model, optimizer: keras.Optimizer, batch_size: int) -> tf.types.experimental.Callable:
    """A function that takes one step for each batch of the images (N, H, W) and labels (N,), in the given order (N,).

    It gives the sum of all losses and the number of images whose class was found, each before the step on it.
    """
    weights = network.trainable_variables
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
    def take_steps(all_images: tf.Tensor, all_labels: tf.Tensor, order: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        def take_step(sums: tuple[tf.Tensor, tf.Tensor], rows: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:  # (B,)
            images, labels = tf.gather(all_images, rows), tf.gather(all_labels, rows)  # (B, H, W), (B,)
            with tf.GradientTape() as tape:
                logits = network(images, training=True)  # (B, classes)
            # The op that tf.nn.sparse_softmax_cross_entropy_with_logits is, and its gradient. Under op determinism that
            # function takes two dozen others instead, for the sake of GPUs: on a CPU the op is deterministic by itself.
            losses, slopes = tf.raw_ops.SparseSoftmaxCrossEntropyWithLogits(features=logits, labels=labels)
            mean_slopes = slopes * (1 / tf.cast(tf.size(labels), tf.float32))  # (B, classes), of the mean loss
            gradients = tape.gradient(logits, weights, output_gradients=mean_slopes)
            optimizer.apply(gradients, weights)
            loss_sum, correct = sums
            return loss_sum + tf.reduce_sum(losses), correct + _count_correct(logits, labels)

        row_count = tf.size(order)
        whole = row_count // batch_size * batch_size
        sums = (tf.constant(0.0), tf.constant(0))
        # Batches of a size that is known when this is compiled: a tenth less time.
        sums = tf.foldl(take_step, tf.reshape(order[:whole], [-1, batch_size]), sums)
        # The smaller last one, if there is one: a loop, for a condition would wait for the one thread that it is in.
        last_start = tf.range(whole, row_count, batch_size)
        loss_sum, correct = tf.foldl(lambda sums, start: take_step(sums, order[start:]), last_start, sums)
        return loss_sum, correct

    return take_steps


class _GroupMemory:
    """The images of one group as a tensor, in the same memory for every group."""

    def __init__(self, split: Split, budget: MemoryBudget) -> None:
        row_count = count_group_rows(len(split.labels), _count_row_bytes(split), budget)
        self._split = split
        self._buffer = _allocate_aligned((row_count, *split.images.shape[1:]))
        # Not a copy: the tensor is that memory.
        self._images = tf.experimental.dlpack.from_dlpack(self._buffer.__dlpack__())
        self._labels = tf.constant([], tf.int32)
        self._blocks: list[slice] = []

    def load(self, blocks: list[slice]) -> tuple[tf.Tensor, tf.Tensor]:
        """The images, at least as many as there are rows in the blocks, and their labels.

        The images are those of the blocks until the next call.
        """
        if blocks != self._blocks:  # where one group is all there is, it is read once
            start = 0
            for block in blocks:
                images = self._split.images[block]
                self._buffer[start : start + len(images)] = images
                start += len(images)
            labels = np.concatenate([self._split.labels[block] for block in blocks])
            self._labels, self._blocks = tf.constant(labels, tf.int32), blocks
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

    @tf.function(
        autograph=False,
        input_signature=[tf.TensorSpec(network.input_shape, tf.float32), tf.TensorSpec([None], tf.int32)],
    )
    def evaluate_block(images: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        logits = network(images, training=False)  # (B, classes)
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
        return tf.reduce_sum(losses), _count_correct(logits, labels)

    def evaluate() -> tuple[float, float]:
        if not row_count:
            return float("nan"), float("nan")
        loss_sum, correct = 0.0, 0
        for block in blocks:
            images, labels = tf.constant(split.images[block]), tf.constant(split.labels[block], tf.int32)
            block_loss_sum, block_correct = evaluate_block(images, labels)
            loss_sum, correct = loss_sum + float(block_loss_sum), correct + int(block_correct)
        return loss_sum / row_count, correct / row_count

    return evaluate


def _count_row_bytes(split: Split) -> int:
    return split.images.itemsize * math.prod(split.images.shape[1:])


def _count_correct(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    return tf.reduce_sum(tf.cast(tf.argmax(logits, axis=1, output_type=tf.int32) == labels, tf.int32))
