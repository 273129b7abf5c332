"""What several test modules share that takes seconds to make."""

import os
import shutil
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import mlflow
import numpy as np
import pytest
from filelock import FileLock
from hypothesis import HealthCheck, settings
from imports import ROOT
from mlflow import MlflowClient
from numpy.typing import NDArray
from project import Project
from samples import CLASS_NAMES, IMAGE_SIZE, NORMALIZATION, make_split
from stores import enter_root

from stages.lib.core.arrays import Split
from stages.lib.core.files import write_json
from stages.lib.data import mnist as mnist_module
from stages.lib.data.digits import load_digits
from stages.lib.data.mnist import load_mnist
from stages.lib.exports.checksums import write_checksums
from stages.lib.model.prediction import predict_in_batches

# Python runs a module of this name as it starts (https://docs.python.org/3/library/site.html#module-sitecustomize). It
# has each stage write down, as it ends, what it has loaded.
SITECUSTOMIZE = """
import atexit, sys
from pathlib import Path
def write_modules():
    spec = sys.modules["__main__"].__spec__
    if spec and spec.name.startswith("stages."):
        loaded = (name for name, module in sys.modules.items() if module)
        Path(__file__).with_name(spec.name).write_text("\\n".join(loaded), encoding="utf-8")
atexit.register(write_modules)
"""
# 48 * 24 weights: from 1,024 on, the dynamic-range conversion makes them int8.
HIDDEN_UNITS = (24,)


class SmallModel(NamedTuple):
    """A network for images of 6 by 8 pixels and three classes, and each export of it."""

    weights: Sequence[NDArray[np.float32]]  # kernel and bias of each layer in turn
    test: Split  # raw images, which it was not trained on
    features: NDArray[np.float32]  # the same images, normalized
    reference: NDArray[np.float32]  # Keras's probabilities for them
    probabilities: NDArray[np.float64]  # the exact ones
    exports: Mapping[str, bytes]  # by the file's name

    def save(self, folder: Path) -> Path:
        """The folder, with all exports and their digests in it."""
        for name, content in self.exports.items():
            (folder / name).write_bytes(content)
        write_checksums(folder)
        return folder


@pytest.fixture(scope="session")
def small_model() -> SmallModel:
    """A small network, trained for a moment, so that some of its answers are sure and some are not."""
    # Not above: no test should wait for TensorFlow that does without.
    from stages import export  # noqa: PLC0415
    from stages.lib.exports.conversion import fold_normalization  # noqa: PLC0415
    from stages.lib.model.deterministic_tensorflow import keras  # noqa: PLC0415
    from stages.lib.model.network import Architecture, build_network  # noqa: PLC0415
    from stages.lib.model.order_free_network import compile_probabilities  # noqa: PLC0415
    from stages.lib.model.training import Schedule, fit  # noqa: PLC0415

    keras.utils.set_random_seed(0)
    raw, test = make_split(300, seed=1), make_split(150, seed=2)
    train = Split(NORMALIZATION.apply(raw.images), raw.labels)
    nothing = Split(train.images[:0], train.labels[:0])
    network = build_network(IMAGE_SIZE, Architecture(HIDDEN_UNITS), len(CLASS_NAMES), "linear")
    optimizer = keras.optimizers.Adam(0.01)
    fit(network, optimizer, train, nothing, Schedule(epochs=1, batch_size=32, seed=0), on_epoch_end=lambda _: None)
    classifier = build_network(IMAGE_SIZE, Architecture(HIDDEN_UNITS), len(CLASS_NAMES), "softmax")
    classifier.set_weights(network.get_weights())
    pixel_network = fold_normalization(classifier, NORMALIZATION)
    metadata = {"class_names": list(CLASS_NAMES), "image_size": list(IMAGE_SIZE)}
    features = NORMALIZATION.apply(test.images)
    return SmallModel(
        weights=network.get_weights(),
        test=test,
        features=features,
        reference=predict_in_batches(classifier, features),
        probabilities=compile_probabilities(classifier)(features),
        exports=MappingProxyType(export.convert(list(export.FILES), pixel_network, raw.images, metadata, opset=18)),
    )


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """A Chromium; UI_SCREENSHOTS names the folder that takes the charts for people."""
    # Not above: no test should wait for Selenium that does without.
    from browser import CHROMEDRIVER, CHROMIUM, Browser  # noqa: PLC0415
    from selenium.common.exceptions import WebDriverException  # noqa: PLC0415

    if not (CHROMIUM and CHROMEDRIVER):
        pytest.skip("no Chromium here: apt-get install chromium chromium-driver")
    pictures_dir = os.environ.get("UI_SCREENSHOTS")
    try:
        browser = Browser(tmp_path_factory.mktemp("browser"), Path(pictures_dir) if pictures_dir else None)
    except WebDriverException as error:  # no display server's libraries, a forbidden system call, …
        pytest.skip(f"Chromium does not start on this machine: {error.msg}")
    yield browser
    browser.close()


