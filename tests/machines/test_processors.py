"""The pipeline gives the same bytes on processors that this machine is not: QEMU emulates them, caches included."""

import platform
import shutil
import subprocess
import sys

import numpy as np
import pytest
from click.testing import CliRunner
from imports import ROOT
from project import Project
from samples import list_files, write_normalized, write_raw

from stages.commands.main import main
from stages.lib.core.arrays import Split
from stages.lib.core.errors import PipelineError
from stages.lib.core.files import write_json
from stages.lib.verification.rebuilds import CPUS, emulate_aarch64, emulate_cpu

pytestmark = pytest.mark.slow

# As many images as make two steps of the largest batch, and a smaller one.
IMAGES = 1_300
AUGMENTATION = {
    "shift": 2,
    "rotation": 10.0,
    "scale": 0.1,
    "horizontal_flip": True,
    "brightness": 0.1,
    "contrast": 0.2,
}
CONVOLUTION = {
    "hidden_units": [16],
    "dropout": 0.25,
    "learning_rate_schedule": {"decay": "cosine", "warmup_steps": 5},
    "weight_decay": 0.1,
    "class_weights": "balanced",
}
# Products of 784 terms, of 576 in the second layer, and of 512 in the gradients: each beyond a block of some cache.
# Then convolutions with all that changes an image, a step or a weight, on grey and on coloured images.
SETTINGS = {
    "default": {"hidden_units": [20]},
    "second layer": {"hidden_units": [576, 20]},
    "large batch": {"hidden_units": [20], "batch_size": 512},
    "grey": CONVOLUTION | {"conv_blocks": [[16], [32]], "augmentation": AUGMENTATION | {"horizontal_flip": False}},
    "colour": CONVOLUTION | {"conv_blocks": [[8, 48], [16]], "augmentation": AUGMENTATION},
}
TRAIN = f"""
import sys
from pathlib import Path
from stages.lib.core.params import load_params, validate_section
from stages.train import TrainParams, run
data_dir, colour_dir, out = map(Path, sys.argv[1:])
for name, settings in {SETTINGS}.items():
    section = load_params()["train"] | {{"epochs": 1}} | settings
    params = validate_section(section, TrainParams, "")
    chosen_dir = colour_dir if name == "colour" else data_dir
    run(params, chosen_dir, out / name / "model.keras", out / name / "history.csv")
"""
# Products as training makes them, of more terms than a block has, as text.
MULTIPLY = """
import numpy as np
from stages.lib.model.deterministic_tensorflow import tf
from stages.lib.model.order_free import VALUE_BITS, multiply, round_to_grid
generator = np.random.default_rng(0)
for terms in (576, 784, 1024, 2048):
    pair = [tf.constant(generator.standard_normal(shape)) for shape in ((32, terms), (terms, 20))]
    one, other = [round_to_grid(values, tf.reduce_max(tf.abs(values)), VALUE_BITS) for values in pair]
    print(multiply(one, other, terms, 2 * VALUE_BITS).numpy().tobytes().hex())
"""


def emulate(processor):
    """How to start Python on that processor; where that is not possible the test is skipped, saying why."""
    if platform.machine() not in ("x86_64", "AMD64") and processor != "aarch64":
        pytest.skip(f"needs Python for x86-64, and this machine's is for {platform.machine()}")
    try:
        return (emulate_aarch64() if processor == "aarch64" else emulate_cpu(processor)).python
    except PipelineError as error:
        pytest.skip(str(error))


