"""Train the network.

Reads   data/normalized/{train,validation}, data/normalized/dataset.json
Writes  models/model.keras    float32 (N, H, W) in, probabilities (N, classes) out
        reports/history.csv   loss and accuracy of each epoch, on the training and the validation split; with early
                              stopping `best`, too, which is 1 in the row of the epoch whose weights the network has
"""

import math
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import Field

from stages.lib.core.arrays import load_split
from stages.lib.core.errors import ParamsError
from stages.lib.core.files import read_json, write_csv
from stages.lib.core.params import Section
from stages.lib.model.boards import read_limits
from stages.lib.model.canonical_keras import save_keras
from stages.lib.model.deterministic_tensorflow import keras, tf
from stages.lib.model.int8_footprint import Sizes, find_misfit
from stages.lib.model.network import Architecture, build_network
from stages.lib.model.optimizers import OPTIMIZERS, OptimizerName
from stages.lib.model.order_free_convolution import MAX_FILTERS
from stages.lib.model.order_free_optimizers import create_optimizer
from stages.lib.model.training import EarlyStopping, Epoch, Schedule, fit
from stages.lib.runner.stage import main
from stages.lib.runner.tested_machines import find_untested_here

# From this size of batches on, two threads are faster than one (measured from 32 to 1,024 images, 20 to 1,024 units);
# below it they wait for each other longer than they compute.
_LARGE_BATCH = 512


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
    optimizer: OptimizerName = Field(description=f"one of {', '.join(OPTIMIZERS)}")
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
        ParamsError: early stopping is on, and there is no validation split to tell when.
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
    )
    optimizer = create_optimizer(params.optimizer, params.learning_rate)
    best = fit(network, optimizer, train, validation, schedule, on_epoch_end=report)
    print(describe_best(best, len(epochs), schedule.early_stopping), flush=True)
    classifier = build_network(image_shape, architecture, class_count, "softmax")
    classifier.set_weights(network.get_weights())
    return Trained(classifier, epochs, best)


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
    """Let TensorFlow use one core, or all of them where that is faster; the bytes are the same."""
    is_large = has_convolutions or batch_size >= _LARGE_BATCH
    # Where it is at work already it can no longer be told, and keeps to what it has.
    with suppress(RuntimeError):
        tf.config.threading.set_intra_op_parallelism_threads(0 if is_large else 1)


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
    choose_threads(params.batch_size, has_convolutions=bool(params.conv_blocks))
    trained = train_network(params, data_dir, class_count, on_epoch_end)
    save_keras(trained.network, model_path)
    write_history(history_path, trained.epochs, trained.best if params.early_stopping.patience else None)


if __name__ == "__main__":
    main("train", TrainParams, run, warn=warn_of_size)
