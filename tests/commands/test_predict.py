"""`pipeline predict` answers for images with an exported model, and says who answered."""

import csv
import io
import json
import os
import shutil

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from samples import CLASS_NAMES, IMAGE_SIZE, make_colour_dataset, make_split

from stages.commands.main import main
from stages.export import FILES, convert, describe_model
from stages.lib.data.normalization import Normalization, read_normalization
from stages.lib.exports.checksums import write_checksums
from stages.lib.exports.conversion import fold_normalization
from stages.lib.exports.lineage import Upstream
from stages.lib.exports.runtimes import load_predictor
from stages.lib.model.deterministic_tensorflow import keras
from stages.lib.model.network import Architecture, build_network

MODELS = {name: "ONNX Runtime" if name.endswith(".onnx") else "LiteRT" for name in FILES.values()}
IMAGES = make_split(12, seed=3).images
COLOURS = make_colour_dataset().test.images


@pytest.fixture(scope="module")
def exports(tmp_path_factory):
    """A folder with the exports of a network that nobody trained: what counts is that all tell the same."""
    keras.utils.set_random_seed(0)
    dataset = {
        "class_names": CLASS_NAMES,
        "image_size": IMAGE_SIZE,
        "normalization": {"shift": [0.0], "divisor": [255.0]},
    }
    folder = tmp_path_factory.mktemp("export")
    network = fold_normalization(
        build_network(IMAGE_SIZE, Architecture((4,)), 3, "softmax"), read_normalization(dataset)
    )
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


@pytest.fixture(scope="module")
def colour_exports(tmp_path_factory):
    """The same of a network for colour images."""
    keras.utils.set_random_seed(0)
    folder = tmp_path_factory.mktemp("colour")
    scale = Normalization(shift=(0.0,) * 3, divisor=(255.0,) * 3)
    network = fold_normalization(build_network((*IMAGE_SIZE, 3), Architecture((4,)), 3, "softmax"), scale)
    metadata = {"background": None, "channels": 3, "class_names": list(CLASS_NAMES), "image_size": list(IMAGE_SIZE)}
    names = ["onnx_float32", "tflite_float32"]
    for name, content in convert(names, network, COLOURS, metadata, opset=18).items():
        (folder / name).write_bytes(content)
    write_checksums(folder)
    return folder


@pytest.mark.parametrize("name", ["model.onnx", "model.tflite"])
def test_colour_model_answers_for_colours_as_they_are(colour_exports, tmp_path, name):
    """A model of colour images gets all three channels, none inverted; a grey image in three equal ones."""
    path, grey = tmp_path / "light.png", tmp_path / "grey.png"
    Image.fromarray(255 - COLOURS[0]).save(path)
    Image.fromarray(IMAGES[0]).save(grey)
    pixels = np.stack([255 - COLOURS[0], np.stack([IMAGES[0]] * 3, axis=-1)])
    expected = load_predictor(colour_exports / name)(pixels)
    answer = json.loads(run(path, grey, "--model", colour_exports / name, "--format", "json").stdout)

    assert [image["was_inverted"] for image in answer["images"]] == [False, False]
    assert [list(image["probabilities"].values()) for image in answer["images"]] == expected.tolist()
    assert expected[0].tolist() != expected[1].tolist()


def test_broken_file_does_not_keep_the_others_from_their_answer(exports, picture, tmp_path):
    """Every valid image is answered, every other file has a line of its own, and the exit code is 1."""
    broken = tmp_path / "broken.png"
    broken.write_text("no image", encoding="utf-8")
    result = run(broken, picture, tmp_path / "missing.png", "--model", exports / "model.onnx")

    assert result.exit_code == 1
    assert result.stdout.startswith(f"{picture}: ")
    first, second = result.stderr.splitlines()
    assert first == f"predict: {broken}: not a valid image: its kind is unknown; replace it, or leave it out"
    assert second.startswith(f"predict: {tmp_path / 'missing.png'}: cannot be read: No such file or directory; name ")


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


@pytest.fixture
def pictures(tmp_path):
    """A folder with five images, in subfolders, too, and what systems leave in folders."""
    folder = tmp_path / "pictures"
    names = ["b.png", "a/2.png", "a/10.png", "a b.png", "=1.png"]
    for name, image in zip(names, IMAGES, strict=False):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / name)
    for name in ("Thumbs.db", "desktop.ini", ".DS_Store", ".thumbnails/b.png"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"not an image")
    return folder


def test_folder_is_answered_in_sorted_order_a_line_for_each_image(exports, pictures):
    """All images of a folder and its subfolders are answered; hidden files and those of systems are passed over."""
    result = run(pictures, "--model", exports / "model.onnx")
    *lines, last = result.stdout.splitlines()

    assert (result.exit_code, result.stderr) == (0, "")
    assert [line.removeprefix(f"{pictures}/").split(":")[0] for line in lines] == [
        *("=1.png", "a/10.png", "a/2.png", "a b.png", "b.png")
    ]
    assert last == "predict: 5 images by ONNX Runtime with model.onnx"


