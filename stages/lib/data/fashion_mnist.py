"""The data set `fashion_mnist`, downloaded from a mirror and verified."""

from stages.lib.data.datasets import Dataset
from stages.lib.data.download import PublishedFile
from stages.lib.data.mnist import load_idx_files

# H. Xiao, K. Rasul, R. Vollgraf, Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine Learning Algorithms
# (2017). Its authors publish MD5 alone. The SHA-256 and sizes, of the same compressed files, are TensorFlow Datasets'
# (tensorflow_datasets/url_checksums/fashion_mnist.txt).
FILES = {
    ("train", "images"): PublishedFile(
        "train-images-idx3-ubyte.gz",
        "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
        26_421_880,
    ),
    ("train", "labels"): PublishedFile(
        "train-labels-idx1-ubyte.gz",
        "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
        29_515,
    ),
    ("test", "images"): PublishedFile(
        "t10k-images-idx3-ubyte.gz",
        "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
        4_422_102,
    ),
    ("test", "labels"): PublishedFile(
        "t10k-labels-idx1-ubyte.gz",
        "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
        5_148,
    ),
}
# Keras's copy, and the authors' own.
_MIRRORS = (
    "https://storage.googleapis.com/tensorflow/tf-keras-datasets",
    "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion",
)
_CLASS_NAMES = (
    *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
)


def load_fashion_mnist() -> Dataset:
    """Load Fashion-MNIST's 60,000 and 10,000 grey images (28 x 28).

    They come from FASHION_MNIST_MIRROR if it is set, else from the public mirrors.

    Raises:
        DataError: a file could not be had whole.
    """
    return load_idx_files("fashion_mnist", FILES, _MIRRORS, _CLASS_NAMES)
