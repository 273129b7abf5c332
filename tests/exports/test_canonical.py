"""Model files whose bytes depend on the network alone, and that answer as the files before did."""

import io
import struct
import time
import zipfile

import numpy as np
import onnx
import onnxruntime
import pytest
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from samples import CLASS_NAMES, IMAGE_SIZE, make_split

from stages.lib.exports.canonical_onnx import canonicalize_onnx
from stages.lib.exports.canonical_tflite import canonicalize_tflite, read_tflite
from stages.lib.exports.conversion import calibrate, convert_to_int8_tflite, convert_to_onnx
from stages.lib.model.canonical_keras import canonicalize_keras, save_keras
from stages.lib.model.deterministic_tensorflow import keras
from stages.lib.model.network import Architecture, build_network

IMAGES = make_split(10, seed=0).images


@pytest.fixture(scope="module")
def network():
    keras.utils.set_random_seed(0)
    return build_network(IMAGE_SIZE, Architecture((5,)), len(CLASS_NAMES), "softmax")


@pytest.fixture(scope="module")
def saved(network, tmp_path_factory):
    """The bytes of a network that Keras itself saved, and of the same one saved later."""
    path = tmp_path_factory.mktemp("keras") / "model.keras"
    contents = []
    for _ in range(2):
        network.save(path)
        contents.append(path.read_bytes())
        time.sleep(1.1)  # Keras notes the second
    return contents


@pytest.fixture(scope="module")
def converted(network):
    """Two conversions of one network."""
    return [convert_to_onnx(network, 18) for _ in range(2)]


def predict_onnx(content):
    """What onnxruntime answers, and the names and shapes of the model's input and output."""
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    (model_input,), (model_output,) = session.get_inputs(), session.get_outputs()
    (probabilities,) = session.run(None, {model_input.name: IMAGES})
    return probabilities, {value.name: value.shape for value in (model_input, model_output)}


def test_two_saves_are_the_same_canonical_bytes(saved):
    """Saved at two times, a network is two files of Keras's and one canonical file."""
    assert saved[0] != saved[1]
    assert canonicalize_keras(saved[0]) == canonicalize_keras(saved[1])


def test_networks_with_other_weights_are_other_canonical_bytes(network, saved, tmp_path):
    """The weights are in the canonical file."""
    other = keras.models.clone_model(network)
    other.set_weights([weights + 1 for weights in network.get_weights()])
    other.save(tmp_path / "other.keras")

    assert canonicalize_keras((tmp_path / "other.keras").read_bytes()) != canonicalize_keras(saved[0])


def test_canonical_bytes_are_canonical(saved):
    """To canonicalize once more changes nothing."""
    canonical = canonicalize_keras(saved[0])

    assert canonicalize_keras(canonical) == canonical


def test_canonical_keras_file_loads_in_safe_mode(network, saved, tmp_path):
    """Keras loads it as its own, and it answers the same to the bit."""
    path = tmp_path / "model.keras"
    path.write_bytes(canonicalize_keras(saved[0]))
    loaded = keras.saving.load_model(path, safe_mode=True)
    features = IMAGES.astype(np.float32)

    np.testing.assert_array_equal(loaded(features), network(features))
    assert [layer.name for layer in loaded.layers] == ["flatten", "hidden_1", "classes"]


def test_canonical_keras_file_has_fixed_times_and_sorted_entries(saved):
    """Nothing of the time of saving is in the zip archive."""
    with zipfile.ZipFile(io.BytesIO(canonicalize_keras(saved[0]))) as archive:
        entries = archive.infolist()
        texts = [archive.read(entry) for entry in entries if entry.filename.endswith(".json")]

    assert [entry.filename for entry in entries] == sorted(entry.filename for entry in entries)
    assert {entry.date_time for entry in entries} == {(1980, 1, 1, 0, 0, 0)}
    assert not [text for text in texts if b"date_saved" in text or b"shared_object_id" in text]


def test_save_keras_leaves_the_model_alone_in_its_folder(network, saved, tmp_path):
    """The file has canonical bytes, and no file on the way to it is left."""
    save_keras(network, tmp_path / "models" / "model.keras")

    assert (tmp_path / "models/model.keras").read_bytes() == canonicalize_keras(saved[0])
    assert [path.name for path in (tmp_path / "models").iterdir()] == ["model.keras"]


def test_failed_save_leaves_the_old_model(tmp_path):
    """Where a model cannot be saved, the file before stays, alone."""
    (tmp_path / "model.keras").write_bytes(b"old")
    with pytest.raises(AttributeError):
        save_keras(None, tmp_path / "model.keras")

    assert [path.name for path in tmp_path.iterdir()] == ["model.keras"]
    assert (tmp_path / "model.keras").read_bytes() == b"old"


