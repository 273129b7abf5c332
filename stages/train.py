"""Train the network.

Reads   data/normalized/{train,validation}, data/normalized/dataset.json
Writes  models/model.keras    float32 (N, H, W) in, probabilities (N, classes) out
        reports/history.csv   loss and accuracy of each epoch, on the training and the validation split; with early
                              stopping `best`, too, which is 1 in the row of the epoch whose weights the network has
"""

import math
import os
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from stages.lib.core.arrays import load_split
from stages.lib.core.errors import ParamsError
from stages.lib.core.files import read_json, write_csv
from stages.lib.core.params import Section
from stages.lib.model.augmentation import Augmentation
from stages.lib.model.boards import read_limits
from stages.lib.model.canonical_keras import save_keras
from stages.lib.model.deterministic_tensorflow import keras, tf
from stages.lib.model.int8_footprint import Sizes, find_misfit
from stages.lib.model.learning_rates import Decay, compute_learning_rates
from stages.lib.model.network import Architecture, build_network
from stages.lib.model.optimizers import OPTIMIZERS, OptimizerName
from stages.lib.model.order_free_convolution import MAX_FILTERS
from stages.lib.model.order_free_optimizers import create_optimizer
from stages.lib.model.training import EarlyStopping, Epoch, Schedule, count_steps, fit
from stages.lib.runner.stage import main
from stages.lib.runner.tested_machines import find_untested_here

# From this size of batches on, two threads are faster than one (measured from 32 to 1,024 images, 20 to 1,024 units);
# below it they wait for each other longer than they compute.
_LARGE_BATCH = 512
# What their names are in data sets whose classes are the ten digits.
_DIGITS = list("0123456789")


class LearningRateScheduleParams(Section):
    """The section `learning_rate_schedule` of `train`."""

    decay: Decay = Field(description="one of constant, cosine")
    warmup_steps: int = Field(ge=0, description="a whole number of steps; 0 begins with the full learning rate")


class AugmentationParams(Section):
    """The section `augmentation` of `train`."""

    shift: int = Field(ge=0, description="a whole number of pixels, less than an image's height and width")
    rotation: float = Field(ge=0, le=180, description="a number of degrees from 0 to 180")
    scale: float = Field(ge=0, le=0.5, description="a number from 0 to 0.5")
    horizontal_flip: bool = Field(description="true or false")
    brightness: float = Field(ge=0, le=1, description="a number from 0 to 1")
    contrast: float = Field(ge=0, le=1, description="a number from 0 to 1")


class EarlyStoppingParams(Section):
    """The section `early_stopping` of `train`."""

    monitor: Literal["val_loss", "val_accuracy"] = Field(description="one of val_loss, val_accuracy")
    patience: int = Field(ge=0, description="a whole number of epochs; 0 never stops early")


class TrainParams(Section):
    """The `train` section of params.yaml."""

    conv_blocks: list[Annotated[list[Annotated[int, Field(ge=1, le=MAX_FILTERS)]], Field(min_length=1)]] = Field(
        description=f"a list of blocks, each a list of whole numbers of filters, from 1 to {MAX_FILTERS}"
    )
    hidden_units: list[Annotated[int, Field(ge=1)]] = Field(
        description="a list of whole numbers of units, each at least 1"
    )
    dropout: float = Field(ge=0, lt=1, description="a number from 0 to below 1")
    epochs: int = Field(ge=1, description="a whole number of epochs, at least 1")
    batch_size: int = Field(ge=1, description="a whole number of images, at least 1")
    learning_rate: float = Field(gt=0, description="a number above 0")
    learning_rate_schedule: LearningRateScheduleParams = Field(description="the keys decay and warmup_steps")
    optimizer: OptimizerName = Field(description=f"one of {', '.join(OPTIMIZERS)}")
    weight_decay: float | None = Field(ge=0, le=1, description="a number from 0 to 1, or null, the optimizer's own")
    class_weights: Literal["none", "balanced"] = Field(description="one of none, balanced")
    augmentation: AugmentationParams = Field(
        description="the keys shift, rotation, scale, horizontal_flip, brightness and contrast"
    )
    early_stopping: EarlyStoppingParams = Field(description="the keys monitor and patience")
    seed: int = Field(ge=0, lt=2**32, description="a whole number from 0 to 4294967295")


class Trained(NamedTuple):
    """What training gave."""

    network: keras.Model  # ends in probabilities
    epochs: list[Epoch]  # how each of them went
    best: Epoch  # whose weights the network has


