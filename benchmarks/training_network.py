"""The training of `benchmarks.networks`: by the pipeline, or by Keras's own `fit` as Keras and TensorFlow come.

python -m benchmarks.training_network pipeline|keras FOLDER EPOCHS SEED NETWORK

Reads   FOLDER/{train,test}/{images,labels}.npy, as `normalize` writes them
Prints  as its last line JSON: seconds and mean loss of each epoch, and the test accuracy at the end

NETWORK is JSON: {"conv_blocks": [[16], [32]], "hidden_units": []}. Both begin with the same weights.
"""

# ruff: noqa: PLC0415  (each loads TensorFlow with settings of its own)

import json
import sys
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from stages.lib.core.arrays import Split, load_split

BATCH, RATE = 32, 1e-3


def train_by_pipeline(
    train: Split, test: Split, class_count: int, network: dict[str, Any], epochs: int, seed: int
) -> tuple[list[float], list[float], Any]:
    """When it began and each epoch ended, each epoch's loss, and the logits (N, classes) of the test images."""
    from stages.lib.model.deterministic_tensorflow import keras
    from stages.lib.model.network import Architecture, build_network
    from stages.lib.model.order_free_optimizers import create_optimizer
    from stages.lib.model.training import Epoch, Schedule, fit
    from stages.train import choose_threads

    choose_threads(BATCH, has_convolutions=bool(network["conv_blocks"]))
    keras.utils.set_random_seed(seed)
    architecture = Architecture(tuple(network["hidden_units"]), tuple(map(tuple, network["conv_blocks"])))
    model = build_network(train.images.shape[1:], architecture, class_count, "linear")
    ends: list[float] = []
    losses: list[float] = []

    def note(epoch: Epoch) -> None:
        ends.append(perf_counter())
        losses.append(epoch.loss)

    begin, nothing = perf_counter(), Split(test.images[:0], test.labels[:0])
    fit(model, create_optimizer("adam", RATE), train, nothing, Schedule(epochs, BATCH, seed), on_epoch_end=note)
    return [begin, *ends], losses, model.predict(np.asarray(test.images), verbose=0)


def train_by_keras(
    train: Split, test: Split, class_count: int, network: dict[str, Any], epochs: int, seed: int
) -> tuple[list[float], list[float], Any]:
    """The same of the network as a tutorial has it."""
    import keras
    from keras import layers

    keras.utils.set_random_seed(seed)
    shape = train.images.shape[1:]
    model = keras.Sequential([keras.Input(shape)])
    if network["conv_blocks"] and len(shape) == 2:
        model.add(layers.Reshape((*shape, 1)))
    for filters in network["conv_blocks"]:
        for count in filters:
            model.add(layers.Conv2D(count, 3, activation="relu"))
        model.add(layers.MaxPooling2D(2))
    model.add(layers.Flatten())
    for units in network["hidden_units"]:
        model.add(layers.Dense(units, activation="relu"))
    model.add(layers.Dense(class_count))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer=keras.optimizers.Adam(RATE), loss=loss, metrics=["accuracy"])
    images, labels, ends = np.asarray(train.images), np.asarray(train.labels), [perf_counter()]
    clock = keras.callbacks.LambdaCallback(on_epoch_end=lambda _epoch, _logs: ends.append(perf_counter()))
    history = model.fit(images, labels, batch_size=BATCH, epochs=epochs, callbacks=[clock], verbose=0)
    return ends, history.history["loss"], model.predict(np.asarray(test.images), verbose=0)


def main() -> None:
    """Train and print."""
    who, folder, epochs, seed, network = sys.argv[1], Path(sys.argv[2]), *map(json.loads, sys.argv[3:6])
    train, test = load_split(folder / "train"), load_split(folder / "test")
    run = {"pipeline": train_by_pipeline, "keras": train_by_keras}[who]
    ends, losses, logits = run(train, test, int(train.labels.max()) + 1, network, epochs, seed)
    accuracy = float((logits.argmax(axis=1) == test.labels).mean())
    print(json.dumps({"seconds": np.diff(ends).tolist(), "losses": losses, "accuracy": accuracy}))


if __name__ == "__main__":
    main()
