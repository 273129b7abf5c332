"""The lecture's dense network: Flatten, Dense (relu) once or more, Dense (softmax)."""

from collections.abc import Sequence
from pathlib import Path

from stages.lib.core.errors import DataError
from stages.lib.model.deterministic_tensorflow import keras

# Keras says at length what one might do to run a file's code all the same.
_LONGEST_REASON = 120


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


def load_network(path: Path) -> keras.Model:
    """The network in a .keras file, whose code, should it hold any, is never run.

    Raises:
        DataError: the file is missing or damaged, or holds what would be code.
    """
    try:
        return keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # noqa: BLE001  # whatever a damaged archive of archives makes of itself
        reason = str(error).partition("\n")[0]
        if not path.exists():
            raise DataError(str(path), "no such file", "run `dvc repro`") from None
        problem = f"not a whole .keras file without code: {type(error).__name__}: {reason[:_LONGEST_REASON]}"
        raise DataError(str(path), problem, "remove it, then run `dvc repro`") from None