def train_network(
    params: TrainParams, data_dir: Path, class_count: int, on_epoch_end: Callable[[Epoch], None] | None = None
) -> Trained:
    """Train on normalized data.

    on_epoch_end: for those beside the person at the terminal who want to know how each epoch went; may raise to stop.

    Raises:
        ParamsError: early stopping is on, and there is no validation split to tell when; or the images or the number of
            steps are too small for what is asked for.
        TrainingError: the loss or a weight is no longer a finite number.
    """
    train, validation = load_split(data_dir / "train"), load_split(data_dir / "validation")
    stopping = params.early_stopping
    if stopping.patience and not len(validation.labels):
        raise ParamsError(
            "train.early_stopping.patience",
            expected="0 where there is no validation split",
            got=str(stopping.patience),
            hint="set it to 0, or raise normalize.validation_fraction",
        )
    image_shape = train.images.shape[1:]
    if params.augmentation.shift >= min(image_shape[:2]):
        raise ParamsError(
            "train.augmentation.shift",
            expected=f"less than {min(image_shape[:2])}, the shorter side of the images",
            got=str(params.augmentation.shift),
            hint="lower it",
        )
    keras.utils.set_random_seed(params.seed)
    # Trained on logits: the softmax and its gradient are written out.
    architecture = describe_architecture(params)
    network = build_network(image_shape, architecture, class_count, "linear")
    epochs: list[Epoch] = []
    started = time.monotonic()

    def report(epoch: Epoch) -> None:
        epochs.append(epoch)
        print(describe_progress(epoch, params.epochs, time.monotonic() - started), flush=True)
        if on_epoch_end:
            on_epoch_end(epoch)

    schedule = Schedule(
        epochs=params.epochs,
        batch_size=params.batch_size,
        seed=params.seed,
        early_stopping=EarlyStopping(stopping.monitor, stopping.patience) if stopping.patience else None,
        balances_classes=params.class_weights == "balanced",
        augmentation=Augmentation(**params.augmentation.model_dump()),
    )
    learning_rate = choose_learning_rates(params, count_steps(train, schedule))
    optimizer = create_optimizer(params.optimizer, learning_rate, params.weight_decay)
    best = fit(network, optimizer, train, validation, schedule, on_epoch_end=report)
    print(describe_best(best, len(epochs), schedule.early_stopping), flush=True)
    classifier = build_network(image_shape, architecture, class_count, "softmax")
    classifier.set_weights(network.get_weights())
    return Trained(classifier, epochs, best)


def choose_learning_rates(params: TrainParams, step_count: int) -> float | NDArray[np.float32]:
    """The learning rate of all steps, or that of each.

    Raises:
        ParamsError: the warm-up would take all steps.
    """
    decay, warmup_steps = params.learning_rate_schedule.decay, params.learning_rate_schedule.warmup_steps
    if warmup_steps >= step_count:
        raise ParamsError(
            "train.learning_rate_schedule.warmup_steps",
            expected=f"less than the {step_count:,} steps of all epochs",
            got=str(warmup_steps),
            hint="lower it, or raise train.epochs",
        )
    if decay == "constant" and not warmup_steps:
        return params.learning_rate
    return compute_learning_rates(params.learning_rate, decay, warmup_steps, step_count)


def describe_architecture(params: TrainParams) -> Architecture:
    """The network that the params ask for."""
    blocks = tuple(tuple(filters) for filters in params.conv_blocks)
    return Architecture(tuple(params.hidden_units), blocks, params.dropout)


def describe_progress(epoch: Epoch, epochs: int, seconds: float) -> str:
    """One line for a person who waits: how far, how good, how long still."""
    remaining = seconds / epoch.number * (epochs - epoch.number)
    validation = (
        "" if math.isnan(epoch.val_loss) else f"  val_loss {epoch.val_loss:.4f}  val_accuracy {epoch.val_accuracy:.4f}"
    )
    return (
        f"train: epoch {epoch.number:>{len(str(epochs))}}/{epochs}  loss {epoch.loss:.4f}  "
        f"accuracy {epoch.accuracy:.4f}{validation}  {remaining:.0f} s left"
    )


def describe_best(best: Epoch, epochs: int, stopping: EarlyStopping | None) -> str:
    """Which epoch's weights the network has, and why, for people."""
    why = f"best {stopping.monitor} of {epochs}, {getattr(best, stopping.monitor):.4f}" if stopping else "the last"
    return f"train: kept the weights of epoch {best.number} ({why})"