def test_two_conversions_are_the_same_canonical_bytes(converted):
    """tf2onnx numbers names through the process: two conversions differ, their canonical bytes do not."""
    first, second = converted

    assert first.SerializeToString(deterministic=True) != second.SerializeToString(deterministic=True)
    assert canonicalize_onnx(first) == canonicalize_onnx(second)


def test_canonical_onnx_is_canonical_and_valid(converted):
    """ONNX's own checker takes it, and to canonicalize once more changes nothing."""
    canonical = canonicalize_onnx(converted[0])
    model = onnx.load_model_from_string(canonical)
    onnx.checker.check_model(model, full_check=True)

    assert canonicalize_onnx(model) == canonical


def test_canonical_onnx_answers_as_before(converted):
    """The canonical model is the same computation: the same bits."""
    before, _ = predict_onnx(converted[0].SerializeToString())
    after, _ = predict_onnx(canonicalize_onnx(converted[0]))

    np.testing.assert_array_equal(after, before, strict=True)


def test_canonical_onnx_keeps_names_and_takes_any_batch(converted):
    """Input and output keep their names; their first dimension is `batch`."""
    _, shapes = predict_onnx(canonicalize_onnx(converted[0]))

    assert shapes == {"images": ["batch", 6, 8], "probabilities": ["batch", 3]}


def test_canonical_onnx_names_nodes_by_position(converted):
    """A node's name is its operator and place; the converter's own names and remarks are gone."""
    graph = onnx.load_model_from_string(canonicalize_onnx(converted[0])).graph

    assert [node.name for node in graph.node] == [
        f"{node.op_type.lower()}_{number}" for number, node in enumerate(graph.node)
    ]
    assert [weights.name for weights in graph.initializer] == [f"weights_{n}" for n in range(len(graph.initializer))]


def test_remarks_of_a_converter_are_left_out(converted):
    """Names and remarks of a graph and shapes that were inferred change no byte."""
    remarked = onnx.shape_inference.infer_shapes(converted[0])
    remarked.graph.name = remarked.graph.doc_string = remarked.doc_string = "a remark"
    for part in (*remarked.graph.node, *remarked.graph.input, *remarked.graph.output):
        part.doc_string = "a remark"

    assert remarked.graph.value_info
    assert canonicalize_onnx(remarked) == canonicalize_onnx(converted[0])


def test_canonicalize_onnx_leaves_its_argument_alone(network):
    """The model that was given is as it was."""
    model = convert_to_onnx(network, 18)
    before = model.SerializeToString(deterministic=True)
    canonicalize_onnx(model)

    assert model.SerializeToString(deterministic=True) == before


@pytest.fixture(scope="module")
def converted_tflite():
    """An int8 conversion of a network of two convolutions with as many filters, and its canonical bytes."""
    keras.utils.set_random_seed(0)
    convolutions = build_network(IMAGE_SIZE, Architecture((), ((4, 4),)), len(CLASS_NAMES), "softmax")
    content = convert_to_int8_tflite(convolutions, calibrate(convolutions, IMAGES))
    return content, canonicalize_tflite(read_tflite(content))


@pytest.mark.parametrize("resolver", [OpResolverType.AUTO, OpResolverType.BUILTIN_REF], ids=["XNNPACK", "kernels"])
def test_canonical_tflite_answers_as_before(converted_tflite, resolver):
    """Not one byte of an answer changes, and the signature is kept."""
    answers = [
        Interpreter(model_content=content, experimental_op_resolver_type=resolver).get_signature_runner()(images=IMAGES)
        for content in converted_tflite
    ]

    np.testing.assert_array_equal(answers[0]["probabilities"], answers[1]["probabilities"])


def test_canonical_tflite_writes_equal_zero_points_once(converted_tflite):
    """Both convolutions refer to one vector of zeros, for weights and biases; the converter wrote four."""
    zeros = struct.pack("<I4q", 4, 0, 0, 0, 0)

    assert [content.count(zeros) for content in converted_tflite] == [4, 1]


def test_canonical_tflite_has_no_empty_records_and_no_trace_of_the_conversion(converted_tflite):
    """Of its buffers only the schema's first is empty, and no version of TensorFlow is told."""
    model = read_tflite(converted_tflite[1])

    assert [place for place, buffer in enumerate(model.buffers) if buffer.data is None] == [0]
    assert b"CONVERSION_METADATA" not in converted_tflite[1]


def test_canonical_tflite_is_a_fixed_point(converted_tflite):
    """Canonical bytes are written again as the same ones."""
    assert canonicalize_tflite(read_tflite(converted_tflite[1])) == converted_tflite[1]
