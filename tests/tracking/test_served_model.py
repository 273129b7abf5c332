"""The registered model answers by class name, and refuses whatever is not whole pixels, by every route."""

import json
import re
import subprocess
import sys
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow.exceptions import MlflowException
from mlflow.pyfunc import scoring_server
from stores import enter_root, track

from stages.lib.tracking import served_model

EXPECTED = "expected pixels as they are, whole numbers 0..255, not divided by 255: (N, 2, 2), or rows of 4"
IMAGES = [[[0, 2], [10, 30]]]
# The network of the tests gives the mean of each half.
ANSWER = {"class": "right", "probability": 20.0, "probabilities": {"left": 1.0, "right": 20.0}}
WRONG = {
    "divided by 255": ([[[0, 0.5], [0.9, 1]]], "0.5"),
    "beyond a byte": ([[[0, 256], [0, 0]]], "256"),
    "negative": ([[[0, -1], [0, 0]]], "-1"),
    "another size": ([[[0, 2, 3], [10, 30, 4]]], "the shape (1, 2, 3)"),
    "no image": ([], "the shape (0,)"),
    "words": ([[["a", "b"], ["c", "d"]]], "values of type <U1"),
    "rows of different lengths": ([[[0, 2], [10]]], "rows of different lengths"),
}


# The same in colour: three values for each of the four pixels.
COLOURS = [[[[0, 1, 2]] * 2, [[30, 30, 30]] * 2]]
FLAT_COLOURS = np.ravel(COLOURS).tolist()
LETTERS = list("abcdefghijkl")
COLOUR_ANSWER = {"class": "right", "probability": 30.0, "probabilities": {"left": 1.0, "right": 30.0}}
EXPECTED_COLOURS = (
    "expected pixels as they are, whole numbers 0..255, not divided by 255: (N, 2, 2, 3) in red, green, blue, or rows "
    "of 12"
)


def register_model(root, channels):
    """The address of a registered model of the tests."""
    with pytest.MonkeyPatch.context() as patch:
        enter_root(root, patch)
        track(root, channels=channels)
        mlflow.set_tracking_uri(f"sqlite:///{root / 'mlflow.db'}")
        uri = mlflow.artifacts.download_artifacts("models:/digits@champion", dst_path=str(root / "copy"))
    mlflow.set_tracking_uri(None)
    return uri


@pytest.fixture(scope="module")
def model_uri(tmp_path_factory):
    """A registered model's address."""
    return register_model(tmp_path_factory.mktemp("served"), channels=1)


@pytest.fixture(scope="module")
def colour_model(tmp_path_factory):
    """What `mlflow.pyfunc.load_model` gives of a model for colour images."""
    return mlflow.pyfunc.load_model(register_model(tmp_path_factory.mktemp("colours"), channels=3))


@pytest.fixture(scope="module")
def model(model_uri):
    """What `mlflow.pyfunc.load_model` gives."""
    return mlflow.pyfunc.load_model(model_uri)


def ask(model, body, content_type="application/json"):
    """What MLflow's server answers to a request: its code and its text."""
    schema = model.metadata.get_input_schema()
    try:
        answer = scoring_server.invocations(body, content_type, model, schema)
    except MlflowException as error:
        return error.get_http_status_code(), json.loads(error.serialize_as_json())["message"]
    return answer.status, answer.response


@pytest.mark.parametrize("kind", [np.uint8, np.int64, np.float32, np.float64])
def test_whole_numbers_of_any_type_are_answered(model, kind):
    """A camera gives bytes, JSON gives integers, NumPy gives floats: what counts is the number."""
    assert model.predict(np.array(IMAGES, kind)) == [ANSWER]


def test_rows_of_a_data_frame_are_images(model):
    """As a table holds them, one image a row."""
    assert model.predict(pd.DataFrame([[0, 2, 10, 30]])) == [ANSWER]


@pytest.mark.parametrize(("images", "got"), WRONG.values(), ids=WRONG)
def test_other_values_are_refused_in_python(model, images, got):
    """Nothing is cast: the error says what is expected and what came."""
    with pytest.raises(MlflowException, match=re.escape(f"{EXPECTED}; got {got}")):
        model.predict(images)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_no_numbers_are_refused(model, value):
    """Neither NaN nor infinity is a pixel."""
    with pytest.raises(MlflowException, match="expected pixels"):
        model.predict(np.full((1, 2, 2), value))


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (json.dumps({"inputs": IMAGES}), "application/json"),
        (json.dumps({"instances": IMAGES}), "application/json"),
        (json.dumps({"dataframe_split": {"columns": list("abcd"), "data": [[0, 2, 10, 30]]}}), "application/json"),
        (json.dumps({"dataframe_records": [{"a": 0, "b": 2, "c": 10, "d": 30}]}), "application/json"),
        ("a,b,c,d\n0,2,10,30\n", "text/csv"),
    ],
    ids=["inputs", "instances", "dataframe_split", "dataframe_records", "csv"],
)
def test_every_kind_of_request_is_answered(model, body, content_type):
    """Whatever MLflow's server takes, it answers with class names beside probabilities."""
    code, text = ask(model, body, content_type)

    assert (code, json.loads(text)) == (200, {"predictions": [ANSWER]})


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (json.dumps({"inputs": [[[0, 0.9], [0, 0]]]}), "application/json"),
        (json.dumps({"instances": [[[0, 0.9], [0, 0]]]}), "application/json"),
        (json.dumps({"dataframe_split": {"columns": list("abcd"), "data": [[0, 0.9, 0, 0]]}}), "application/json"),
        (json.dumps({"dataframe_records": [{"a": 0, "b": 0.9, "c": 0, "d": 0}]}), "application/json"),
        ("a,b,c,d\n0,0.9,0,0\n", "text/csv"),
    ],
    ids=["inputs", "instances", "dataframe_split", "dataframe_records", "csv"],
)
def test_divided_pixels_are_refused_by_every_kind_of_request(model, body, content_type):
    """Who comes from a lecture that divides by 255 gets HTTP 400 and a sentence, not a flat answer."""
    code, text = ask(model, body, content_type)

    assert code == 400
    assert text == f"{EXPECTED}; got 0.9"