def choose_threads(batch_size: int, *, has_convolutions: bool) -> None:
    """Let TensorFlow use one core, or all of them where that is faster; the bytes are the same.

    With convolutions several operations run at a time, one core each; else one operation on one core or on all.
    """
    intra_op = 1 if has_convolutions or batch_size < _LARGE_BATCH else 0
    inter_op = os.cpu_count() or 1 if has_convolutions else 1
    # Where it is at work already it can no longer be told, and keeps to what it has.
    with suppress(RuntimeError):
        tf.config.threading.set_intra_op_parallelism_threads(intra_op)
        tf.config.threading.set_inter_op_parallelism_threads(inter_op)


def write_history(path: Path, epochs: list[Epoch], best: Epoch | None = None) -> None:
    """Write one row per epoch; the validation columns are left out where there was no validation split.

    best: the epoch to mark in a column of its own.
    """
    columns = [name for name in Epoch._fields[1:] if not math.isnan(getattr(epochs[0], name))]
    marks = [[int(epoch == best)] if best else [] for epoch in epochs]
    write_csv(
        path,
        ["epoch", *columns, *(["best"] if best else [])],
        [
            [epoch.number, *(f"{getattr(epoch, column):.4f}" for column in columns), *mark]
            for epoch, mark in zip(epochs, marks, strict=True)
        ],
    )


def require_flippable(params: TrainParams, dataset: Mapping[str, Any]) -> None:
    """Refuse to mirror handwritten digits.

    dataset: what `normalize` tells of the data.

    Raises:
        ParamsError: a mirrored image would be none of its class.
    """
    names = dataset["class_names"]
    if params.augmentation.horizontal_flip and names == _DIGITS:
        raise ParamsError(
            "train.augmentation.horizontal_flip",
            expected=f"false where the classes are the digits 0 to 9, as in {dataset['name']}",
            got="true: a mirrored digit is no digit",
            hint="set it to false",
        )


def warn(params: TrainParams, sections: Mapping[str, Any], data_dir: Path = Path("data/normalized")) -> list[str]:
    """What can be told before training, of its results and of the export."""
    return [*warn_of_flips(params, data_dir), *warn_of_size(params, sections, data_dir)]


def warn_of_flips(params: TrainParams, data_dir: Path) -> list[str]:
    """What tells that mirrored images may be none of their classes, whose names are letters or digits."""
    names = read_json(data_dir / "dataset.json")["class_names"]
    if not params.augmentation.horizontal_flip or not all(len(name) == 1 and name.isalnum() for name in names):
        return []
    where = "train.augmentation.horizontal_flip"
    return [f"{where} mirrors images of classes such as {names[0]!r}: set it to false if they are letters or digits"]


def warn_of_size(
    params: TrainParams, sections: Mapping[str, Any], data_dir: Path = Path("data/normalized")
) -> list[str]:
    """What tells before training that the int8 export will be too large for its microcontroller.

    sections: all of params.yaml.
    """
    dataset = read_json(data_dir / "dataset.json")
    hidden_units, conv_blocks, _ = describe_architecture(params)
    image_size, class_count = tuple(dataset["image_size"]), len(dataset["class_names"])
    sizes = Sizes(image_size, hidden_units, class_count, conv_blocks, dataset["channels"])
    try:
        limits = read_limits(sections["export"])
    except ParamsError as error:
        return [str(error)]
    except (KeyError, TypeError):  # `export` says so itself
        return []
    misfit = find_misfit(sizes, limits) if limits else None
    return [f"{misfit.where} will be withheld: it {misfit.problem}; {misfit.hint}"] if misfit else []


def run(
    params: TrainParams,
    data_dir: Path = Path("data/normalized"),
    model_path: Path = Path("models/model.keras"),
    history_path: Path = Path("reports/history.csv"),
    on_epoch_end: Callable[[Epoch], None] | None = None,
) -> None:
    """Train on the normalized data, then write the network and its history."""
    if untested := find_untested_here():
        print(f"train: nobody has tried this on {untested}: dvc.lock may get other bytes here", file=sys.stderr)
    dataset = read_json(data_dir / "dataset.json")
    class_count = len(dataset["class_names"])
    require_flippable(params, dataset)
    choose_threads(params.batch_size, has_convolutions=bool(params.conv_blocks))
    trained = train_network(params, data_dir, class_count, on_epoch_end)
    save_keras(trained.network, model_path)
    write_history(history_path, trained.epochs, trained.best if params.early_stopping.patience else None)


if __name__ == "__main__":
    main("train", TrainParams, run, warn=warn)
