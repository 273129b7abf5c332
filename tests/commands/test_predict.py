"""`pipeline predict` answers for images with an exported model, and says who answered."""

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from samples import CLASS_NAMES, IMAGE_SIZE, make_split

from stages.commands.main import main
from stages.export import FILES, convert, describe_model
from stages.lib.data.normalization import read_normalization
from stages.lib.exports.checksums import write_checksums
from stages.lib.exports.conversion import fold_normalization
from stages.lib.exports.lineage import Upstream
from stages.lib.exports.runtimes import load_predictor
from stages.lib.model.deterministic_tensorflow import keras
from stages.lib.model.network import build_network

MODELS = {name: "ONNX Runtime" if name.endswith(".onnx") else "LiteRT" for name in FILES.values()}
IMAGES = make_split(12, seed=3).images


@pytest.fixture(scope="module")
def exports(tmp_path_factory):
    """A folder with the exports of a network that nobody trained: what counts is that all tell the same."""
    keras.utils.set_random_seed(0)
    dataset = {
        "class_names": CLASS_NAMES,
        "image_size": IMAGE_SIZE,
        "normalization": {"shift": 0.0, "divisor": 255.0},
    }
    folder = tmp_path_factory.mktemp("export")
    network = fold_normalization(build_network(IMAGE_SIZE, [4], 3, "softmax"), read_normalization(dataset))
    metadata = describe_model(dataset, IMAGES, Upstream("0", "0", "0"))
    for name, content in convert(list(FILES), network, IMAGES, metadata, opset=18).items():
        (folder / name).write_bytes(content)
    write_checksums(folder)
    return folder


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "image.png"
    Image.fromarray(IMAGES[0]).save(path)
    return path


def run(*arguments, stdin=None):
    return CliRunner().invoke(main, ["predict", *map(str, arguments)], input=stdin)


@pytest.mark.parametrize("name", MODELS)
def test_answer_is_the_models_with_its_runtime(exports, picture, name):
    """Class, probability and a line per class are what the model gives for the image's pixels."""
    (probabilities,) = load_predictor(exports / name)(IMAGES[:1])
    result = run(picture, "--model", exports / name)
    first, *bars = result.stdout.splitlines()

    assert result.exit_code == 0
    assert first == (
        f"{picture}: {CLASS_NAMES[probabilities.argmax()]} ({probabilities.max():.1%}) by {MODELS[name]} with {name}"
    )
    assert [bar.split()[:2] for bar in bars] == [
        [label, f"{probability:.1%}"] for label, probability in zip(CLASS_NAMES, probabilities.tolist(), strict=True)
    ]


def test_standard_input_gives_the_same_answer(exports, picture):
    """`-` reads the image from standard input."""
    model = ("--model", exports / "model.onnx")
    piped = run("-", *model, stdin=picture.read_bytes()).stdout

    assert piped.removeprefix("-") == run(picture, *model).stdout.removeprefix(str(picture))


def test_inverted_picture_is_said_and_answered_alike(exports, picture, tmp_path):
    """An image of the other polarity gets the same answer and a word about it."""
    negative = tmp_path / "negative.png"
    Image.fromarray(255 - IMAGES[0]).save(negative)
    model = ("--model", exports / "model.onnx")
    first, *bars = run(negative, *model).stdout.splitlines()

    assert first.endswith(", inverted for its background")
    assert bars == run(picture, *model).stdout.splitlines()[1:]


def test_broken_file_does_not_keep_the_others_from_their_answer(exports, picture, tmp_path):
    """Every sound image is answered, every broken one told, in one line, with exit code 1."""
    broken = tmp_path / "broken.png"
    broken.write_text("no image", encoding="utf-8")
    result = run(broken, picture, tmp_path / "missing.png", "--model", exports / "model.onnx")

    assert result.exit_code == 1
    assert result.stdout.startswith(f"{picture}: ")
    assert result.stderr.count("\n") == 1
    assert str(broken) in result.stderr
    assert "missing.png: cannot be read: No such file or directory; name an image file" in result.stderr


@pytest.mark.parametrize("name", ["model.onnx", "model.tflite"])
@pytest.mark.parametrize("damage", ["missing", "empty", "cut off", "noise"])
def test_damaged_model_is_told_in_one_line(exports, picture, tmp_path, name, damage):
    """A model file that is not whole ends in one line and exit code 1, never in an answer."""
    content = (exports / name).read_bytes()
    damaged = {"empty": b"", "cut off": content[: len(content) // 2], "noise": np.random.default_rng(0).bytes(500)}
    if damage != "missing":
        (tmp_path / name).write_bytes(damaged[damage])
    result = run(picture, "--model", tmp_path / name)

    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr.startswith(f"predict: {tmp_path / name}: ")
    assert result.stderr.count("\n") == 1