@pytest.fixture(scope="session")
def digits():
    return load_digits(0.2, 0)


@pytest.fixture(scope="session")
def mnist(tmp_path_factory):
    """MNIST from a folder or a server that this machine has; the public mirrors are left alone."""
    mirror = os.environ.get("MNIST_MIRROR") or str(ROOT.parent / "shared" / "mnist")
    if "://" not in mirror and not (ROOT / mirror).exists():
        pytest.skip(f"needs MNIST: no files in {mirror}; MNIST_MIRROR can name another place")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MNIST_MIRROR", mirror if "://" in mirror else str(ROOT / mirror))
        patch.setenv("DVC_ROOT", str(tmp_path_factory.mktemp("root")))
        patch.setattr(mnist_module, "_MIRRORS", ())
        return load_mnist()


@pytest.fixture(scope="session")
def reproduced(tmp_path_factory):
    """A clone in which `dvc repro` ran undisturbed, once for all processes of these tests; they work in copies of it.

    Beside it are `stages.json`, which names the stages that ran, and `modules`, with a file for each stage: what it
    had loaded at its end.
    """
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "reproduced"
    with FileLock(f"{folder}.lock"):
        if not (folder / "stages.json").exists():
            (folder / "modules").mkdir(parents=True)
            (folder / "modules/sitecustomize.py").write_text(SITECUSTOMIZE, encoding="utf-8")
            (folder / "clone").mkdir()
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("PYTHONPATH", str(folder / "modules"))
                ran = Project.clone(folder / "clone").repro()
            write_json(folder / "stages.json", {"ran": ran})
    return Project(folder / "clone")


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory):
    """A fresh SQLite store: creating its tables takes seconds, copying the file does not."""
    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    MlflowClient(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def root(tmp_path, monkeypatch, empty_store):
    """A project's root with an empty store of its own; the current folder."""
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    yield enter_root(tmp_path, monkeypatch)
    mlflow.set_tracking_uri(None)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):  # noqa: ARG001  # pytest passes by name
    """A failed test with a browser tells where the chart of what it saw lies."""
    report = yield
    browser = getattr(item, "funcargs", {}).get("browser")
    if report.failed and browser:
        report.sections.append(("Page as it was seen", str(browser.take_failure(item.name.replace("/", "-")))))
    return report


def pytest_addoption(parser):
    """How often test_interruptions.py interrupts a stage, and test_properties.py makes an input up."""
    parser.addoption("--moments", type=int, default=2, help="random moments at which stages are interrupted")
    parser.addoption("--examples", type=int, default=20, help="made-up inputs for each property that must hold")


def pytest_configure(config):
    """The same made-up inputs in every run, and a Ctrl-C that counts, however the tests were started."""
    # A shell that starts the tests in the background has them, and all that they start, ignore Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    settings.register_profile(
        "same",
        max_examples=config.getoption("--examples"),
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    settings.load_profile("same")
