"""The pipeline gives the same bytes on processors that this machine is not: QEMU emulates them, caches included."""

import platform
import shutil
import subprocess
import sys

import numpy as np
import pytest
from ai_edge_litert.tools.flatbuffer_utils import convert_bytearray_to_object, convert_object_to_bytearray
from click.testing import CliRunner
from imports import ROOT
from project import Project
from samples import list_files, write_normalized, write_raw

from stages import export, train
from stages.commands.main import main
from stages.lib.core.arrays import Split
from stages.lib.core.errors import PipelineError
from stages.lib.core.files import write_json
from stages.lib.core.params import load_params, validate_section
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
# Each export's answers to all images in each runtime that AArch64 has, and LiteRT's outputs as they are, of each of its
# three sets of kernels: XNNPACK, its own, and the reference.
ANSWER = """
import sys
from pathlib import Path
import numpy as np
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from stages.lib.exports.runtimes import load_content
export_dir, images_path, out = map(Path, sys.argv[1:])
images = np.load(images_path)
answers = {}
for path in sorted(export_dir.iterdir()):
    if path.suffix == ".onnx":
        answers[f"{path.name} onnx_runtime"] = load_content(path.read_bytes(), "onnx_runtime", path.name)(images)
    elif path.suffix == ".tflite":
        for kernels in ("AUTO", "BUILTIN_WITHOUT_DEFAULT_DELEGATES", "BUILTIN_REF"):
            resolver = OpResolverType[kernels]
            interpreter = Interpreter(str(path), num_threads=1, experimental_op_resolver_type=resolver)
            (pixels,), (output,) = interpreter.get_input_details(), interpreter.get_output_details()
            interpreter.resize_tensor_input(pixels["index"], images.shape)
            interpreter.allocate_tensors()
            interpreter.set_tensor(pixels["index"], images)
            interpreter.invoke()
            answers[f"{path.name} {kernels}"] = interpreter.get_tensor(output["index"])
np.savez(out, **answers)
"""
# By the first word of ANSWER's names: the largest |Δp| between two machines. Sums in another order: 1.3e-6 measured.
ROUNDING = 1e-5
TOLERANCES = {
    "model.onnx": ROUNDING,
    "model.tflite": ROUNDING,
    "model_float16.tflite": ROUNDING,
    "model_int8.onnx": ROUNDING,
    # Activations are rounded to 8 bits, where one next to a half may come to the other side: 1.3e-4 measured.
    "model_dynamic_range.tflite": 1e-3,
}
LOGITS = "logits_int8.tflite"
# Share of the output bytes that LiteRT's softmax on AArch64 makes a step larger or smaller: 0.0008 measured.
MAX_OTHER_BYTES = 0.003
# Share of the logits that a second rounding changes: 0.002 and 0.04 measured here, 0 and 0.0003 on AArch64.
MAX_OTHER_LOGITS = 0.001
# The second is that of docs/recipes/digits.yaml, trained for a moment.
ANSWERING = {
    "dense": {},
    "convolution": {"conv_blocks": [[8, 8], [12, 14]], "hidden_units": [], "epochs": 10, "learning_rate": 2e-3},
}


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


@pytest.fixture(scope="module", params=ANSWERING)
def answers(request, digits, tmp_path_factory):
    """What the exports of a network for digits, made here, and its int8 logits are here and on AArch64."""
    python = emulate("aarch64")
    root = tmp_path_factory.mktemp("answers")
    sections = load_params()
    write_raw(root, digits)
    data_dir, model_path, export_dir = write_normalized(root), root / "model.keras", root / "export"
    train_params = validate_section(sections["train"] | ANSWERING[request.param], train.TrainParams, "")
    train.run(train_params, data_dir, model_path, root / "history.csv")
    export_params = validate_section(sections["export"], export.ExportParams, "")
    export.run(export_params, data_dir, root / "data/raw", model_path, export_dir, root)
    (export_dir / LOGITS).write_bytes(cut_softmax((export_dir / "model_int8.tflite").read_bytes()))
    for name, command in (("here", [sys.executable]), ("there", python)):
        run_on(command, ANSWER, export_dir, root / "data/raw/test/images.npy", root / f"{name}.npz")
    here, there = (dict(np.load(root / f"{name}.npz")) for name in ("here", "there"))
    assert list(here) == list(there)
    assert len(here) == 2 + 5 * 3
    return here, there


def cut_softmax(content):
    """An int8 file that ends with the logits, which it gives as they are."""
    model = convert_bytearray_to_object(bytearray(content))
    (graph,) = model.subgraphs
    *graph.operators, softmax, _ = graph.operators
    graph.outputs, model.signatureDefs = softmax.inputs, []
    return bytes(convert_object_to_bytearray(model))


def test_exports_give_the_same_classes_on_aarch64(answers):
    """All six files, in ONNX Runtime and in each of LiteRT's sets of kernels, for every test image of digits."""
    here, there = answers

    assert {name: np.count_nonzero(here[name].argmax(1) != there[name].argmax(1)) for name in here} == (
        dict.fromkeys(here, 0)
    )


def test_exports_with_floats_differ_on_aarch64_by_rounding_alone(answers):
    """Probabilities are those of x86-64 up to the order of the sums."""
    here, there = answers
    for name in here:
        file, _ = name.split()
        if file in TOLERANCES:
            np.testing.assert_allclose(there[name], here[name], rtol=0, atol=TOLERANCES[file], err_msg=name)


def test_int8_file_gives_the_same_bytes_on_aarch64(answers):
    """The reference kernels' bytes are equal; so are XNNPACK's logits, to which a softmax of fewer bits is applied.

    Source: TFLITE_SOFTMAX_USE_UINT16_LUT of tensorflow/lite/kernels/internal/optimized/optimized_ops.h, by which
    LiteRT's own softmax, which XNNPACK leaves to it, takes tables of 16 bits on AArch64 in place of floats.
    """
    here, there = answers
    name = "model_int8.tflite"

    np.testing.assert_array_equal(there[f"{name} BUILTIN_REF"], here[f"{name} BUILTIN_REF"], strict=True)
    for kernels in ("AUTO", "BUILTIN_REF"):
        np.testing.assert_array_equal(there[f"{LOGITS} {kernels}"], here[f"{LOGITS} {kernels}"], strict=True)
    steps = np.abs(there[f"{name} AUTO"].astype(int) - here[f"{name} AUTO"])
    assert steps.max() <= 1
    assert np.count_nonzero(steps) <= MAX_OTHER_BYTES * steps.size


def test_literts_own_kernels_round_once_on_aarch64(answers):
    """There its own kernels give XNNPACK's logits but for one in a thousand; on x86-64, where they round twice, not."""
    shares = [
        np.mean(found[f"{LOGITS} BUILTIN_WITHOUT_DEFAULT_DELEGATES"] != found[f"{LOGITS} AUTO"]) for found in answers
    ]

    assert shares[0] > MAX_OTHER_LOGITS >= shares[1]


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
