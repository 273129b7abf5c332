"""`pipeline check` lists everything that is wrong with images at once; `pipeline accept` takes them as they are."""

import json
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from imports import ROOT
from PIL import Image, ImageDraw, ImageOps
from samples import list_files, write_idx, write_raw
from stores import enter_root

from stages.commands.main import main
from stages.lib.core.files import read_csv, read_json, write_json

SHAPES = ("circle", "cross", "square")
SIDE = 80


def draw(shape, generator):
    """An image of a shape, dark on light, of random place and size, with noise."""
    picture = Image.new("L", (SIDE, SIDE), 235)
    x, y, size = (int(generator.integers(*limits)) for limits in ((10, 35), (10, 35), (20, 38)))
    pen = ImageDraw.Draw(picture)
    if shape == "circle":
        pen.ellipse((x, y, x + size, y + size), outline=20, width=5)
    elif shape == "square":
        pen.rectangle((x, y, x + size, y + size), outline=20, width=5)
    else:
        pen.line((x, y, x + size, y + size), fill=20, width=5)
        pen.line((x, y + size, x + size, y), fill=20, width=5)
    noisy = np.asarray(picture) + generator.normal(0, 4, (SIDE, SIDE))
    return Image.fromarray(noisy.clip(0, 255).astype(np.uint8))


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    """A sound folder: 40 images of each of three classes."""
    folder = tmp_path_factory.mktemp("images") / "shapes"
    generator = np.random.default_rng(0)
    for shape in SHAPES:
        (folder / shape).mkdir(parents=True)
        for number in range(40):
            draw(shape, generator).save(folder / shape / f"{number:02}.png")
    return folder


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A folder with the committed params and nothing of a pipeline; the current folder."""
    root = tmp_path / "project"
    root.mkdir()
    shutil.copy(ROOT / "params.yaml", root)
    (root / "data").mkdir()
    write_json(root / "data/accepted.json", {})
    return enter_root(root, monkeypatch)


@pytest.fixture
def spoilt(shapes, tmp_path):
    """The folder with one error of each kind."""
    folder = tmp_path / "spoilt"
    shutil.copytree(shapes, folder)
    shutil.copy(folder / "circle/00.png", folder / "cross/copy.png")
    shutil.copy(folder / "circle/01.png", folder / "circle/twice.png")
    Image.new("L", (SIDE, SIDE), 200).save(folder / "square/blank.png")
    ImageOps.invert(Image.open(folder / "circle/02.png")).save(folder / "circle/02.png")
    Image.open(folder / "circle/03.png").resize((1200, SIDE)).save(folder / "circle/wide.png")
    (folder / "square/notes.png").write_text("no image", encoding="utf-8")
    (folder / "square/cut.png").write_bytes((folder / "circle/04.png").read_bytes()[:200])
    return folder


def run(*arguments):
    """What a subcommand gives in the current folder."""
    return CliRunner().invoke(main, list(map(str, arguments)))


def test_sound_folder_has_nothing_to_say(project, shapes):
    """A few hundred images of some classes pass with the committed params, and have no flagged images."""
    result = run("check", shapes)

    assert result.exit_code == 0, result.output
    assert result.stdout == (
        "check: 120 images in 3 classes; "
        "errors that stop the pipeline: 0, warnings: 0, flagged images: 0; see reports/check\n"
    )
    assert read_csv(project / "reports/check/flagged_images/flagged_images.csv") == []


def set_channels(project, channels):
    params = (project / "params.yaml").read_text(encoding="utf-8")
    assert "channels: 1 " in params
    (project / "params.yaml").write_text(params.replace("channels: 1 ", f"channels: {channels} "), encoding="utf-8")


def test_colour_folder_is_checked_in_colour(project, shapes, tmp_path):
    """With three channels a copy in another class is a conflict, and the same with red and blue changed is none."""
    folder = tmp_path / "colour"
    for path in sorted(shapes.rglob("*.png")):
        grey = np.asarray(Image.open(path))
        (folder / path.parent.name).mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.stack([grey, grey // 2, 255 - grey], axis=-1)).save(folder / path.parent.name / path.name)
    colours = np.asarray(Image.open(folder / "circle/00.png"))
    Image.fromarray(colours).save(folder / "cross/copy.png")
    Image.fromarray(colours[..., ::-1]).save(folder / "cross/changed.png")
    set_channels(project, 3)
    result = run("check", folder)

    assert result.exit_code == 1
    (stopping,) = [line for line in result.stdout.splitlines() if line.startswith("stops: ")]
    assert "circle/00.png label_conflicts=1" in stopping
    assert "cross/copy.png label_conflicts=1" in stopping
    assert "changed.png" not in stopping
    assert "check: 122 images in 3 classes; errors that stop the pipeline: 1, " in result.stdout


@pytest.mark.usefixtures("project")
def test_rules_that_photographs_are_not_asked_are_named(tmp_path):
    """Images without a plain background are not judged by one, and the reader is told."""
    generator = np.random.default_rng(0)
    for name in ("forest", "sea"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(10):
            pixels = generator.integers(0, 256, (28, 28), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / name / f"{number}.png")

    result = run("check", tmp_path / "photos")

    assert "check: most images have no plain background, so other_polarity, foreground_fraction" in result.stdout


def test_channels_that_the_data_set_lacks_are_told_in_one_line(project):
    """Digits are grey: where params ask for colour, the line says what to set."""
    set_channels(project, 3)
    result = run("check")

    assert result.exit_code == 1
    assert result.stderr == (
        "check: params.yaml: ingest.channels: expected 1 for digits, which is grey, got 3; set ingest.channels to 1\n"
    )


@pytest.mark.usefixtures("project")
def test_all_problems_are_listed_at_once(spoilt):
    """Files that are no images and images that break rules are told together, those that stop first."""
    result = run("check", spoilt)
    stops = [line for line in result.stdout.splitlines() if line.startswith("stops: ")]
    warns = [line for line in result.stdout.splitlines() if line.startswith("warns: ")]

    assert result.exit_code == 1
    assert len(stops) == 4
    assert f"stops: {spoilt}/square/cut.png: not a valid image: " in stops[0]
    assert f"stops: {spoilt}/square/notes.png: not a valid image: " in stops[1]
    assert "square/blank.png contrast=0" in stops[2]
    assert "circle/00.png label_conflicts=1" in stops[3]
    assert "cross/copy.png label_conflicts=1" in stops[3]
    reported = "\n".join(warns)
    assert "circle/wide.png aspect_robust_z=" in reported
    assert "circle/02.png other_polarity=1" in reported
    assert "repeats=1" in reported
    assert result.stdout.splitlines()[-1].startswith(
        "check: 124 images in 3 classes; errors that stop the pipeline: 4, "
    )


def test_suspects_are_shown_with_file_label_and_reason(project, spoilt):
    """The list names each flagged image's file, class and reasons; the sheet of images is beside it."""
    run("check", spoilt)
    flagged_images = {row["file"]: row for row in read_csv(project / "reports/check/flagged_images/flagged_images.csv")}

    assert flagged_images["square/blank.png"]["class"] == "square"
    assert flagged_images["square/blank.png"]["stops"] == "true"
    assert "contrast 0" in flagged_images["square/blank.png"]["reasons"]
    assert flagged_images["circle/02.png"]["reasons"] == "background unlike most"
    assert flagged_images["cross/copy.png"]["reasons"].endswith("circle/00.png, a circle")
    assert Image.open(project / "reports/check/flagged_images/contact_sheet.png").width > 500


