"""The network: blocks of convolutions, if any, then the lecture's Flatten, Dense (relu) and Dense (softmax)."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from stages.lib.core.errors import DataError, ParamsError
from stages.lib.model.deterministic_tensorflow import keras
from stages.lib.model.order_free_convolution import MAX_PLACES

# Keras says at length what one might do to run a file's code all the same.
_LONGEST_REASON = 120
# Pixels of a side of each convolution's kernel, and of what each pooling makes one.
KERNEL_SIZE, POOL_SIZE = 3, 2


class Architecture(NamedTuple):
    """What a network is made of, between the images and the classes."""

    hidden_units: tuple[int, ...]  # of each dense layer before the last
    conv_blocks: tuple[tuple[int, ...], ...] = ()  # of each block, the filters of its 3 x 3 convolutions
    dropout: float = 0.0  # share of the last layer's inputs that a training step leaves out


def build_network(
    image_shape: Sequence[int], architecture: Architecture, class_count: int, output_activation: str
) -> keras.Sequential:
    """float32 images (N, H, W) or (N, H, W, 3) to (N, classes): logits with `linear`, probabilities with `softmax`.

    The weights are drawn from Keras's global seed (`keras.utils.set_random_seed`). Every layer has a fixed name, so
    that neither a saved nor a converted network depends on how many were built before it.

    Raises:
        ParamsError: the images are too small for so many convolutions and poolings, or too large for any.
    """
    require_fitting_images(image_shape, architecture.conv_blocks)
    return keras.Sequential(
        [
            keras.Input(image_shape, name="images"),
            *_build_layers(image_shape, architecture, class_count, output_activation),
        ],
        name="classifier",
    )


def _build_layers(
    image_shape: Sequence[int], architecture: Architecture, class_count: int, output_activation: str
) -> Iterator[keras.Layer]:
    layers = keras.layers
    if architecture.conv_blocks and len(image_shape) == 2:
        yield layers.Reshape((*image_shape, 1), name="channel")  # a convolution wants (N, H, W, channels)
    for block, filters in enumerate(architecture.conv_blocks, start=1):
        for number, count in enumerate(filters, start=1):
            yield layers.Conv2D(count, KERNEL_SIZE, activation="relu", name=f"conv_{block}_{number}")
        yield layers.MaxPooling2D(POOL_SIZE, name=f"pool_{block}")
    yield layers.Flatten(name="flatten")
    for number, units in enumerate(architecture.hidden_units, start=1):
        yield layers.Dense(units, activation="relu", name=f"hidden_{number}")
    if architecture.dropout:
        yield layers.Dropout(architecture.dropout, name="dropout")
    yield layers.Dense(class_count, activation=output_activation, name="classes")


def has_convolutions(network: keras.Model) -> bool:
    """Whether there is a convolution among the network's layers."""
    return any(isinstance(layer, keras.layers.Conv2D) for layer in network.layers)


def require_fitting_images(image_shape: Sequence[int], conv_blocks: Sequence[Sequence[int]]) -> None:
    """Refuse images of which convolutions and poolings would leave nothing, and too large ones.

    Raises:
        ParamsError: naming the block, and what is left before it, or the images' size.
    """
    height, width = image_shape[:2]
    if conv_blocks and height * width > MAX_PLACES:
        raise ParamsError(
            "ingest.image_size",
            expected=f"at most {MAX_PLACES:,} pixels where there are convolutions, whose sums would be too long",
            got=f"{height} x {width}",
            hint="lower it",
        )
    for block, filters in enumerate(conv_blocks, start=1):
        lost = (KERNEL_SIZE - 1) * len(filters)
        if min(height, width) - lost < POOL_SIZE:
            raise ParamsError(
                "train.conv_blocks",
                expected=f"blocks that leave at least a pixel of images of {image_shape[0]} x {image_shape[1]}",
                got=f"{height} x {width} before block {block}, which takes {lost} of each side and halves the rest",
                hint=f"leave block {block} out, or raise ingest.image_size",
            )
        height, width = (height - lost) // POOL_SIZE, (width - lost) // POOL_SIZE


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
