"""Every runtime takes raw pixels and nothing else, and gives probabilities; none of them is given a damaged file."""

import re
from pathlib import Path

import numpy as np
import pytest
from runs import list_runs, needs, needs_micro
from samples import CLASS_NAMES, IMAGE_SIZE, make_split, run_python

from stages.lib.core.errors import DataError, ExportError
from stages.lib.exports.checksums import CHECKSUMS_NAME
from stages.lib.exports.parity_matrix import NOT_FOR_MICRO, find_unsupported_reason
from stages.lib.exports.runtimes import RUNTIMES, find_runtimes, load_content, load_predictor
from stages.lib.model.prediction import predict_in_batches

# The largest |Δp| against Keras, in every runtime.
TOLERANCES = {
    # Sums in another order: 2e-7 measured.
    "model.onnx": 1e-5,
    "model.tflite": 1e-5,
    # Weights have 11 significant bits: 6e-5 measured.
    "model_float16.tflite": 1e-3,
    # Weights have 8 bits: 1e-3 measured.
    "model_dynamic_range.tflite": 0.01,
    # Weights and activations have 8 bits: 0.004 measured.
    "model_int8.onnx": 0.02,
    "model_int8.tflite": 0.02,
}
# Integers are the same in any order of sums; floats in one runtime differ as they do between two.
BATCH_TOLERANCES = dict.fromkeys(TOLERANCES, 1e-5) | {"model_int8.tflite": 0}
ABLE_RUNS = [
    (name, runtime)
    for name in TOLERANCES
    for runtime in find_runtimes(Path(name))
    if not find_unsupported_reason(name, runtime)
]
LITERT_RUNS = [(name, runtime) for name, runtime in ABLE_RUNS if runtime.startswith("litert")]
# Some as those it was trained on, some unlike them.
IMAGES = np.concatenate(
    [make_split(700, seed=3).images, np.random.default_rng(0).integers(0, 256, (300, *IMAGE_SIZE), np.uint8)]
)
# Asks for a runtime where its package is missing, and for the file's usual one.
CODE_WITHOUT_PACKAGE = """
import sys
package, name, runtime = sys.argv[1:]
sys.modules[package] = None  # as Python marks what cannot be imported
from pathlib import Path
from stages.lib.core.errors import ExportError
from stages.lib.exports.parity_matrix import find_unsupported_reason
from stages.lib.exports.runtimes import load_predictor
print(find_unsupported_reason(name, runtime))
load_predictor(Path(name))
try:
    load_predictor(Path(name), runtime)
except ExportError as error:
    print(error)
"""

ALL_RUNS = pytest.mark.parametrize(("name", "runtime"), list_runs(TOLERANCES))


def load(small_model, name, runtime):
    """An export of the small network in a runtime."""
    return load_content(small_model.exports[name], runtime, name)


def test_every_runtime_runs_an_export():
    """No runtime is listed that nothing is tried in, if this machine has it."""
    assert {runtime for _, runtime in ABLE_RUNS} == {
        name for name, runtime in RUNTIMES.items() if not runtime.missing_reason
    }


@ALL_RUNS
def test_answers_are_keras_within_the_tolerance(small_model, name, runtime):
    """Each export gives Keras's probabilities, as float32 (N, classes), in each runtime for it."""
    answers = load(small_model, name, runtime)(small_model.test.images)

    assert (answers.dtype, answers.shape) == (np.float32, (150, len(CLASS_NAMES)))
    assert np.abs(answers - small_model.reference).max() <= TOLERANCES[name]


@ALL_RUNS
@pytest.mark.parametrize(
    ("images", "got"),
    [
        pytest.param(np.zeros((2, 6, 8), np.float32), "float32 of shape (2, 6, 8)", id="float32"),
        pytest.param(np.zeros((2, 6, 8)), "float64 of shape (2, 6, 8)", id="float64"),
        pytest.param(np.zeros((2, 6, 8), np.int8), "int8 of shape (2, 6, 8)", id="signed"),
        pytest.param(np.zeros((2, 6, 8), np.uint16), "uint16 of shape (2, 6, 8)", id="16 bits"),
        pytest.param(np.zeros((2, 6, 8), np.bool_), "bool of shape (2, 6, 8)", id="bits"),
        pytest.param(np.zeros((2, 28, 28), np.uint8), "uint8 of shape (2, 28, 28)", id="another size"),
        pytest.param(np.zeros((2, 8, 6), np.uint8), "uint8 of shape (2, 8, 6)", id="on its side"),
        pytest.param(np.zeros((2, 48), np.uint8), "uint8 of shape (2, 48)", id="flat"),
        pytest.param(np.zeros((2, 6, 8, 1), np.uint8), "uint8 of shape (2, 6, 8, 1)", id="with channels"),
        pytest.param(np.zeros((6, 8), np.uint8), "uint8 of shape (6, 8)", id="a single image"),
        pytest.param(np.zeros((0, 6, 8), np.uint8), "uint8 of shape (0, 6, 8)", id="no image"),
        pytest.param(np.zeros((), np.uint8), "uint8 of shape ()", id="a number"),
    ],
)
def test_what_is_no_raw_image_is_refused(small_model, name, runtime, images, got):
    """Floats, another size, a missing batch dimension and an empty batch end in one line that says what is wanted."""
    with pytest.raises(DataError) as refusal:
        load(small_model, name, runtime)(images)

    assert (refusal.value.where, refusal.value.got) == (f"images for {name}", got)
    assert refusal.value.expected == "uint8 of shape (N, 6, 8), N at least 1"
    assert refusal.value.hint == "give grey levels 0..255 of that size, not normalized"


