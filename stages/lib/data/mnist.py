"""The data set `mnist`, downloaded from a mirror and verified."""

from collections.abc import Mapping, Sequence

from stages.lib.core.arrays import Split
from stages.lib.data.datasets import Dataset
from stages.lib.data.download import PublishedFile, fetch_dataset
from stages.lib.data.idx import open_idx

# Y. LeCun, C. Cortes, C. Burges, The MNIST database of handwritten digits. The hashes are of the decompressed files.
_FILES = {
    ("train", "images"): PublishedFile(
        "train-images-idx3-ubyte.gz",
        "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        47_040_016,
        is_of_content=True,
    ),
    ("train", "labels"): PublishedFile(
        "train-labels-idx1-ubyte.gz",
        "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        60_008,
        is_of_content=True,
    ),
    ("test", "images"): PublishedFile(
        "t10k-images-idx3-ubyte.gz",
        "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        7_840_016,
        is_of_content=True,
    ),
    ("test", "labels"): PublishedFile(
        "t10k-labels-idx1-ubyte.gz",
        "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
        10_008,
        is_of_content=True,
    ),
}
_MIRRORS = (
    "https://storage.googleapis.com/cvdf-datasets/mnist",
    "https://ossci-datasets.s3.amazonaws.com/mnist",
)


def load_mnist() -> Dataset:
    """Load MNIST's 60,000 and 10,000 images (28 x 28), from MNIST_MIRROR if it is set, else from the public mirrors.

    Raises:
        DataError: a file could not be had whole.
    """
    return load_idx_files("mnist", _FILES, _MIRRORS, class_names=tuple("0123456789"))


def load_idx_files(
    name: str, files: Mapping[tuple[str, str], PublishedFile], mirrors: Sequence[str], class_names: tuple[str, ...]
) -> Dataset:
    """Load a data set that is published as MNIST is: 60,000 and 10,000 grey images in four compressed IDX files.

    name: of the data set, as `fetch_dataset` takes it. files: by split (train, test) and kind (images, labels).

    Raises:
        DataError: a file could not be had whole.
    """
    paths = fetch_dataset(name, list(files.values()), mirrors)
    arrays = {key: open_idx(path, 3 if "images" in key else 1) for key, path in zip(files, paths, strict=True)}
    return Dataset(
        train=Split(arrays["train", "images"], arrays["train", "labels"]),
        test=Split(arrays["test", "images"], arrays["test", "labels"]),
        class_names=class_names,
        expected={"train": 60_000, "test": 10_000},
        # By the name of what the hash is of.
        sources={
            file.name.removesuffix(".gz") if file.is_of_content else file.name: file.sha256 for file in files.values()
        },
    )
