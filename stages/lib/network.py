"""The lecture's dense network: Flatten, Dense (relu) once or more, Dense (softmax)."""

from collections.abc import Sequence

from stages.lib.deterministic_tensorflow import keras


def build_network(
    image_size: Sequence[int], hidden_units: Sequence[int], class_count: int, output_activation: str
) -> keras.Sequential:
    """float32 images (N, H, W) to (N, classes): logits with the activation `linear`, probabilities with `softmax`.

    The weights are drawn from Keras's global seed (`keras.utils.set_random_seed`). Every layer has a fixed name, so
    that neither a saved nor a converted network depends on how many were built before it.
    """
    return keras.Sequential(
        [
            keras.Input(image_size, name="images"),
            keras.layers.Flatten(name="flatten"),
            *(
                keras.layers.Dense(units, activation="relu", name=f"hidden_{number}")
                for number, units in enumerate(hidden_units, start=1)
            ),
            keras.layers.Dense(class_count, activation=output_activation, name="classes"),
        ],
        name="classifier",
    )