@ALL_RUNS
def test_batches_give_what_single_images_give(small_model, name, runtime):
    """An answer depends on its image, not on how many are answered together or were before."""
    predict = load(small_model, name, runtime)
    one_by_one = predict_in_batches(predict, IMAGES, batch_size=1)

    for batch_size in (7, 1000, 7):
        batched = predict_in_batches(predict, IMAGES, batch_size)
        assert np.abs(batched - one_by_one).max() <= BATCH_TOLERANCES[name], batch_size


@ALL_RUNS
def test_answer_stays_after_the_next(small_model, name, runtime):
    """An answer is the caller's own: the runtime does not write the next one over it."""
    predict = load(small_model, name, runtime)
    first = predict(IMAGES[:3])
    kept = first.copy()
    predict(IMAGES[-3:])

    np.testing.assert_array_equal(first, kept, strict=True)


@ALL_RUNS
def test_view_of_images_is_answered_as_its_copy(small_model, name, runtime):
    """Images that do not lie in memory row by row, such as mirrored or transposed ones, are taken for what they are."""
    predict = load(small_model, name, runtime)
    for view in (IMAGES[:9, :, ::-1], IMAGES[10:1:-1], IMAGES.reshape(-1, 8, 6)[:9].swapaxes(1, 2)):
        np.testing.assert_array_equal(predict(view), predict(np.ascontiguousarray(view)), strict=True)


@pytest.mark.parametrize("name", TOLERANCES)
def test_runtimes_of_one_file_answer_alike(small_model, name):
    """Two runtimes differ over one file by less than the file may differ from Keras."""
    answers = [
        load(small_model, name, runtime)(small_model.test.images) for other, runtime in ABLE_RUNS if other == name
    ]

    assert len(answers) > 1
    assert max(np.abs(one - other).max() for one in answers for other in answers) <= TOLERANCES[name]


def test_litert_without_xnnpack_has_other_kernels(small_model):
    """The two are two runtimes: over many images, some last bit differs."""
    one, other = (load(small_model, "model.tflite", runtime)(IMAGES) for runtime in ("litert", "litert_builtin"))

    assert not np.array_equal(one, other)


@pytest.mark.parametrize(
    ("name", "usual", "all_of_them"),
    [
        ("a/model.onnx", "onnx_runtime", {"onnx_runtime", "onnx_reference", "tract"}),
        ("a/model.tflite", "litert", {"litert", "litert_builtin", "tflite_micro"}),
    ],
)
def test_runtimes_are_those_for_the_files_kind(name, usual, all_of_them):
    """A file's ending decides which runtimes are for it; the first is the one that people use."""
    runtimes = find_runtimes(Path(name))

    assert runtimes[0] == usual
    assert (set(runtimes), len(runtimes)) == (all_of_them, len(all_of_them))


@pytest.mark.parametrize(("name", "got"), [("model.h5", ".h5"), ("model", "no ending"), ("model.onnx.zip", ".zip")])
def test_file_of_an_unknown_kind_is_refused(small_model, tmp_path, name, got):
    """Another ending is told before the file is looked at."""
    with pytest.raises(ExportError) as refusal:
        load_predictor(small_model.save(tmp_path) / name)

    assert (refusal.value.where, refusal.value.got) == (str(tmp_path / name), got)
    assert refusal.value.expected == "a .onnx or .tflite file"