def test_json_has_the_models_own_numbers_beside_the_class_names(exports, pictures):
    """JSON holds for each image the class and every class's probability, unrounded."""
    result = run(pictures / "a", pictures / "b.png", "--model", exports / "model.onnx", "--format", "json")
    answer = json.loads(result.stdout)
    probabilities = load_predictor(exports / "model.onnx")(IMAGES[:3])

    assert (answer["model"], answer["runtime"]) == (str(exports / "model.onnx"), "onnx_runtime")
    assert [record["file"] for record in answer["images"]] == [
        str(pictures / name) for name in ("a/10.png", "a/2.png", "b.png")
    ]
    assert [record["probabilities"] for record in answer["images"]] == [
        dict(zip(CLASS_NAMES, probabilities[row].tolist(), strict=True)) for row in (2, 1, 0)
    ]
    assert [record["class"] for record in answer["images"]] == [
        CLASS_NAMES[probabilities[row].argmax()] for row in (2, 1, 0)
    ]


def test_csv_has_the_same_numbers_and_no_formula(exports, pictures, monkeypatch):
    """CSV holds what JSON holds, a row for each image; a quote keeps a spreadsheet from computing a name."""
    monkeypatch.chdir(pictures)
    model = ("--model", exports / "model.onnx")
    rows = list(csv.DictReader(io.StringIO(run("=1.png", "b.png", *model, "--format", "csv").stdout)))
    records = json.loads(run("=1.png", "b.png", *model, "--format", "json").stdout)["images"]

    assert [row["file"] for row in rows] == ["'=1.png", "b.png"]
    for row, record in zip(rows, records, strict=True):
        assert (row["class"], float(row["probability"])) == (record["class"], record["probability"])
        assert row["was_inverted"] == str(record["was_inverted"])
        assert {name: float(row[f"probability of {name}"]) for name in CLASS_NAMES} == record["probabilities"]


@pytest.mark.parametrize("output_format", ["text", "csv", "json"])
def test_file_of_a_folder_that_is_no_image_has_its_line(exports, pictures, output_format):
    """In each format what is no image goes to standard error alone, and the others are answered."""
    (pictures / "a/notes.txt").write_text("not an image", encoding="utf-8")
    os.mkfifo(pictures / "a/pipe.png")
    (pictures / "empty").mkdir()
    arguments = (pictures, pictures / "empty", "--model", exports / "model.onnx", "--format", output_format)
    result = run(*arguments)

    assert result.exit_code == 1
    assert result.stdout.count(".png") == 5
    assert [line.split("; ")[0] for line in result.stderr.splitlines()] == [
        f"predict: {pictures / 'a/notes.txt'}: not a valid image: its kind is unknown",
        f"predict: {pictures / 'a/pipe.png'}: it is no ordinary file",
        f"predict: {pictures / 'empty'}: there is no image in it",
    ]


def test_unreadable_subfolder_has_its_line(exports, pictures):
    """A subfolder that may not be read is told, and the rest is answered."""
    if os.geteuid() == 0:
        pytest.skip("needs a user whom the system refuses something: root may read every folder")
    (pictures / "a").chmod(0)
    result = run(pictures, "--model", exports / "model.onnx")
    (pictures / "a").chmod(0o755)

    assert result.exit_code == 1
    assert result.stdout.count(".png") == 3
    assert result.stderr.startswith(f"predict: {pictures / 'a'}: cannot be read: Permission denied; ")


def test_missing_model_leads_to_dvc_repro(picture, tmp_path, monkeypatch):
    """Before the first `dvc repro` the error says to run it, in the project's root and below."""
    (tmp_path / "dvc.yaml").touch()
    (tmp_path / "docs").mkdir()
    for folder, model in ((".", "models/export/model.onnx"), ("docs", "../models/export/model.onnx")):
        monkeypatch.chdir(tmp_path / folder)
        result = run(picture)

        assert result.exit_code == 1
        assert result.stderr == (
            f"predict: {model}: no such file; "
            "run `dvc repro`, which writes models/export, or name a model that is there\n"
        )


def test_projects_own_model_answers_in_a_subfolder(exports, picture, tmp_path, monkeypatch):
    """Without --model the model is the project's, and the image's path is the one that was typed."""
    (tmp_path / "dvc.yaml").touch()
    (tmp_path / "docs").mkdir()
    shutil.copytree(exports, tmp_path / "models/export")
    monkeypatch.chdir(tmp_path / "docs")
    result = run(f"../{picture.name}")

    assert result.exit_code == 0
    assert result.stdout.startswith(f"../{picture.name}: ")


def test_model_of_no_project_answers_where_it_is_named(exports, picture, tmp_path, monkeypatch):
    """Outside of a project a model must be named, and then answers."""
    monkeypatch.chdir(tmp_path)
    result = run(picture)

    assert result.exit_code == 1
    assert result.stderr == (
        f"predict: {tmp_path}: it is in no project, so there is no default model; add --model FILE\n"
    )
    assert run(picture, "--model", exports / "model.onnx").exit_code == 0