def test_check_leaves_the_pipeline_alone(project, shapes):
    """Nothing but the reports that it names is written, and no scratch data stays."""
    before = list_files(project)
    run("check", shapes, "--reports", "looked")
    written = set(list_files(project)) - set(before)

    assert {name.partition("/")[0] for name in written} == {"looked"}
    assert list((project / ".cache").iterdir()) == []


@pytest.mark.usefixtures("project")
def test_folder_without_a_sound_picture_is_told(tmp_path):
    """Where no data set can be made there is nothing to look at, and the reasons are listed all the same."""
    for name in ("a", "b"):
        (tmp_path / "broken" / name).mkdir(parents=True)
        (tmp_path / "broken" / name / "1.png").write_bytes(b"")
    result = run("check", tmp_path / "broken")

    assert result.exit_code == 1
    assert result.stdout.count("not a valid image") == 2
    assert result.stdout.splitlines()[-1] == "check: no data set can be made of it; errors that stop the pipeline: 3"


@pytest.mark.usefixtures("project")
def test_arrays_are_checked_as_pictures_are(tmp_path):
    """IDX files are looked at by the same rules."""
    result = run("check", write_idx(tmp_path / "arrays"))

    assert result.exit_code == 0, result.output
    assert "check: 90 images in 3 classes; errors that stop the pipeline: 0" in result.stdout


@pytest.mark.usefixtures("project")
def test_without_a_folder_the_params_data_set_is_checked():
    """`pipeline check` alone looks at what `dvc repro` would ingest."""
    result = run("check")

    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("check: 1,797 images in 10 classes; errors that stop the pipeline: 0")


def put_nothing(_):
    pass


def put_flat(path):
    path.mkdir()
    for number in range(3):
        Image.new("L", (8, 8), number).save(path / f"{number}.png")


def put_empty(path):
    path.mkdir()
    (path / ".DS_Store").touch()


def put_table(path):
    path.write_text("label,pixel0\n3,255\n", encoding="utf-8")


def put_table_in_a_folder(path):
    path.mkdir()
    put_table(path / "train.csv")


def put_image(path):
    Image.new("L", (8, 8)).save(path)


def put_archives(path):
    path.mkdir()
    for name in ("b.npz", "a.npz", "._a.npz"):
        (path / name).touch()