@pytest.mark.parametrize(
    ("name", "runtime", "fitting"),
    [
        ("model.onnx", "litert", "onnx_runtime, onnx_reference, tract"),
        ("model_int8.tflite", "onnx_runtime", "litert, litert_builtin, tflite_micro"),
        ("model_int8.tflite", "tflite", "litert, litert_builtin, tflite_micro"),
        ("model_int8.tflite", "", "litert, litert_builtin, tflite_micro"),
    ],
)
def test_runtime_of_another_kind_is_refused(small_model, tmp_path, name, runtime, fitting):
    """A runtime that is not for the file's kind, or that does not exist, ends in a line with those that are."""
    with pytest.raises(ExportError) as refusal:
        load_predictor(small_model.save(tmp_path) / name, runtime)

    assert refusal.value.where == str(tmp_path / name)
    assert (refusal.value.expected, refusal.value.got) == (f"a runtime for it ({fitting})", runtime)


@ALL_RUNS
def test_file_is_loaded_as_its_bytes_are(small_model, tmp_path, name, runtime):
    """From a file with its digest beside it come the answers of its bytes."""
    predict = load_predictor(small_model.save(tmp_path) / name, runtime)

    np.testing.assert_array_equal(predict(IMAGES[:5]), load(small_model, name, runtime)(IMAGES[:5]), strict=True)


@ALL_RUNS
def test_file_with_one_other_bit_is_not_loaded(small_model, tmp_path, name, runtime):
    """A bit turned in the weights, which no runtime notices, is noticed by the digest."""
    path = small_model.save(tmp_path) / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(ExportError) as refusal:
        load_predictor(path, runtime)

    assert refusal.value.where == str(path)
    assert re.fullmatch(r"a whole model, SHA-256 [0-9a-f]{12}…", refusal.value.expected)
    assert "\n" not in str(refusal.value)


def test_file_without_digests_is_not_loaded(small_model, tmp_path):
    """A model that came without the list of digests is not run."""
    path = small_model.save(tmp_path) / "model.onnx"
    (tmp_path / CHECKSUMS_NAME).unlink()
    with pytest.raises(ExportError) as refusal:
        load_predictor(path)

    assert refusal.value.where == str(path)
    assert refusal.value.problem.startswith("there is no SHA-256 of it in SHA256SUMS beside it")


@pytest.mark.parametrize("runtime", [pytest.param(name, marks=needs(name)) for name in RUNTIMES])
@pytest.mark.parametrize("kind", ["empty", "half", "noise", "another kind"])
def test_what_a_runtime_cannot_load_ends_in_one_line(small_model, runtime, kind):
    """Bytes that are no model of the runtime's kind are an ExportError that names file and runtime."""
    name = f"model_int8{RUNTIMES[runtime].suffix}"
    content = small_model.exports[name]
    damaged = {
        "empty": b"",
        "half": content[: len(content) // 2],
        "noise": np.random.default_rng(0).bytes(500),
        "another kind": small_model.exports["model.tflite" if name.endswith(".onnx") else "model.onnx"],
    }
    with pytest.raises(ExportError) as refusal:
        load_content(damaged[kind], runtime, name)

    assert refusal.value.where == name
    assert refusal.value.problem.startswith(f"{RUNTIMES[runtime].title} cannot run it: ")
    assert "\n" not in str(refusal.value)


@needs_micro
@pytest.mark.parametrize("name", NOT_FOR_MICRO)
def test_export_that_tensorflow_lite_micro_refuses_ends_in_one_line(small_model, name):
    """A file with an operator that it has no kernel for is an ExportError, found at loading or at the first image."""
    with pytest.raises(ExportError) as refusal:
        load_content(small_model.exports[name], "tflite_micro", name)(IMAGES[:1])

    assert refusal.value.where == name
    assert refusal.value.problem.startswith("TensorFlow Lite Micro cannot run it: ")
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("package", "name", "runtime", "reason"),
    [
        ("tflite_micro", "model_int8.tflite", "tflite_micro", "not installed: no wheel for this platform"),
        (
            "tract",
            "model.onnx",
            "tract",
            "not installed: it is in the extra `runtimes`, where it has a wheel",
        ),
    ],
)
def test_runtime_that_is_missing_ends_in_one_line(small_model, tmp_path, package, name, runtime, reason):
    """Where its package is not installed, the other runtimes work, and to ask for it is told in one line."""
    small_model.save(tmp_path)
    done = run_python("-c", CODE_WITHOUT_PACKAGE, package, name, runtime, cwd=tmp_path)

    assert done.returncode == 0, done.stderr
    unsupported_reason, reported = done.stdout.splitlines()
    assert unsupported_reason == reason
    assert reported == f"{name}: {RUNTIMES[runtime].title} cannot run it: {reason}; choose another runtime or file"


def test_loading_and_answering_say_nothing(small_model, capfd):
    """The runtimes' own announcements do not come between a person and the answer."""
    for name, runtime in ABLE_RUNS:
        load(small_model, name, runtime)(IMAGES[:1])
    written = capfd.readouterr()

    assert (written.out, written.err) == ("", "")