def run_on(python, code, *arguments, cwd=ROOT):
    """What a program prints that must succeed, `python` being the command that starts it, in the folder of `stages`."""
    done = subprocess.run(
        [*python, "-c", code, *map(str, arguments)], cwd=cwd, capture_output=True, text=True, check=False, timeout=3600
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def verify(folder, monkeypatch, *arguments):
    """What `pipeline verify` prints of one rebuild of a clone of this project."""
    project = Project.clone(folder)
    (project.root / ".cache").mkdir()
    (ROOT / ".cache/aarch64").mkdir(parents=True, exist_ok=True)
    (project.root / ".cache/aarch64").symlink_to(ROOT / ".cache/aarch64")  # gigabytes
    monkeypatch.chdir(project.root)
    return CliRunner().invoke(main, ["verify", "--repeat", "0", *arguments]).output


@pytest.mark.parametrize("cpu", CPUS)
def test_digits_give_the_committed_lock(tmp_path, monkeypatch, cpu):
    """The whole pipeline gives the committed bytes on processors with L1 data caches of each size there is."""
    emulate(cpu)
    output = verify(tmp_path / "clone", monkeypatch, "--cpu", cpu)

    assert output.endswith("\n1 of 1 rebuilds identical\n"), output


def test_digits_give_the_committed_lock_on_another_architecture(tmp_path, monkeypatch):
    """From ingest to export every byte is the committed one on AArch64, too."""
    monkeypatch.chdir(ROOT)
    emulate("aarch64")
    output = verify(tmp_path / "clone", monkeypatch, "--arch", "aarch64")

    assert output.endswith("\n1 of 1 rebuilds identical\n"), output


@pytest.fixture(scope="module")
def few_images(mnist, tmp_path_factory):
    """The first images of MNIST, normalized, and what training on them gives on this machine's own processor."""
    root, native_dir = tmp_path_factory.mktemp("few"), tmp_path_factory.mktemp("native")
    few = mnist._replace(
        train=Split(mnist.train.images[:IMAGES], mnist.train.labels[:IMAGES]),
        test=Split(mnist.test.images[:10], mnist.test.labels[:10]),
        expected={"train": IMAGES, "test": 10},
    )
    write_raw(root, few)
    data_dirs = write_normalized(root), write_colour(root)
    run_on([sys.executable], TRAIN, *data_dirs, native_dir)
    return data_dirs, native_dir


def write_colour(root):
    """A folder as `normalize` writes it, of 200 training and 50 validation images in colour, of 16 x 16 pixels."""
    generator = np.random.default_rng(0)
    for name, count in (("train", 200), ("validation", 50)):
        labels = (np.arange(count) % 3).astype(np.uint8)
        images = generator.random((count, 16, 16, 3)) + (labels[:, np.newaxis] == np.arange(3))[:, None, None]
        (root / "colour" / name).mkdir(parents=True)
        np.save(root / "colour" / name / "images.npy", ((images - 0.8) / 0.6).astype(np.float32))
        np.save(root / "colour" / name / "labels.npy", labels)
    write_json(root / "colour/dataset.json", {"class_names": ["red", "green", "blue"], "name": "made up"})
    return root / "colour"


@pytest.mark.parametrize("processor", [*CPUS, "aarch64"])
def test_training_on_mnist_gives_the_same_bytes(few_images, tmp_path, monkeypatch, processor):
    """Networks and histories are equal to the bit where sums are long enough to be cut by the caches' sizes."""
    data_dirs, native_dir = few_images
    monkeypatch.chdir(ROOT)
    run_on(emulate(processor), TRAIN, *data_dirs, tmp_path)

    assert set(list_files(tmp_path)) == {
        f"{name}/{file}" for name in SETTINGS for file in ("history.csv", "model.keras")
    }
    assert list_files(tmp_path) == list_files(native_dir)


def test_trap_springs_without_rounding(tmp_path):
    """With the rounding taken out, products differ where an L1 data cache of 64 KiB is reported: it would be seen."""
    python = emulate("Haswell,vendor=AuthenticAMD")
    shutil.copytree(ROOT / "stages", tmp_path / "stages")
    path = tmp_path / "stages/lib/model/order_free.py"
    before = path.read_text(encoding="utf-8")
    rounded, native = run_on(python, MULTIPLY), run_on([sys.executable], MULTIPLY)
    path.write_text(before.replace("    return rounded\n", "    return values\n"), encoding="utf-8")
    unrounded, unrounded_native = (run_on(command, MULTIPLY, cwd=tmp_path) for command in (python, [sys.executable]))

    assert path.read_text(encoding="utf-8") != before
    assert rounded == native
    assert unrounded != unrounded_native