@pytest.mark.parametrize("kind", [np.uint8, np.int64, np.float64])
def test_whole_numbers_in_colour_are_answered(colour_model, kind):
    """Red, green and blue of each pixel side by side, as images or as rows."""
    assert colour_model.predict(np.array(COLOURS, kind)) == [COLOUR_ANSWER]
    assert colour_model.predict(pd.DataFrame([FLAT_COLOURS])) == [COLOUR_ANSWER]


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (json.dumps({"inputs": COLOURS}), "application/json"),
        (json.dumps({"instances": COLOURS}), "application/json"),
        (json.dumps({"dataframe_split": {"columns": LETTERS, "data": [FLAT_COLOURS]}}), "application/json"),
        (json.dumps({"dataframe_records": [dict(zip(LETTERS, FLAT_COLOURS, strict=True))]}), "application/json"),
        (f"{','.join(LETTERS)}\n{','.join(map(str, FLAT_COLOURS))}\n", "text/csv"),
    ],
    ids=["inputs", "instances", "dataframe_split", "dataframe_records", "csv"],
)
def test_every_kind_of_request_in_colour_is_answered(colour_model, body, content_type):
    """By every route that grey images have."""
    code, text = ask(colour_model, body, content_type)

    assert (code, json.loads(text)) == (200, {"predictions": [COLOUR_ANSWER]})


@pytest.mark.parametrize(
    ("images", "got"),
    [
        (IMAGES, "the shape (1, 2, 2)"),
        ([[[[0, 1, 2, 255]] * 2] * 2], "the shape (1, 2, 2, 4)"),
        (np.moveaxis(COLOURS, -1, 1).tolist(), "the shape (1, 3, 2, 2)"),
        ([[[[0, 0.5, 1]] * 2] * 2], "0.5"),
        ([[[[0, 1, 256]] * 2] * 2], "256"),
    ],
    ids=["grey", "with alpha", "channels first", "divided by 255", "beyond a byte"],
)
def test_other_values_than_colours_are_refused(colour_model, images, got):
    """By Python and by HTTP, with what is expected and what came."""
    with pytest.raises(MlflowException, match=re.escape(f"{EXPECTED_COLOURS}; got {got}")):
        colour_model.predict(images)
    assert ask(colour_model, json.dumps({"inputs": images})) == (400, f"{EXPECTED_COLOURS}; got {got}")


def test_colours_are_refused_where_grey_is_expected(model):
    """A colour camera in front of a model for grey images is told."""
    with pytest.raises(MlflowException, match=re.escape(f"{EXPECTED}; got the shape (1, 2, 2, 3)")):
        model.predict(COLOURS)


def test_service_says_what_it_does_not_know(model):
    """Asked about itself, it tells its classes, its input and its limits."""
    code, text = ask(model, json.dumps({"inputs": [], "params": {"about": True}}))
    (about,) = json.loads(text)["predictions"]

    assert code == 200
    assert about["classes"] == ["left", "right"]
    assert "not whether the picture is one of them" in about["limits"]


def test_command_line_refuses_divided_pixels(model_uri, tmp_path):
    """`mlflow models predict` ends with the sentence."""
    (tmp_path / "input.json").write_text(json.dumps({"inputs": [[[0, 0.9], [0, 0]]]}), encoding="utf-8")
    command = [*("models", "predict", "--model-uri", model_uri, "--env-manager", "local")]
    done = subprocess.run(
        [sys.executable, "-m", "mlflow", *command, "--input-path", str(tmp_path / "input.json")],
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode != 0
    assert f"{EXPECTED}; got 0.9" in done.stderr


def test_nothing_pickled_lies_beside_the_model(model_uri):
    """The copy of our file, which git has as well, is the only code that is run."""
    files = {path.relative_to(model_uri).as_posix() for path in Path(model_uri).rglob("*") if path.is_file()}
    code = Path(model_uri, "served_model.py").read_bytes()

    assert code == Path(served_model.__file__).read_bytes()
    assert {name for name in files if name.endswith((".py", ".pkl"))} == {"served_model.py"}