def put_archive(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("circle/1.png", "")


def put_array(path):
    np.save(path, np.zeros(3))


@pytest.mark.usefixtures("project")
@pytest.mark.parametrize(
    ("name", "put", "problem", "hint"),
    [
        (
            "nowhere",
            put_nothing,
            "no such folder or .npz file",
            "set ingest.path, or the argument of `pipeline check`, ",
        ),
        ("~/my", put_nothing, "DVC takes ~ for a folder's name, not for your home folder", "write /home/me/my in its"),
        ("flat", put_flat, "got 3 images and no subfolder", "move the images of each class into a subfolder that is n"),
        ("empty", put_empty, "got an empty folder", "put your images there, or name another folder"),
        ("a.csv", put_table, "got a table", "make an .npz file of its pixels: docs/how-to/own-images.md shows how"),
        ("tables", put_table_in_a_folder, "got other files, such as train.csv", "name another folder, or make an .npz"),
        ("a.PNG", put_image, "got an image", "name the folder that has a subfolder for each class; `pipeline predict`"),
        ("arrays", put_archives, "got 2 .npz files", "name one of them, such as a.npz"),
        ("a.zip", put_archive, "got an archive", "unpack it, and name the folder"),
        ("a.npy", put_array, "got one array", "put images and labels into an .npz file: docs/how-to/own-images.md sh"),
        ("a.bin", put_table, "got another file", "name one of these"),
    ],
)
def test_what_holds_no_images_with_classes_is_told_in_one_sentence(name, put, problem, hint, monkeypatch):
    """One line says what is there in place of a data set and what to do, and one that nothing can be made of it."""
    monkeypatch.setenv("HOME", "/home/me")
    put(Path(name))
    result = run("check", name)
    told, summary = result.stdout.splitlines()

    assert result.exit_code == 1
    assert told.startswith(f"stops: {name}: ")
    assert f"{problem}; {hint}" in told
    assert summary == "check: no data set can be made of it; errors that stop the pipeline: 1"


def test_home_folder_in_params_is_refused_as_in_the_argument(project):
    """What `pipeline check` would take, `dvc repro` would not: DVC looks for a folder of that name."""
    params = (project / "params.yaml").read_text(encoding="utf-8")
    changed = params.replace("dataset: digits", "dataset: folder").replace("path: data/own", "path: ~/my")
    (project / "params.yaml").write_text(changed, encoding="utf-8")

    assert run("check").stdout == run("check", "~/my").stdout


@pytest.mark.usefixtures("project")
def test_guide_that_hints_name_is_there():
    """The page of the documents that shows how to make an .npz file."""
    assert "numpy.savez" in (ROOT / "docs/how-to/own-images.md").read_text(encoding="utf-8")


@pytest.mark.usefixtures("project")
def test_problems_of_arrays_have_a_line_each(tmp_path):
    """What is wrong with two arrays is two errors, as with two files."""
    images, labels = np.full((4, 6, 6), 0.5), np.array([0, 1, 1, 0])
    arrays = {"x_train": images, "y_train": labels, "x_test": images, "y_test": labels}
    np.savez(tmp_path / "shares.npz", **arrays)
    lines = run("check", tmp_path / "shares.npz").stdout.splitlines()

    assert [line.split(": ")[2] for line in lines[:2]] == ["x_train", "x_test"]
    assert lines[-1] == "check: no data set can be made of it; errors that stop the pipeline: 2"


@pytest.mark.usefixtures("project")
def test_classes_are_told_by_their_names(shapes, tmp_path):
    """A class without a test image is named as its folder is."""
    shutil.copytree(shapes, tmp_path / "uneven")
    (tmp_path / "uneven/rare").mkdir()
    draw("cross", np.random.default_rng(9)).save(tmp_path / "uneven/rare/1.png")
    result = run("check", tmp_path / "uneven")

    assert result.exit_code == 1
    assert "images of at least 1, got 1 of 8 otherwise (test images=0 class=rare); add images to these" in result.stdout
    assert "label=" not in result.stdout


def test_accepted_version_is_what_later_ones_are_compared_with(project, shapes, tmp_path):
    """After `pipeline accept` a version without one of the classes' images has drifted, and says how far."""
    write_raw(project)
    write_json(project / "reports/validation/validation.json", {"success": True})
    accepted = run("accept")
    profiles = read_json(project / "data/accepted.json")
    # The same data set under its name: what was accepted was of other images.
    shutil.copytree(shapes, tmp_path / "made up")
    result = run("check", tmp_path / "made up")

    assert accepted.stdout == ("accept: made up, 90 images in 3 classes; commit data/accepted.json, then `dvc repro`\n")
    assert profiles["made up"]["classes"] == {"left": 30, "middle": 30, "right": 30}
    assert result.exit_code == 0
    assert "expected class_drift of at most 0.1, got 1 of 1 otherwise (class_drift=1)" in result.stdout
    assert "run `pipeline accept` if these data are as they should be" in result.stdout


def test_data_that_was_stopped_is_not_accepted(project):
    """What breaks a rule that stops the pipeline cannot become what others are measured by."""
    write_raw(project)
    write_json(project / "reports/validation/validation.json", {"success": False})
    result = run("accept")

    assert result.exit_code == 1
    assert "the data did not pass `validate`; run `dvc repro validate`" in result.stderr
    assert json.loads((project / "data/accepted.json").read_text(encoding="utf-8")) == {}
