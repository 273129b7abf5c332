"""A folder of images becomes images with classes, or every file in it that is none is named."""

import contextlib
import os
import re
import socket
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from samples import list_files

from stages.ingest import IngestParams, run
from stages.lib.core.arrays import load_split
from stages.lib.core.errors import DataError
from stages.lib.core.files import read_csv, read_json
from stages.lib.data.image_folder import KINDS, list_image_files, read_image_folder

SIZE = (12, 16)
CLASSES = ("circle", "cross")


def draw(number):
    """An image that no other number gives."""
    pixels = np.random.default_rng(number).integers(0, 60, SIZE, np.uint8)
    pixels[3:9, 4:12] = 200
    return pixels


def save(path, pixels, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)


@pytest.fixture
def folder(tmp_path):
    """Ten images of each of two classes."""
    for number in range(20):
        save(tmp_path / "own" / CLASSES[number % 2] / f"{number:02}.png", draw(number))
    return tmp_path / "own"


def load(folder, test_fraction=0.2, seed=0):
    """The images of a folder; its errors as one exception, which is how `ingest` stops."""
    image_files, problems = read_image_folder(folder, "own", SIZE, test_fraction, seed, heading="test")
    if problems:
        raise DataError.join(problems)
    return image_files


def test_subfolders_are_the_classes(folder):
    """Each image comes back byte for byte with its folder's name as its class and its file's name."""
    image_files = load(folder)

    assert image_files.class_names == CLASSES
    for split, files in (
        (image_files.train, image_files.files["train"]),
        (image_files.test, image_files.files["test"]),
    ):
        for image, label, file in zip(*split, files, strict=True):
            assert file.startswith(CLASSES[label])
            np.testing.assert_array_equal(image, draw(int(Path(file).stem)))


def test_split_is_drawn_by_class_and_seed(folder):
    """A fifth of each class is held out; the same seed draws the same, another one others."""
    drawn = [load(folder, seed=seed).files["test"] for seed in (0, 0, 1)]

    assert [sorted(name.split("/")[0] for name in names) for names in drawn] == [["circle"] * 2 + ["cross"] * 2] * 3
    assert drawn[0] == drawn[1] != drawn[2]


@pytest.mark.parametrize("seed", range(5))
def test_same_pictures_stay_in_one_split(folder, seed):
    """Copies of an image, in whatever format and class, are never on both sides."""
    for number in range(8):
        save(folder / "cross" / f"copy{number}.bmp", draw(3))
    files = load(folder, seed=seed).files
    of_picture = [[name for name in names if "copy" in name or "03.png" in name] for names in files.values()]

    assert sorted(map(len, of_picture)) == [0, 9]


def test_split_of_the_folder_itself_is_kept(folder):
    """Under train and test the classes are as they lie, whatever the share."""
    for name, count in (("train", 6), ("test", 4)):
        for number in range(count):
            save(folder.parent / "sorted" / name / CLASSES[number % 2] / f"{number}.png", draw(number))
    image_files = load(folder.parent / "sorted", test_fraction=0.9)

    assert [len(split.labels) for split in (image_files.train, image_files.test)] == [6, 4]
    assert image_files.files["test"] == [f"test/{CLASSES[number % 2]}/{number}.png" for number in range(4)]


@pytest.mark.parametrize("suffix", ["png", "jpg", "jpeg", "bmp", "tif", "tiff", "webp", "JPG"])
def test_every_format_is_taken(folder, suffix):
    """PNG, JPEG, BMP, TIFF and WebP, in colour and another size."""
    large = Image.fromarray(draw(99)).convert("RGB").resize((160, 120), Image.Resampling.NEAREST)
    large.save(folder / "cross" / f"large.{suffix}", quality=95)
    image_files = load(folder, test_fraction=0.0)
    row = image_files.files["train"].index(f"cross/large.{suffix}")

    # JPEG and WebP are lossy.
    assert np.abs(image_files.train.images[row].astype(int) - draw(99)).mean() < 8


