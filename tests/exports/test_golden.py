"""Golden vectors say, to anybody who can read JSON, what every export answers to a few images."""

import json
from pathlib import Path
from tempfile import NamedTemporaryFile

import numpy as np
import onnxruntime
import pytest
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from onnx import load_from_string
from onnx.reference import ReferenceEvaluator
from runs import list_runs
from samples import CLASS_NAMES, IMAGE_SIZE

from stages.lib.core.arrays import Split
from stages.lib.core.files import read_json, write_json
from stages.lib.exports.golden import Golden, describe_golden, find_golden
from stages.lib.exports.runtimes import RUNTIMES, find_runtimes
from stages.lib.exports.tflite_micro import HAS_MICRO
from stages.lib.microcontroller.integer_reference import IntegerReference

if HAS_MICRO:
    from tflite_micro.python.tflite_micro import runtime as micro
if not RUNTIMES["tract"].missing_reason:
    import tract

INT8 = "model_int8.tflite"
# Keras adds up in float32: 2e-7 measured.
KERAS_TOLERANCE = 1e-6
# As in params.yaml, but for small images: see test_runtimes.py.
MAX_ABS_ERRORS = {
    "model.onnx": 1e-5,
    "model_int8.onnx": 0.02,
    "model.tflite": 1e-5,
    "model_float16.tflite": 1e-3,
    "model_dynamic_range.tflite": 0.01,
    INT8: 0.02,
}
RUNS = list_runs(MAX_ABS_ERRORS)


@pytest.fixture(scope="module")
def golden(small_model):
    return find_golden(small_model.probabilities, small_model.test)


@pytest.fixture(scope="module")
def golden_path(small_model, golden, tmp_path_factory):
    """The golden vectors of the small network's exports in a file."""
    reference = IntegerReference(small_model.exports[INT8])
    integers = {INT8: (reference.answer(golden.images), reference.bound_rounding(golden.probabilities))}
    path = tmp_path_factory.mktemp("golden") / "golden.json"
    write_json(path, describe_golden(golden, CLASS_NAMES, MAX_ABS_ERRORS, integers))
    return path


def run_tract_as_a_stranger(content, images):
    """The same in tract, which reads files alone."""
    with NamedTemporaryFile(suffix=".onnx") as file:
        file.write(content)
        file.flush()
        return tract.onnx().load(file.name).into_model().into_runnable().run([images])[0].to_numpy()


def run_as_a_stranger(content, runtime, images):
    """What a model's file gives for each image, as the runtime gives it, without a line of the project's own code."""
    if runtime == "onnx_runtime":
        return onnxruntime.InferenceSession(content).run(None, {"images": images})[0]
    if runtime == "onnx_reference":
        return ReferenceEvaluator(load_from_string(content)).run(None, {"images": images})[0]
    if runtime == "tract":
        return run_tract_as_a_stranger(content, images)
    if runtime == "tflite_micro":
        interpreter = micro.Interpreter.from_bytes(content)
        outputs = []
        for image in images:
            interpreter.set_input(image[np.newaxis], 0)
            interpreter.invoke()
            outputs.append(interpreter.get_output(0)[0].copy())
        return np.array(outputs)
    kernels = {
        "litert": OpResolverType.AUTO,
        "litert_builtin": OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    }
    interpreter = Interpreter(model_content=content, experimental_op_resolver_type=kernels[runtime])
    (outputs,) = interpreter.get_signature_runner()(images=images).values()
    return outputs


def check_as_a_stranger(described, name, content, runtime):
    """Whether a file passes in a runtime, told from the JSON alone."""
    height, width = described["image_size"]
    pixels = [list(bytes.fromhex(image)) for image in described["images"]]
    images = np.array(pixels, np.uint8).reshape(-1, height, width)
    outputs = run_as_a_stranger(content, runtime, images)
    probabilities = outputs
    if name in described["integers"]:
        wanted = described["integers"][name]
        if np.abs(outputs.astype(int) - wanted["output"]).max() > wanted["tolerance"]:
            return False
        (details,) = Interpreter(model_content=content).get_output_details()
        scale, zero_point = details["quantization"]
        probabilities = (outputs.astype(np.float64) - zero_point) * scale
    return bool(np.abs(probabilities - described["probabilities"]).max() <= described["tolerances"][name])


def test_exact_answers_are_keras_within_float32(small_model):
    """Worked out exactly, the network gives Keras's probabilities, but for float32's rounding."""
    exact = small_model.probabilities

    assert (exact.dtype, exact.shape) == (np.float64, small_model.reference.shape)
    assert np.abs(exact - small_model.reference).max() <= KERAS_TOLERANCE


