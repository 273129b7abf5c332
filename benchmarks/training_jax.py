"""The training of `benchmarks.training` in JAX: one jit-compiled `lax.scan` over the steps of an epoch.

python -m benchmarks.training_jax FOLDER EPOCHS

Reads   FOLDER/{train,test}_{images,labels}.npy, weights.npy, orders.npy
Prints  JSON: seconds, the processor's seconds and mean loss of each epoch, and the test accuracy at the end
"""

import json
import sys
from functools import partial
from pathlib import Path
from time import perf_counter, process_time
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

BATCH = 32
RATE, BETA_1, BETA_2, EPSILON = 1e-3, 0.9, 0.999, 1e-7  # Keras's adam

folder, epochs = Path(sys.argv[1]), int(sys.argv[2])


def load(name: str) -> jax.Array:
    """The array of a name, the images flat."""
    array = np.load(folder / f"{name}.npy", allow_pickle=False)
    return jnp.asarray(array.reshape(len(array), -1) if array.ndim == 3 else array)


class Network(NamedTuple):
    """Weights, or their gradients, or adam's moments."""

    kernel_1: jax.Array
    bias_1: jax.Array
    kernel_2: jax.Array
    bias_2: jax.Array


class TrainingState(NamedTuple):
    """What a step changes."""

    network: Network
    momentum: Network
    velocity: Network
    step: jax.Array


def predict(network: Network, pixels: jax.Array) -> jax.Array:
    """Logits (B, classes)."""
    hidden = jax.nn.relu(pixels @ network.kernel_1 + network.bias_1)
    return hidden @ network.kernel_2 + network.bias_2


def compute_loss(network: Network, pixels: jax.Array, classes: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The mean cross-entropy, and how many images got their class."""
    logits = predict(network, pixels)
    log_probabilities = jax.nn.log_softmax(logits)
    losses = -jnp.take_along_axis(log_probabilities, classes[:, None], axis=1)
    return losses.mean(), (logits.argmax(axis=1) == classes).sum()


def take_step(
    images: jax.Array, labels: jax.Array, state: TrainingState, rows: jax.Array
) -> tuple[TrainingState, tuple[jax.Array, jax.Array]]:
    """The state after a step on these rows, the loss and the count before it."""
    (loss, correct), gradient = jax.value_and_grad(compute_loss, has_aux=True)(
        state.network, images[rows], labels[rows]
    )
    step = state.step + 1
    rate = RATE * jnp.sqrt(1 - BETA_2**step) / (1 - BETA_1**step)
    momentum = jax.tree.map(lambda m, g: m + (g - m) * (1 - BETA_1), state.momentum, gradient)
    velocity = jax.tree.map(lambda v, g: v + (g * g - v) * (1 - BETA_2), state.velocity, gradient)
    network = jax.tree.map(lambda w, m, v: w - m * rate / (jnp.sqrt(v) + EPSILON), state.network, momentum, velocity)
    return TrainingState(network, momentum, velocity, step), (loss * len(rows), correct)


@jax.jit
def run_epoch(
    images: jax.Array, labels: jax.Array, state: TrainingState, order: jax.Array
) -> tuple[TrainingState, jax.Array, jax.Array]:
    """The state after an epoch, and its mean loss and accuracy."""
    step = partial(take_step, images, labels)
    whole = len(order) // BATCH * BATCH
    state, (losses, correct) = jax.lax.scan(step, state, order[:whole].reshape(-1, BATCH))
    loss_sum, correct_sum = losses.sum(), correct.sum()
    if whole < len(order):  # a smaller last batch
        state, (last_loss, last_correct) = step(state, order[whole:])
        loss_sum, correct_sum = loss_sum + last_loss, correct_sum + last_correct
    return state, loss_sum / len(order), correct_sum / len(order)


images, labels = load("train_images"), load("train_labels").astype(jnp.int32)
input_count = images.shape[1]
kernel_1, bias_1, kernel_2, bias_2 = jnp.split(load("weights"), np.cumsum([input_count * 20, 20, 20 * 10]).tolist())
network = Network(kernel_1.reshape(input_count, 20), bias_1, kernel_2.reshape(20, 10), bias_2)
zeros = jax.tree.map(jnp.zeros_like, network)
state = TrainingState(network, zeros, zeros, jnp.float32(0))
times, losses = [], []
for order in np.load(folder / "orders.npy", allow_pickle=False)[:epochs]:
    start, processor_start = perf_counter(), process_time()
    state, loss, _ = run_epoch(images, labels, state, order)
    losses.append(float(loss))  # waits for the end
    times.append((perf_counter() - start, process_time() - processor_start))
predictions = np.asarray(predict(state.network, load("test_images")).argmax(axis=1))
accuracy = float((predictions == np.load(folder / "test_labels.npy", allow_pickle=False)).mean())

seconds, processor_seconds = zip(*times, strict=True)
result = {"seconds": seconds, "processor_seconds": processor_seconds}
print(json.dumps(result | {"losses": losses, "accuracy": accuracy}))
