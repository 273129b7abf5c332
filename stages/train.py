"""Train the network.

Reads   data/normalized/{train,validation}, data/normalized/dataset.json
Writes  models/model.keras    float32 (N, H, W) in, probabilities (N, classes) out
        reports/history.csv   loss and accuracy of each epoch, on the training and the validation split
"""

import math
import time
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from stages.lib.arrays import load_split
from stages.lib.canonical_keras import save_keras
from stages.lib.deterministic_tensorflow import keras
from stages.lib.files import read_json, write_csv
from stages.lib.network import build_network
from stages.lib.params import Section
from stages.lib.stage import main
from stages.lib.training import Epoch, fit


class TrainParams(Section):
    """The `train` section of params.yaml."""

    hidden_units: list[Annotated[int, Field(ge=1)]] = Field(
        description="a list of whole numbers of units, each at least 1"
    )
    epochs: int = Field(ge=1, description="a whole number of epochs, at least 1")
    batch_size: int = Field(ge=1, description="a whole number of images, at least 1")
    learning_rate: float = Field(gt=0, description="a number above 0")
    optimizer: Literal["adam", "adamw", "nadam", "adamax", "adagrad", "rmsprop", "sgd", "lion"] = Field(
        description="one of adam, adamw, nadam, adamax, adagrad, rmsprop, sgd, lion"
    )
    seed: int = Field(ge=0, lt=2**32, description="a whole number from 0 to 4294967295")


def train_network(params: TrainParams, data_dir: Path, class_count: int) -> tuple[keras.Model, list[Epoch]]:
    """The trained network, which ends in probabilities, and how each epoch went."""
    train, validation = load_split(data_dir / "train"), load_split(data_dir / "validation")
    image_size = train.images.shape[1:]
    keras.utils.set_random_seed(params.seed)
    # Trained on logits: softmax differs in the last bit between processors, log-softmax as the loss takes it does not.
    network = build_network(image_size, params.hidden_units, class_count, "linear")
    optimizer = keras.optimizers.get(
        {"class_name": params.optimizer, "config": {"learning_rate": params.learning_rate}}
    )
    epochs: list[Epoch] = []
    started = time.monotonic()

    def report(epoch: Epoch) -> None:
        epochs.append(epoch)
        print(describe_progress(epoch, params.epochs, time.monotonic() - started), flush=True)

    fit(
        network,
        optimizer,
        train,
        validation,
        epochs=params.epochs,
        batch_size=params.batch_size,
        seed=params.seed,
        on_epoch_end=report,
    )
    classifier = build_network(image_size, params.hidden_units, class_count, "softmax")
    classifier.set_weights(network.get_weights())
    return classifier, epochs


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


def write_history(path: Path, epochs: list[Epoch]) -> None:
    """Write one row per epoch; the validation columns are left out where there was no validation split."""
    columns = [name for name in Epoch._fields[1:] if not math.isnan(getattr(epochs[0], name))]
    write_csv(
        path,
        ["epoch", *columns],
        [[epoch.number, *(f"{getattr(epoch, column):.4f}" for column in columns)] for epoch in epochs],
    )


def run(
    params: TrainParams,
    data_dir: Path = Path("data/normalized"),
    model_path: Path = Path("models/model.keras"),
    history_path: Path = Path("reports/history.csv"),
) -> None:
    """Train on the normalized data, then write the network and its history."""
    class_count = len(read_json(data_dir / "dataset.json")["class_names"])
    network, epochs = train_network(params, data_dir, class_count)
    save_keras(network, model_path)
    write_history(history_path, epochs)


if __name__ == "__main__":
    main("train", TrainParams, run)