def choose_rows(labels, sureness, class_count=3):
    """The rows of the golden images among images with these labels, of which a network is so sure."""
    labels, sureness = np.array(labels), np.array(sureness, np.float64)
    probabilities = np.repeat((1 - sureness)[:, np.newaxis] / (class_count - 1), class_count, axis=1)
    probabilities[np.arange(len(labels)), labels] = sureness
    images = np.arange(3 * len(labels), dtype=np.uint8).reshape(-1, 1, 3)
    golden = find_golden(probabilities, Split(images, labels))

    np.testing.assert_array_equal(golden.labels, labels[golden.rows])
    np.testing.assert_array_equal(golden.images, images[golden.rows], strict=True)
    return golden.rows.tolist()


@pytest.mark.parametrize(
    ("labels", "sureness", "rows"),
    [
        pytest.param([0, 1, 2, 0, 1, 2], [0.995] * 6, [0, 1, 2], id="the first of each class"),
        pytest.param([2, 2, 0, 2, 1, 0], [0.995] * 6, [0, 2, 4], id="in the order of the split"),
        pytest.param([1, 1, 1], [0.995] * 3, [0], id="one class alone"),
        pytest.param([0, 0, 0], [0.9, 0.991, 0.999], [1], id="the first that is sure"),
        pytest.param([0, 0, 0, 1], [0.5, 0.98, 0.7, 0.4], [1, 3], id="the surest where none is sure"),
        pytest.param([0] * 101, [0.5] * 99 + [0.6, 0.999], [99], id="of the first hundred"),
    ],
)
def test_golden_images_are_the_first_sure_ones_of_each_class(labels, sureness, rows):
    """For each class that there is, the first image whose answer has 99 per cent, or else the surest, of a hundred."""
    assert choose_rows(labels, sureness) == rows


def test_golden_images_are_ten_at_most():
    """Of more than ten classes, the first ten have an image."""
    labels = [11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0]

    assert choose_rows(labels, [0.995] * 12, class_count=12) == [2, 3, 4, 5, 6, 7, 8, 9, 10, 11]


def test_golden_answers_are_those_to_its_images(small_model, golden):
    """Rows, images and answers belong together: they are those of the whole test split, picked."""
    np.testing.assert_array_equal(golden.probabilities, small_model.probabilities[golden.rows], strict=True)


def test_golden_images_outlive_the_file_they_came_from(small_model, tmp_path):
    """Images are copied out of a memory-mapped file."""
    np.save(tmp_path / "images.npy", small_model.test.images)
    images = np.load(tmp_path / "images.npy", mmap_mode="r+")
    golden = find_golden(small_model.probabilities, Split(images, small_model.test.labels))
    images[:] = 0

    np.testing.assert_array_equal(golden.images, small_model.test.images[golden.rows], strict=True)


def test_file_tells_all_that_a_device_needs(golden_path, golden):
    """From the JSON alone come the images, byte for byte, their classes, and the answers to six decimals."""
    described = json.loads(golden_path.read_text(encoding="utf-8"))

    assert described["image_size"] == list(IMAGE_SIZE)
    assert [bytes.fromhex(image) for image in described["images"]] == [image.tobytes() for image in golden.images]
    assert described["class_names"] == list(CLASS_NAMES)
    assert described["classes"] == [CLASS_NAMES[label] for label in golden.labels]
    assert np.abs(np.array(described["probabilities"]) - golden.probabilities).max() <= 0.5e-6 * (1 + 1e-9)
    assert described["tolerances"].keys() == MAX_ABS_ERRORS.keys()
    assert described["integers"].keys() == {INT8}


def test_tolerance_is_the_budget_and_room_for_rounding(golden_path):
    """A file may be off by its budget against Keras; the decimals, and Keras's own rounding, are 5e-6 more."""
    assert read_json(golden_path)["tolerances"] == {
        "model.onnx": 0.000015,
        "model_int8.onnx": 0.020005,
        "model.tflite": 0.000015,
        "model_float16.tflite": 0.001005,
        "model_dynamic_range.tflite": 0.010005,
        INT8: 0.020005,
    }


def test_class_names_are_by_label():
    """An image's class is told by its label's name, whatever the order of the images."""
    vectors = Golden(np.array([3, 7]), np.zeros((2, 1, 1), np.uint8), np.array([2, 0]), np.full((2, 3), 1 / 3))

    assert describe_golden(vectors, ["a", "b", "c"], {}, {})["classes"] == ["c", "a"]


@pytest.mark.parametrize(("name", "runtime"), RUNS)
def test_export_passes_in_the_hands_of_a_stranger(small_model, golden_path, name, runtime):
    """With the JSON file, the model's file and the runtime alone, every export is found to answer as it should."""
    assert check_as_a_stranger(read_json(golden_path), name, small_model.exports[name], runtime)


@pytest.mark.parametrize("key", ["images", "probabilities"])
@pytest.mark.parametrize("name", MAX_ABS_ERRORS)
def test_export_does_not_pass_with_others_vectors(small_model, golden_path, name, key):
    """What a stranger finds can be that the answers are others: here, those to the images in another order."""
    described = read_json(golden_path)
    described[key].reverse()

    assert not check_as_a_stranger(described, name, small_model.exports[name], find_runtimes(Path(name))[0])
