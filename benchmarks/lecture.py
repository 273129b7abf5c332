"""The lecture's script as it is typed, for the whole pipeline to be measured beside: `python lecture.py mnist.npz`.

Only two of its lines are not the lecture's: the images come from a file on this disk, as `mnist.load_data()` has them
after its first call, and the accuracy is printed last.
"""

import sys

import numpy as np
import tensorflow as tf

with np.load(sys.argv[1], allow_pickle=False) as mnist:
    (x_train, y_train), (x_test, y_test) = [(mnist[f"x_{name}"], mnist[f"y_{name}"]) for name in ("train", "test")]
x_train, x_test = x_train / 255.0, x_test / 255.0

model = tf.keras.models.Sequential(
    [
        tf.keras.layers.Flatten(input_shape=(28, 28)),
        tf.keras.layers.Dense(20, activation="relu"),
        tf.keras.layers.Dense(10, activation="softmax"),
    ]
)
model.compile(optimizer="adam", loss="sparse_categorical_crossentropy", metrics=["accuracy"])
model.fit(x_train, y_train, epochs=20)
loss, accuracy = model.evaluate(x_test, y_test)
model.predict(x_test[:1])
print(accuracy)