def test_what_systems_leave_is_passed_over(folder):
    """Hidden files, thumbnails, what archives of macOS add and a note beside the classes are no images, no errors."""
    names = (
        *(".DS_Store", "cross/.DS_Store", "cross/Thumbs.db", "cross/thumbs.db", "cross/Desktop.ini", ".git/x.png"),
        *(
            "@eaDir/cross/x.png",
            "cross/@eaDir/01.png/SYNOPHOTO_THUMB_M.jpg",
            "cross/.thumbnails/01.png",
            "#recycle/x.png",
        ),
        *("__MACOSX/cross/._01.png", "$RECYCLE.BIN/x.png", "cross/.@__thumb/01.png", "README.md"),
    )
    for name in names:
        (folder / name).parent.mkdir(exist_ok=True, parents=True)
        (folder / name).write_text("", encoding="utf-8")

    assert len(load(folder).train.labels) == 16


def test_folders_in_a_class_are_looked_into(folder):
    """An image counts for the class that is its outermost folder."""
    save(folder / "cross/2026/may/21.png", draw(21))

    files = load(folder).files

    assert "cross/2026/may/21.png" in files["train"] + files["test"]


def test_problems_leave_the_sound_pictures(folder):
    """All that can be read comes with all that is wrong: a broken file, one astray, an odd class."""
    write_text(folder / "circle" / "00.png")
    save(folder / "astray.png", draw(0))
    save(folder / "Cross" / "21.png", draw(21))
    image_files, problems = read_image_folder(folder, "own", SIZE, 0.2, 0, heading="test")

    assert [problem.where for problem in problems] == ["own/astray.png", "own/circle/00.png", "own/cross"]
    assert image_files.class_names == ("Cross", "circle", "cross")
    assert sorted(image_files.files["train"] + image_files.files["test"]) == [
        "Cross/21.png",
        *(f"circle/{number:02}.png" for number in range(2, 20, 2)),
        *(f"cross/{number:02}.png" for number in range(1, 20, 2)),
    ]


def test_one_sound_class_is_none_and_a_problem(folder):
    """Where all images of the other class are broken nothing can be told apart, and the message says both."""
    for path in (folder / "cross").iterdir():
        write_text(path)
    image_files, problems = read_image_folder(folder, "own", SIZE, 0.2, 0, heading="test")

    assert image_files is None
    assert len(problems) == 11
    assert (problems[-1].where, problems[-1].got) == ("own", "circle")
    assert problems[-1].expected == "a subfolder for each of two or more classes"


def test_original_size_comes_with_each_picture(folder):
    """Height and width in pixels of the upright image, before it was fitted."""
    exif = Image.Exif()
    exif[0x0112] = 6  # lies on its side
    save(folder / "cross" / "large.png", np.zeros((30, 70), np.uint8), exif=exif)
    image_files = load(folder, test_fraction=0.0)
    row = image_files.files["train"].index("cross/large.png")

    assert image_files.sizes["train"][row].tolist() == [70, 30]
    assert np.delete(image_files.sizes["train"], row, axis=0).tolist() == [list(SIZE)] * 20
    assert image_files.sizes["train"].dtype == np.int32


def write_text(path):
    path.write_text("no image\n" * 9, encoding="utf-8")


def write_nothing(path):
    path.write_bytes(b"")


def cut_off(path):
    save(path, np.random.default_rng(0).integers(0, 255, (90, 90), np.uint8))
    path.write_bytes(path.read_bytes()[:2000])


def animate(path):
    frames = [Image.fromarray(draw(number)) for number in (1, 2, 3)]
    frames[0].save(path, format="WEBP", save_all=True, append_images=frames[1:])


def make_bomb(path):
    Image.new("1", (20_000, 10_000)).save(path)


def write_gif(path):
    Image.fromarray(draw(0)).save(path, format="GIF")


def link_out(path):
    save(path.parents[2] / "elsewhere.png", draw(0))
    path.symlink_to(path.parents[2] / "elsewhere.png")


def link_nowhere(path):
    path.symlink_to(path.parent / "nowhere.png")


def link_folder(path):
    path.symlink_to(path.parent.parent, target_is_directory=True)


def link_to_itself(path):
    path.symlink_to(path)


def listen(path):
    with socket.socket(socket.AF_UNIX) as server, contextlib.chdir(path.parent):  # its address has a hundred bytes
        server.bind(path.name)


