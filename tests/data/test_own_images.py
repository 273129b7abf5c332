"""A person's own images go the whole way: from a folder, inside the project or outside, to every runtime."""

import re
import shutil

import numpy as np
import onnx
import pytest
from PIL import Image, ImageOps
from project import Project

from stages.lib.core.files import read_csv, read_json
from stages.lib.exports.model_metadata import read_onnx_metadata

pytestmark = pytest.mark.slow

CLASSES = ("null", "=1+1 & nur eins", "zwei")
COUNT = 80
SETTINGS = ("-S", "ingest.dataset=folder", "-S", "normalize.method=standardize")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory, digits):
    """A folder outside any project: 80 JPEGs of each of three classes, dark on light."""
    folder = tmp_path_factory.mktemp("images") / "my digits"
    for label, name in enumerate(CLASSES):
        (folder / name).mkdir(parents=True)
        for number, row in enumerate(np.flatnonzero(digits.train.labels == label)[:COUNT]):
            picture = ImageOps.invert(Image.fromarray(digits.train.images[row])).resize((90, 90))
            picture.save(folder / name / f"{number:02}.jpg", quality=90)
    return folder


@pytest.fixture(scope="module")
def project(tmp_path_factory, pictures):
    """A clone in which an experiment ran on that folder."""
    project = Project.clone(tmp_path_factory.mktemp("clone"))
    # As the documents type it; two kinds of export are enough here.
    project.set_param("export.artifacts", ["onnx_float32", "tflite_int8"])
    project.set_param("export.required", ["onnx_float32", "tflite_int8"])
    project.run("git", "commit", "--quiet", "--all", "--message", "Export less")
    project.run("dvc", "exp", "run", *SETTINGS, "-S", f"ingest.path={pictures}")
    return project


def test_network_learns_them(project):
    """The committed settings and the documented one serve for some hundred images."""
    evaluation = read_json(project.root / "reports/evaluation/evaluation.json")

    assert evaluation["accepted"] is True
    assert evaluation["images"] == 3 * COUNT / 5


def test_class_names_travel_everywhere(project):
    """Data, reports, models, C source and answers call the classes as the folders are called."""
    names = sorted(CLASSES)
    model = onnx.load(project.root / "models/export/model.onnx")

    assert read_json(project.root / "data/raw/dataset.json")["class_names"] == names
    assert sorted(read_json(project.root / "reports/evaluation/evaluation.json")["classes"]) == names
    assert {row["actual"] for row in read_csv(project.root / "reports/evaluation/predictions.csv")} == set(names)
    assert "'=1+1 & nur eins/" in project.read("data/raw/test/files.csv")
    assert "\n=" not in project.read("data/raw/test/files.csv") + project.read("reports/evaluation/predictions.csv")
    assert read_onnx_metadata(model)["class_names"] == names
    assert all(f'"{name}"' in project.read("models/export/c/model_int8.c") for name in names)


def test_export_answers_for_a_picture_as_it_is(project, pictures):
    """A JPEG goes in, and the class that its folder names comes out, in every file."""
    for model in ("model.onnx", "model_int8.tflite"):
        answer = project.run("pipeline", "predict", str(pictures / "null/00.jpg"), "--model", f"models/export/{model}")

        assert f"{pictures}/null/00.jpg: null (" in answer


def test_one_picture_more_reruns_the_pipeline_and_nothing_else_does(project, pictures):
    """DVC depends on the folder's content."""
    unchanged = project.repro()
    shutil.copy(pictures / "null/00.jpg", pictures / "null/again.jpg")
    changed = project.repro()
    report = read_json(project.root / "reports/validation/validation.json")
    (pictures / "null/again.jpg").unlink()

    assert unchanged == []
    assert changed[:3] == ["ingest", "validate", "normalize"]
    assert {finding["rule"] for finding in report["expectations"] if not finding["holds"]} == {"max_duplicate_fraction"}


def test_folder_in_the_project_is_kept_by_dvc(project, pictures):
    """`dvc add` keeps the images with the commit; an experiment in a copy of the project finds them there."""
    shutil.copytree(pictures, project.root / "data/gestures")
    project.run("dvc", "add", "data/gestures")
    project.run("git", "add", "--all")
    project.run("git", "commit", "--quiet", "--message", "My gestures")
    reported = project.run("dvc", "exp", "run", "--temp", *SETTINGS, "-S", "ingest.path=data/gestures")

    assert re.search(r"ingest: gestures: 192 training and 48 test images", reported)
    assert "data/gestures.dvc" in project.run("git", "ls-files")
