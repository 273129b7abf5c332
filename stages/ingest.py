"""Bring a data set into one shape, verified against its publisher's hashes.

Reads   ${ingest.path}                     a person's own images, with ingest.dataset: folder
Writes  data/raw/{train,test}/images.npy   uint8 (N, H, W), 0..255
        data/raw/{train,test}/labels.npy   uint8 (N,), class ids
        data/raw/{train,test}/files.csv    the file that each image was and its height and width in pixels, of a folder
        data/raw/dataset.json              name, class names, expected counts, image size, channels, source hashes
"""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator

from stages.lib.core.arrays import count_channels, save_array
from stages.lib.core.errors import ParamsError
from stages.lib.core.files import atomic_write, require_space, write_csv, write_json
from stages.lib.core.params import Section
from stages.lib.data.cifar10 import load_cifar10
from stages.lib.data.datasets import Dataset
from stages.lib.data.digits import load_digits
from stages.lib.data.fashion_mnist import load_fashion_mnist
from stages.lib.data.mnist import load_mnist
from stages.lib.data.own_images import load_folder
from stages.lib.runner.stage import main

# Of each data set that has always the same; a folder's are chosen.
_CHANNELS = {"digits": 1, "mnist": 1, "fashion_mnist": 1, "cifar10": 3}


class IngestParams(Section):
    """The `ingest` section of params.yaml."""

    dataset: Literal["digits", "mnist", "fashion_mnist", "cifar10", "folder"] = Field(
        description="one of digits, mnist, fashion_mnist, cifar10, folder"
    )
    path: str = Field(min_length=1, description="the path of a folder or an .npz file")
    image_size: list[Annotated[int, Field(ge=1, le=1024)]] = Field(
        min_length=2, max_length=2, description="a list of height and width, whole numbers of pixels from 1 to 1024"
    )
    channels: int = Field(description="1, grey, or 3, colour")
    test_fraction: float = Field(gt=0, lt=1, description="a number above 0 and below 1")
    seed: int = Field(ge=0, lt=2**32, description="a whole number from 0 to 4294967295")

    @field_validator("channels")
    @classmethod
    def _require_channels(cls, channels: int) -> int:
        if channels not in (1, 3):  # a Literal would take true for 1
            raise ValueError
        return channels

    @property
    def image_shape(self) -> tuple[int, ...]:
        """What images of a folder are brought to: (H, W), grey, or (H, W, 3), RGB."""
        return (*self.image_size, self.channels) if self.channels > 1 else tuple(self.image_size)


def load_dataset(params: IngestParams) -> Dataset:
    """Load the data set that the params name.

    Raises:
        ParamsError: it has other channels than the params say.
        DataError: it is missing, damaged or does not fit.
    """
    require_channels(params)
    match params.dataset:
        case "digits":
            return load_digits(params.test_fraction, params.seed)
        case "mnist":
            return load_mnist()
        case "fashion_mnist":
            return load_fashion_mnist()
        case "cifar10":
            return load_cifar10()
        case "folder":
            return load_folder(params.path, params.image_shape, params.test_fraction, params.seed)


def require_channels(params: IngestParams) -> None:
    """Refuse channels that a data set does not have: later stages read them in the params.

    Raises:
        ParamsError: the data set is grey, or in colour.
    """
    channels = _CHANNELS.get(params.dataset, params.channels)
    if params.channels != channels:
        kind = "grey" if channels == 1 else "in colour"
        raise ParamsError(
            "params.yaml: ingest.channels",
            expected=f"{channels} for {params.dataset}, which is {kind}",
            got=str(params.channels),
            hint=f"set ingest.channels to {channels}",
        )


def name_dataset(params: IngestParams) -> str:
    """What the data set is called in reports: a folder by its own name."""
    return Path(params.path).stem if params.dataset == "folder" else params.dataset


def write_dataset(dataset: Dataset, name: str, target_dir: Path) -> None:
    """Write both splits and where they came from."""
    for split_name in ("train", "test"):
        split = getattr(dataset, split_name)
        split_dir = target_dir / split_name
        split_dir.mkdir(parents=True)
        save_array(split_dir / "images.npy", split.images)
        save_array(split_dir / "labels.npy", split.labels)
        if dataset.files:
            rows = zip(dataset.files[split_name], *dataset.sizes[split_name].T.tolist(), strict=True)
            write_csv(split_dir / "files.csv", ["file", "height", "width"], rows)
    write_json(
        target_dir / "dataset.json",
        {
            "channels": count_channels(dataset.train.images),
            "class_names": dataset.class_names,
            "image_size": dataset.train.images.shape[1:3],
            "name": name,
            "expected": dataset.expected,
            "sources": dataset.sources,
        },
    )


def run(params: IngestParams, target_dir: Path = Path("data/raw")) -> None:
    """Fetch or unpack the data set and write it whole."""
    dataset = load_dataset(params)
    name = name_dataset(params)
    require_space(target_dir, dataset.train.images.size + dataset.test.images.size)
    with atomic_write(target_dir) as partial_dir:
        write_dataset(dataset, name, partial_dir)
    print(f"ingest: {name}: {len(dataset.train.labels)} training and {len(dataset.test.labels)} test images")


if __name__ == "__main__":
    main("ingest", IngestParams, run)
