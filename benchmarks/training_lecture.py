"""The training of `benchmarks.training` as lectures on Keras have it.

python -m benchmarks.training_lecture FOLDER EPOCHS SEED

Reads   FOLDER/{train,test}_{pixels,labels}.npy
Prints  as its last line JSON: seconds, the processor's seconds and mean loss of each epoch, and the test accuracy at
        the end
"""

import json
import sys
from pathlib import Path
from time import perf_counter, process_time

import numpy as np
import tensorflow as tf

folder, epochs, seed = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
tf.keras.utils.set_random_seed(seed)

times: list[tuple[float, float]] = []  # by the clock and of the processor, at the beginning and the end of each epoch
clock = tf.keras.callbacks.LambdaCallback(
    on_epoch_begin=lambda _epoch, _logs: times.append((perf_counter(), process_time())),
    on_epoch_end=lambda _epoch, _logs: times.append((perf_counter(), process_time())),
)

# From here on the lecture's lines, the data from files and the clock apart.
x_train, y_train = (
    np.load(folder / "train_pixels.npy", allow_pickle=False),
    np.load(folder / "train_labels.npy", allow_pickle=False),
)
x_test, y_test = (
    np.load(folder / "test_pixels.npy", allow_pickle=False),
    np.load(folder / "test_labels.npy", allow_pickle=False),
)
x_train, x_test = x_train / 255.0, x_test / 255.0
model = tf.keras.Sequential(
    [
        tf.keras.layers.Flatten(input_shape=x_train.shape[1:]),
        tf.keras.layers.Dense(20, activation="relu"),
        tf.keras.layers.Dense(10, activation="softmax"),
    ]
)
model.compile(optimizer="adam", loss="sparse_categorical_crossentropy", metrics=["accuracy"])
history = model.fit(x_train, y_train, epochs=epochs, callbacks=[clock])
_, accuracy = model.evaluate(x_test, y_test)

seconds, processor_seconds = (np.array(times[1::2]) - np.array(times[::2])).T.tolist()
result = {"seconds": seconds, "processor_seconds": processor_seconds}
print(json.dumps(result | {"losses": history.history["loss"], "accuracy": accuracy}))