def write_svg(path):
    path.write_text('<svg xmlns="http://www.w3.org/2000/svg"/>', encoding="utf-8")


def write_pages(path):
    pages = [Image.fromarray(draw(number)) for number in (1, 2)]
    pages[0].save(path, format="TIFF", save_all=True, append_images=pages[1:])


def write_heic(path):
    # The first box of a file from a telephone; Pillow writes no others than AVIF.
    path.write_bytes(b"\x00\x00\x00\x1cftypheic\x00\x00\x00\x00mif1heicmiaf" + bytes(100))


def write_avif(path):
    Image.fromarray(draw(0)).save(path, format="AVIF")


CONVERT = (
    "convert it with `heif-convert own/cross/odd.png own/cross/odd.jpg` (Debian: libheif-examples, Homebrew: libheif)"
)
BROKEN = {
    "HEIC": (write_heic, "a HEIC image, which is not taken", CONVERT),
    "AVIF": (write_avif, "an AVIF image, which is not taken", CONVERT),
    "text": (write_text, f"not a valid image: it is none of {', '.join(KINDS)}", "replace it, or leave it out"),
    "empty": (write_nothing, "not a valid image: it is none of PNG, ", "replace it, or leave it out"),
    "cut off": (cut_off, "not a valid image: .*truncated", "replace it, or leave it out"),
    "animated": (animate, "it holds several images", "save each as a file of its own"),
    "bomb": (make_bomb, "not a valid image: .*decompression bomb", "replace it, or leave it out"),
    "GIF": (write_gif, "not a valid image: it is none of PNG, ", "replace it, or leave it out"),
    "link out": (link_out, "it is a link to a file outside this folder", "copy the file here"),
    "dead link": (link_nowhere, "it is a link that leads to no file: No such file", "remove the link"),
    "link to a folder": (link_folder, "it is a link to a folder", "remove it"),
    "link to itself": (link_to_itself, "it is a link that leads to no file: Too many levels", "remove the link"),
    "FIFO": (os.mkfifo, "it is no ordinary file", "remove it"),
    "socket": (listen, "it is no ordinary file", "remove it"),
    "SVG": (write_svg, "not a valid image: it is none of PNG, ", "replace it, or leave it out"),
    "pages": (write_pages, "it holds several images", "save each as a file of its own"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_file_that_is_no_picture_is_named_with_its_reason(folder, kind):
    """A broken, hostile or foreign file is refused by its path."""
    write, reported, hint = BROKEN[kind]
    write(folder / "cross" / "odd.png")
    with pytest.raises(DataError) as refusal:
        load(folder)

    assert (refusal.value.where, refusal.value.hint) == ("own/cross/odd.png", hint)
    assert re.match(reported, refusal.value.problem)


def test_all_problems_are_told_at_once(folder):
    """Each file that is none of a class's images has a line of its own, in the order of the names."""
    for number, (write, *_) in enumerate(BROKEN.values()):
        write(folder / "circle" / f"odd{number:02}.png")
    save(folder / "astray.png", draw(0))
    (folder / "empty").mkdir()
    with pytest.raises(DataError) as refusal:
        load(folder)
    first, *lines = str(refusal.value).splitlines()

    assert first == f"{len(BROKEN) + 2} errors:"
    assert lines == [f"  {cause}" for cause in refusal.value.causes]
    assert [cause.where for cause in refusal.value.causes] == [
        "own/astray.png",
        *(f"own/circle/odd{number:02}.png" for number in range(len(BROKEN))),
        "own/empty",
    ]


def test_name_that_is_no_utf8_is_refused_and_shown(folder):
    """The bytes of the name are shown as such."""
    Path(os.fsdecode(os.fsencode(folder / "cross") + b"/\xff.png")).write_bytes(b"")
    _, problems = list_image_files(folder, "own")

    assert [problem.args for problem in problems] == [(r"own/cross/\xff.png", "its name is not UTF-8", "rename it")]


@pytest.mark.parametrize(("classes", "got"), [((), "none"), (("cross",), "cross")])
def test_fewer_than_two_classes_are_refused(tmp_path, classes, got):
    """There is nothing to tell apart."""
    (tmp_path / "own").mkdir()
    for name in classes:
        save(tmp_path / "own" / name / "1.png", draw(1))

    with pytest.raises(DataError) as refusal:
        load(tmp_path / "own")

    assert (refusal.value.where, refusal.value.got) == ("own", got)
    assert refusal.value.expected == "a subfolder for each of two or more classes"


@pytest.mark.parametrize("between", ["", "archive/"])
def test_folder_around_the_classes_is_named_in_a_hint(tmp_path, between):
    """Archives often have one folder in which the classes are: that is the one to name."""
    for name in CLASSES:
        save(tmp_path / "own" / "unpacked" / between / name / "1.png", draw(1))
    with pytest.raises(DataError) as refusal:
        load(tmp_path / "own")

    assert refusal.value.hint == (
        "name own/unpacked if its subfolders are the classes, or sort the images into such subfolders"
    )


def test_name_of_a_class_is_the_same_on_every_system(folder):
    """A decomposed umlaut, as macOS writes it, is the composed one."""
    save(folder / "gro\u0308ße" / "1.png", draw(50))

    assert load(folder).class_names == ("circle", "cross", "größe")


@pytest.mark.usefixtures("folder")
def test_ingest_writes_pictures_with_their_files(tmp_path, monkeypatch):
    """data/raw holds images, labels, class names, each image's file and its size, the same bytes each time."""
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    params = IngestParams(dataset="folder", path="own", image_size=[12, 16], channels=1, test_fraction=0.2, seed=0)
    for name in ("one", "two"):
        run(params, tmp_path / name)
    images, labels = load_split(tmp_path / "one/train")
    listed = read_csv(tmp_path / "one/train/files.csv")
    files = [row["file"] for row in listed]
    written = [{path.name: path.read_bytes() for path in (tmp_path / name).rglob("*.*")} for name in ("one", "two")]

    np.testing.assert_array_equal(images[3], draw(int(Path(files[3]).stem)))
    assert [name.split("/")[0] for name in files] == [CLASSES[label] for label in labels]
    assert {(row["height"], row["width"]) for row in listed} == {("12", "16")}
    assert read_json(tmp_path / "one/dataset.json")["class_names"] == list(CLASSES)
    assert read_json(tmp_path / "one/dataset.json")["name"] == "own"
    assert written[0] == written[1]


@pytest.mark.usefixtures("folder")
def test_ingest_writes_colour(tmp_path, monkeypatch):
    """With three channels every image is RGB, a grey one in three equal channels; the same bytes each time."""
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    colours = np.stack([draw(40), draw(41), draw(42)], axis=-1)
    save(tmp_path / "own/cross/40.png", colours)
    params = IngestParams(dataset="folder", path="own", image_size=[12, 16], channels=3, test_fraction=0.2, seed=0)
    for name in ("one", "two"):
        run(params, tmp_path / name)
    images = {
        row["file"]: image
        for split in ("train", "test")
        for row, image in zip(
            read_csv(tmp_path / f"one/{split}/files.csv"), load_split(tmp_path / f"one/{split}").images, strict=True
        )
    }

    np.testing.assert_array_equal(images["cross/40.png"], colours)
    np.testing.assert_array_equal(images["circle/00.png"], np.stack([draw(0)] * 3, axis=-1))
    assert read_json(tmp_path / "one/dataset.json")["channels"] == 3
    assert read_json(tmp_path / "one/dataset.json")["image_size"] == [12, 16]
    assert list_files(tmp_path / "one") == list_files(tmp_path / "two")


UNREADABLE = "expected a class name that can be read, without blanks around it, got "
CLASS_NAMES = {
    "newline": ("a\nb", r"own/a\nb", UNREADABLE + r"'a\nb'"),
    "terminal": ("\x1b[2J", r"own/\x1b[2J", UNREADABLE + r"'\x1b[2J'"),
    "direction": ("\u202etxet", r"own/\u202etxet", UNREADABLE + r"'\u202etxet'"),
    "blank": (" ", "own/ ", UNREADABLE + "' '"),
    "nothing to see": ("\u200b", "own/\u200b", UNREADABLE + r"'\u200b'"),
    "blanks around": ("cross ", "own/cross ", UNREADABLE + "'cross '"),
    "markup": ("<b>bold", "own/<b>bold", "this class name holds a tag of HTML"),
    "upper case": (
        *("Circle", "own/circle"),
        "this class name differs in upper case or the form of accents alone from that of own/Circle",
    ),
    "no UTF-8": ("\udcff", r"own/\xff", "its name is not UTF-8"),
}


@pytest.mark.parametrize("kind", CLASS_NAMES)
def test_class_name_that_reports_or_other_systems_cannot_take_is_refused(folder, kind):
    """Control characters, nothing to see, markup, and what differs from another class by upper case alone."""
    name, where, reported = CLASS_NAMES[kind]
    save(folder / name / "1.png", draw(60))
    with pytest.raises(DataError) as refusal:
        load(folder)

    assert (refusal.value.where, refusal.value.problem) == (where, reported)
    assert refusal.value.hint.startswith("rename ")


@pytest.mark.parametrize("name", ["<3", "-", "+", "-1", "$5", "=1+1", "a,b", "x" * 255, "日本"])
def test_odd_class_name_is_taken_as_it_is(folder, name):
    """Signs, numbers, formulas, commas and long names are names."""
    save(folder / name / "1.png", draw(60))

    assert name in load(folder).class_names


def test_accents_of_two_forms_in_one_folder_are_refused(folder):
    """Composed and decomposed, they would be one class on another system; between train and test they are."""
    for name in ("gro\u0308ße", "größe"):
        save(folder / name / "1.png", draw(50))
    for split, name in (("train", "gro\u0308ße"), ("test", "größe"), ("train", "x"), ("test", "x")):
        save(folder.parent / "sorted" / split / name / "1.png", draw(51))
    with pytest.raises(DataError) as refusal:
        load(folder)

    assert "the form of accents alone from that of own/gro" in refusal.value.problem
    assert load(folder.parent / "sorted").class_names == ("größe", "x")


def test_link_in_place_of_a_class_is_refused(folder):
    """A class that lies elsewhere, or that leads back into the folder, is told, not passed over."""
    (folder / "elsewhere").symlink_to(folder.parent, target_is_directory=True)
    (folder / "loop").symlink_to("loop")
    _, problems = list_image_files(folder, "own")

    assert [(problem.where, problem.problem) for problem in problems] == [
        ("own/elsewhere", "it is a link to a folder or to nothing"),
        ("own/loop", "it is a link to a folder or to nothing"),
    ]


def test_splits_of_other_names_are_no_classes(folder):
    """Three splits, or Train and Test, would be taken for classes."""
    for name in ("train", "test", "val"):
        save(folder.parent / "sorted" / name / "circle" / "1.png", draw(1))

    with pytest.raises(DataError) as refusal:
        load(folder.parent / "sorted")

    assert refusal.value.expected == "a folder for each class, or train and test"
    assert refusal.value.got == "test, train, val"


def test_class_without_an_image_in_a_split_is_said(folder, capsys):
    """A single image cannot be on both sides: one line says which class lacks one where."""
    save(folder / "rare" / "99.png", draw(99))
    load(folder)

    assert capsys.readouterr().out in ("test: own: no test image of rare\n", "test: own: no train image of rare\n")


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody who may not read what root wrote")
def test_what_cannot_be_read_is_told(folder):
    """A file and a folder without permission are told beside all else; root may read anything, so the child is none."""
    (folder / "circle" / "00.png").chmod(0)
    (folder / "cross").chmod(0)
    for parent in (folder, folder.parent):
        parent.chmod(0o755)
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.chdir(folder.parent)  # those above may be closed to others
        os.setuid(65534)
        _, problems = read_image_folder(Path(folder.name), "own", SIZE, 0.2, 0, heading="test")
        os.write(writing, "\n".join(map(str, problems)).encode())
        os._exit(0)
    os.close(writing)
    os.waitpid(child, 0)
    lines = os.read(reading, 1 << 16).decode().splitlines()
    os.close(reading)

    assert [line.partition(";")[0] for line in lines] == [
        "own/circle/00.png: cannot be read: Permission denied",
        "own/cross: cannot be read: Permission denied",
        "own: expected a subfolder for each of two or more classes, got circle",
    ]
