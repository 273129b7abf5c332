"""A person's own arrays come back whole, and everything that is wrong with them is said at once."""

import io
import re
import zipfile

import numpy as np
import pytest
from pages import read_blocks
from PIL import Image
from samples import make_dataset, make_split, write_idx

from stages.ingest import IngestParams, run
from stages.lib.core.arrays import load_split
from stages.lib.core.errors import DataError
from stages.lib.core.files import read_json
from stages.lib.data.image_decoding import decode_image
from stages.lib.data.own_images import load_folder

SPLITS = ("train", "test")


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A folder with a person's own four IDX files, named relative to the project's root."""
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    return write_idx(tmp_path / "own")


def test_own_images_come_back(own, tmp_path):
    """Both splits, classes called by their ids, counts as expected and a SHA-256 of each file."""
    made = make_dataset()
    params = IngestParams(dataset="folder", path="own", image_size=[28, 28], channels=1, test_fraction=0.2, seed=0)
    run(params, tmp_path / "raw")
    dataset = read_json(tmp_path / "raw/dataset.json")

    np.testing.assert_array_equal(load_split(tmp_path / "raw/train").images, made.train.images, strict=True)
    np.testing.assert_array_equal(load_split(tmp_path / "raw/test").labels, made.test.labels, strict=True)
    assert dataset["class_names"] == ["0", "1", "2"]
    assert dataset["expected"] == {"train": 60, "test": 30}
    assert dataset["sources"].keys() == {path.name for path in own.iterdir()}


GREY = "grey images (N, H, W) of whole numbers 0..255"


def drop(own):
    (own / "t10k-labels-idx1-ubyte.gz").unlink()


def add_another(own):
    (own / "train-images.idx3-ubyte").write_bytes(b"")


def mix_up(own):
    (own / "t10k-labels-idx1-ubyte.gz").unlink()
    (own / "train-labels-idx1-ubyte").rename(own / "t10k-labels-idx1-ubyte")
    write_idx(own.with_name("other"), make_dataset(59, 30))
    (own.with_name("other") / "train-labels-idx1-ubyte").rename(own / "train-labels-idx1-ubyte")


@pytest.mark.parametrize(
    ("change", "expected", "got"),
    [
        (drop, "one IDX file of the test split's labels, such as t10k-labels-", "none"),
        (
            *(add_another, "one IDX file of the train split's images, such as train-images-"),
            "train-images-idx3-ubyte, train-images.idx3-ubyte",
        ),
        (
            *(mix_up, "as many labels in train-labels-idx1-ubyte as images in train-images-idx3-ubyte"),
            "60 images and 59 labels",
        ),
    ],
    ids=["missing", "twice", "counts"],
)
def test_own_files_that_do_not_fit_are_refused(own, change, expected, got):
    """Which file of which split is missing, there twice or of another length is said."""
    change(own)
    with pytest.raises(DataError) as refusal:
        load_folder("own", (28, 28), 0.2, 0)

    assert (refusal.value.causes[0].where, refusal.value.causes[0].got) == ("own", got)
    assert expected in refusal.value.causes[0].expected


@pytest.mark.usefixtures("own")
def test_own_arrays_in_npz_come_back(tmp_path):
    """Keras's names are understood; labels may stand in a column and be of any whole type."""
    made = make_dataset()
    arrays = {"x_train": made.train.images, "y_train": made.train.labels.astype(np.int64)[:, np.newaxis]}
    np.savez_compressed(tmp_path / "own.npz", x_test=made.test.images, y_test=made.test.labels, **arrays)
    dataset = load_folder("own.npz", (28, 28), 0.2, 0)

    np.testing.assert_array_equal(dataset.train.images, made.train.images, strict=True)
    np.testing.assert_array_equal(dataset.train.labels, made.train.labels)
    np.testing.assert_array_equal(dataset.test.labels, made.test.labels)
    assert dataset.sources.keys() == {"own.npz"}


def save_valid(path, **arrays):
    """Save 4 images of 3 by 5 pixels of two classes in each split, but for the arrays that are given."""
    images = np.arange(60, dtype=np.uint8).reshape(4, 3, 5)
    valid = {"x": images, "y": np.array([0, 1, 1, 0])}
    np.savez(path, **{f"{name}_{split}": array for name, array in valid.items() for split in SPLITS} | arrays)
    return images


@pytest.mark.parametrize(
    "change",
    [
        lambda images: images[..., np.newaxis],
        lambda images: images.astype(np.float32),
        lambda images: images.astype(np.float64)[..., np.newaxis],
        lambda images: images.astype(">i8"),
        lambda images: images.astype(np.uint16),
    ],
    ids=["channel", "float32", "float64 and channel", "big-endian", "uint16"],
)
@pytest.mark.usefixtures("own")
def test_images_of_whole_numbers_are_taken_whatever_their_type(tmp_path, change):
    """What Keras, PyTorch and pandas make of bytes comes back as bytes; a last axis of one channel is dropped."""
    images = save_valid(tmp_path / "own.npz")
    save_valid(tmp_path / "own.npz", x_train=change(images))

    np.testing.assert_array_equal(load_folder("own.npz", (28, 28), 0.2, 0).train.images, images, strict=True)


IMAGES = np.full((4, 6, 6), 0.2)
SHARES = "x_train = (x_train * 255).round().astype('uint8')"


@pytest.mark.parametrize(
    ("images", "got", "change"),
    [
        (IMAGES, "float64 (4, 6, 6) from 0.2 to 0.2", SHARES),
        (IMAGES > 0.5, "bool (4, 6, 6) from 0 to 0", SHARES),
        ((IMAGES > 0.1).astype(np.int64), "int64 (4, 6, 6) from 1 to 1", SHARES),
        (IMAGES.reshape(4, 36), "float64 (4, 36)", "x_train = x_train.reshape(-1, 6, 6)"),
        (IMAGES[:, np.newaxis], "float64 (4, 1, 6, 6)", "x_train = x_train[:, 0]"),
        (
            *(np.full((4, 3, 5, 3), 9, np.uint8), "uint8 (4, 3, 5, 3)"),
            "x_train = (x_train[..., :3] @ [0.299, 0.587, 0.114]).round().astype('uint8')",
        ),
        (IMAGES - 1, "float64 (4, 6, 6) from -0.8 to -0.8", ""),
        (IMAGES * np.nan, "float64 (4, 6, 6) from nan to nan", ""),
        (np.full((4, 6, 6), 256), "int64 (4, 6, 6) from 256 to 256", ""),
        (IMAGES.astype(np.complex64), "complex64 (4, 6, 6)", ""),
    ],
    ids=["0..1", "bool", "0 and 1", "flat", "first channel", "colour", "negative", "NaN", "wide", "complex"],
)
@pytest.mark.usefixtures("own")
def test_images_of_other_values_are_refused_with_the_conversion(tmp_path, images, got, change):
    """The line that the hint shows makes images that are taken, or the hint says what they should be."""
    save_valid(tmp_path / "own.npz", x_train=images, x_test=np.full((4, 6, 6), 7))
    with pytest.raises(DataError) as refusal:
        load_folder("own.npz", (28, 28), 0.2, 0)
    told = refusal.value.causes[0]

    assert (told.where, told.expected, told.got) == ("own.npz: x_train", GREY, got)
    if not change:
        assert told.hint == "bring all of them to whole numbers 0..255 in the same way; then save the file again"
        return
    assert f"in Python: `{change}`;" in told.hint
    arrays = dict(np.load(tmp_path / "own.npz"))
    exec(change, arrays)  # as a person types it
    assert arrays["x_train"].shape[0] == 4
    assert arrays["x_train"].ndim == 3


@pytest.mark.parametrize("shape", [(4, 7), (4, 3, 5, 2), (4,)], ids=["rows", "two channels", "numbers"])
@pytest.mark.usefixtures("own")
def test_shape_that_shows_no_image_is_refused_with_the_one_to_save(tmp_path, shape):
    """Where there is no telling what is meant, the hint says what is taken."""
    save_valid(tmp_path / "own.npz", x_train=np.zeros(shape))
    with pytest.raises(DataError) as refusal:
        load_folder("own.npz", (28, 28), 0.2, 0)
    told = refusal.value.causes[0]

    assert (told.where, told.expected, told.got) == ("own.npz: x_train", GREY, f"float64 {shape}")
    assert told.hint == "save grey images (N, H, W) of them"


COLOUR = "colour images (N, H, W, 3) of whole numbers 0..255"
COLOURS = np.arange(180, dtype=np.uint8).reshape(4, 3, 5, 3)


def save_colours(path, **arrays):
    """The same as `save_valid`, in colour."""
    save_valid(path, **{"x_train": COLOURS, "x_test": COLOURS[::-1]} | arrays)


@pytest.mark.parametrize("change", [lambda images: images, lambda images: images.astype(np.float32)])
@pytest.mark.usefixtures("own")
def test_colour_arrays_come_back(tmp_path, change):
    """With three channels, images (N, H, W, 3) of whole numbers of any type are taken as they are."""
    save_colours(tmp_path / "own.npz", x_train=change(COLOURS))
    dataset = load_folder("own.npz", (28, 28, 3), 0.2, 0)

    np.testing.assert_array_equal(dataset.train.images, COLOURS, strict=True)
    np.testing.assert_array_equal(dataset.test.images, COLOURS[::-1], strict=True)


@pytest.mark.usefixtures("own")
def test_colour_arrays_of_medmnist_come_back(tmp_path):
    """The images that MedMNIST sets aside join the training images in colour, too."""
    labels = np.array([[0], [1], [1], [0]])
    parts = {f"{part}_images": COLOURS for part in ("train", "val", "test")}
    np.savez(tmp_path / "own.npz", **parts, **{f"{part}_labels": labels for part in ("train", "val", "test")})
    dataset = load_folder("own.npz", (28, 28, 3), 0.2, 0)

    np.testing.assert_array_equal(dataset.train.images, np.concatenate([COLOURS, COLOURS]), strict=True)


@pytest.mark.parametrize(
    ("images", "change"),
    [
        (np.concatenate([COLOURS, COLOURS[..., :1]], axis=3), "x_train = x_train[..., :3]"),
        (COLOURS.transpose(0, 3, 1, 2), "x_train = x_train.transpose(0, 2, 3, 1)"),
        (COLOURS / 255, SHARES),
    ],
    ids=["alpha", "channels first", "0..1"],
)
@pytest.mark.usefixtures("own")
def test_colours_laid_out_otherwise_are_refused_with_the_conversion(tmp_path, images, change):
    """The line that the hint shows makes the images that are taken."""
    save_colours(tmp_path / "own.npz", x_train=images)
    with pytest.raises(DataError) as refusal:
        load_folder("own.npz", (28, 28, 3), 0.2, 0)
    told = refusal.value.causes[0]
    arrays = {"x_train": images}
    exec(change, arrays)  # as a person types it

    assert (told.where, told.expected) == ("own.npz: x_train", COLOUR)
    assert told.hint == f"in Python: `{change}`; then save the file again"
    np.testing.assert_array_equal(arrays["x_train"], COLOURS, strict=True)


@pytest.mark.parametrize("name", ["own", "own.npz"], ids=["IDX", "npz"])
@pytest.mark.usefixtures("own")
def test_grey_arrays_for_three_channels_are_refused_with_the_setting(tmp_path, name):
    """Grey images where colour is asked for: the hint says what to set or to type, and with either they are taken."""
    save_valid(tmp_path / "own.npz")
    with pytest.raises(DataError) as refusal:
        load_folder(name, (28, 28, 3), 0.2, 0)
    problems = refusal.value.causes

    assert [problem.expected for problem in problems] == [COLOUR, COLOUR]
    assert all(problem.hint.startswith("set ingest.channels to 1") for problem in problems)
    assert load_folder(name, (28, 28), 0.2, 0).train.images.ndim == 3
    if name == "own.npz":
        arrays = dict(np.load(tmp_path / name))
        for problem in problems:
            exec(problem.hint.split("`")[1], arrays)  # as a person types it
        np.savez(tmp_path / name, **{key: array for key, array in arrays.items() if key != "__builtins__"})
        assert load_folder(name, (28, 28, 3), 0.2, 0).train.images.ndim == 4


@pytest.mark.usefixtures("own")
def test_colour_arrays_for_one_channel_are_refused_with_the_setting(tmp_path):
    """Colour where grey is asked for: the hint says what to set, or the line that makes grey of it."""
    save_colours(tmp_path / "own.npz")
    with pytest.raises(DataError) as refusal:
        load_folder("own.npz", (28, 28), 0.2, 0)
    told = refusal.value.causes[0]

    assert (told.expected, told.got) == (GREY, "uint8 (4, 3, 5, 3)")
    assert told.hint.startswith("set ingest.channels to 3, or in Python: `x_train = ")
    assert load_folder("own.npz", (28, 28, 3), 0.2, 0).train.images.ndim == 4


@pytest.mark.parametrize("shape", [(28, 28), (28, 28, 3)], ids=["grey wanted", "colour wanted"])
@pytest.mark.usefixtures("own")
def test_grey_and_colour_in_one_file_are_refused_with_the_line_alone(tmp_path, shape):
    """Where one split is grey and the other in colour, no setting helps: the hint's line makes them alike."""
    save_colours(tmp_path / "own.npz", x_test=COLOURS[..., 0])
    with pytest.raises(DataError) as refusal:
        load_folder("own.npz", shape, 0.2, 0)
    (told,) = refusal.value.causes
    arrays = dict(np.load(tmp_path / "own.npz"))
    exec(told.hint.split("`")[1], arrays)  # as a person types it
    np.savez(tmp_path / "own.npz", **{key: array for key, array in arrays.items() if key != "__builtins__"})

    assert told.hint.startswith("in Python: `")
    assert load_folder("own.npz", shape, 0.2, 0).test.images.shape == (4, 3, 5, *shape[2:])


@pytest.mark.usefixtures("own")
def test_colour_becomes_the_grey_of_an_image_file(tmp_path):
    """The line that the hint shows gives the grey levels that the same image has as a file, but for rounding."""
    colours = np.random.default_rng(0).integers(0, 256, (4, 9, 9, 3), np.uint8)
    Image.fromarray(colours[0]).save(tmp_path / "colour.png")
    with (tmp_path / "colour.png").open("rb") as file:
        grey = np.asarray(decode_image(file, "colour.png"))
    save_valid(tmp_path / "own.npz", x_train=colours)
    with pytest.raises(DataError) as refusal:
        load_folder("own.npz", (28, 28), 0.2, 0)
    arrays = {"x_train": colours}
    exec(refusal.value.causes[0].hint.split("`")[1], arrays)  # as a person types it

    assert np.abs(arrays["x_train"][0].astype(int) - grey).max() <= 1


@pytest.mark.usefixtures("own")
def test_shown_conversions_make_arrays_that_are_taken(tmp_path, monkeypatch):
    """The blocks of the documents, typed as they are: a hint's line with what goes around it, and a table."""
    monkeypatch.chdir(tmp_path)
    generator = np.random.default_rng(0)
    table = np.column_stack([np.arange(1030) % 10, generator.integers(0, 256, (1030, 784))])
    np.savetxt("digits.csv", table, fmt="%d", delimiter=",", header="label,pixel0,…")
    save_valid("mine.npz", x_train=generator.random((4, 3, 5)))
    shown = [block for block in read_blocks("python") if "numpy.savez" in block]
    for block in shown:
        exec(block, {})  # as a person types it

    assert len(shown) == 2
    assert load_folder("mine-8-bit.npz", (28, 28), 0.2, 0).train.images.shape == (4, 3, 5)
    assert load_folder("mine.npz", (28, 28), 0.2, 0).expected == {"train": 30, "test": 1000}


@pytest.mark.usefixtures("own")
def test_images_of_another_size_than_the_training_images_are_refused(tmp_path):
    """Arrays stay as they are: nothing brings them to one size."""
    save_valid(tmp_path / "own.npz", x_test=np.zeros((4, 5, 3), np.uint8))
    with pytest.raises(DataError) as refusal:
        load_folder("own.npz", (28, 28), 0.2, 0)

    assert (refusal.value.where, refusal.value.got) == ("own.npz: x_test", "5 x 3")
    assert refusal.value.expected == "images of 3 x 5 as for training"


@pytest.mark.usefixtures("own")
def test_labels_of_another_number_than_images_are_refused(tmp_path):
    """Both arrays are named."""
    save_valid(tmp_path / "own.npz", y_train=np.array([0, 1, 1]))
    with pytest.raises(DataError) as refusal:
        load_folder("own.npz", (28, 28), 0.2, 0)

    assert (refusal.value.where, refusal.value.got) == ("own.npz", "4 images and 3 labels")
    assert refusal.value.expected == "as many labels in y_train as images in x_train"


@pytest.mark.usefixtures("own")
def test_labels_and_images_that_cannot_be_taken_are_told_at_once(tmp_path):
    """An array of each kind is wrong, and both are named."""
    save_valid(tmp_path / "own.npz", x_train=IMAGES - 1, y_test=np.array([0.5, 1, 1, 0]))
    with pytest.raises(DataError) as refusal:
        load_folder("own.npz", (28, 28), 0.2, 0)

    assert {"own.npz: x_train", "own.npz: y_test"} <= {cause.where for cause in refusal.value.causes}


@pytest.mark.usefixtures("own")
def test_medmnist_is_taken_and_its_validation_images_are_trained_on(tmp_path, capsys):
    """The validation images follow the training images, and a line says so; labels stand in a column."""
    made = {part: make_split(count, seed=count) for part, count in (("train", 30), ("val", 9), ("test", 12))}
    images = {f"{part}_images": split.images for part, split in made.items()}
    labels = {f"{part}_labels": split.labels[:, np.newaxis] for part, split in made.items()}
    np.savez(tmp_path / "bloodmnist.npz", **images, **labels)
    dataset = load_folder("bloodmnist.npz", (28, 28), 0.2, 0)

    joined = np.concatenate([made["train"].images, made["val"].images])
    np.testing.assert_array_equal(dataset.train.images, joined, strict=True)
    np.testing.assert_array_equal(
        dataset.train.labels, np.concatenate([made["train"].labels, made["val"].labels]), strict=True
    )
    np.testing.assert_array_equal(dataset.test.images, made["test"].images, strict=True)
    assert dataset.expected == {"train": 39, "test": 12}
    assert capsys.readouterr().out == "ingest: bloodmnist.npz: 9 validation images join the training images\n"


@pytest.mark.usefixtures("own")
def test_medmnist_without_a_validation_split_is_taken(tmp_path):
    """Its names alone are what counts."""
    made = make_split(30, seed=1)
    arrays = {f"{part}_{kind}": array for part in SPLITS for kind, array in made._asdict().items()}
    np.savez(tmp_path / "own.npz", **arrays)

    assert load_folder("own.npz", (28, 28), 0.2, 0).expected == {"train": 30, "test": 30}


@pytest.mark.usefixtures("own")
def test_idx_labels_from_1_are_names(tmp_path, capsys):
    """EMNIST's letters begin at 1: ids begin at 0, and a line says so."""
    made = make_dataset()
    shifted = {name: getattr(made, name)._replace(labels=getattr(made, name).labels + 1) for name in SPLITS}
    write_idx(tmp_path / "letters", made._replace(**shifted))
    dataset = load_folder("letters", (28, 28), 0.2, 0)

    np.testing.assert_array_equal(dataset.train.labels, made.train.labels, strict=True)
    assert dataset.class_names == ("1", "2", "3")
    assert capsys.readouterr().out == (
        "ingest: letters: labels 1 to 3 are taken as names of classes, whose ids are 0 to 2\n"
    )


@pytest.mark.usefixtures("own")
def test_arrays_that_are_missing_are_named(tmp_path):
    """The arrays that are not there are told, with those that are, and with the names that all should have."""
    np.savez(tmp_path / "own.npz", x_train=np.zeros((2, 3, 3), np.uint8))
    with pytest.raises(DataError) as refusal:
        load_folder("own.npz", (28, 28), 0.2, 0)

    assert (refusal.value.expected, refusal.value.got) == ("arrays y_train, x_test, y_test", "x_train")
    assert refusal.value.hint == "name the arrays x_train, y_train, x_test, y_test"


@pytest.mark.parametrize("damage", [lambda content: content[:-30], lambda _: b"text"], ids=["cut off", "text"])
@pytest.mark.usefixtures("own")
def test_damaged_npz_is_refused(tmp_path, damage):
    """A file that is no whole archive is an error of the data."""
    np.savez(tmp_path / "whole.npz", x_train=np.zeros(3))
    (tmp_path / "own.npz").write_bytes(damage((tmp_path / "whole.npz").read_bytes()))

    with pytest.raises(DataError) as refusal:
        load_folder("own.npz", (28, 28), 0.2, 0)

    assert (refusal.value.where, refusal.value.hint) == (str(tmp_path / "own.npz"), "save it again with numpy.savez")
    assert refusal.value.problem.startswith("not a whole .npz file: ")


def pack(content=b"no array", compression=zipfile.ZIP_STORED):
    """An archive with one member, which should be the array x_train."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", compression) as archive:
        archive.writestr("x_train.npy", content)
    return packed.getvalue()


def format_npy(array):
    """The array as a .npy file."""
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def encrypt(packed):
    """Mark the member as one with a password, in its own header and in the archive's list."""
    local, listed = packed.index(b"PK\3\4") + 6, packed.index(b"PK\1\2") + 8
    changed = bytearray(packed)
    changed[local] |= 1
    changed[listed] |= 1
    return bytes(changed)


def claim(packed, more):
    """Let the archive's list say that the member unpacks to more bytes than it does."""
    place = packed.index(b"PK\1\2") + 24
    size = int.from_bytes(packed[place : place + 4], "little") + more
    return packed[:place] + size.to_bytes(4, "little") + packed[place + 4 :]


def promise(shape, header_bytes=118):
    """A member that is a header alone, of that length, and promises an array of that shape."""
    header = repr({"descr": "|u1", "fortran_order": False, "shape": shape}).encode()
    return b"\x93NUMPY\2\0" + header_bytes.to_bytes(4, "little") + header.ljust(header_bytes)


BLACK = np.zeros((4, 3, 3), np.uint8)


@pytest.mark.usefixtures("own")
@pytest.mark.parametrize(
    ("content", "reported"),
    [
        (pack(), r"no header of a \.npy array: "),
        (pack(format_npy(BLACK), zipfile.ZIP_BZIP2), r"it is compressed by another method than numpy\.savez has"),
        (encrypt(pack(format_npy(BLACK))), r"not a whole \.npz file: .+ is encrypted"),
        (pack(format_npy(np.asfortranarray(BLACK))[:-1]), "expected 36 bytes of plain values in C order, got"),
        (pack(format_npy(BLACK.transpose())), "expected 36 bytes .+, got values in Fortran's order"),
        (pack(format_npy(BLACK) + b"more"), "expected 36 bytes of plain values in C order, got 40 bytes"),
        (
            claim(pack(format_npy(BLACK)[:-9], zipfile.ZIP_DEFLATED), 9),
            "expected 36 bytes of plain values in C order, got 27 bytes",
        ),
        (pack(format_npy(np.zeros(3, "V0"))), "expected 0 bytes of plain values in C order"),
        (pack(promise((-2, -3)) + bytes(6)), r"expected a shape of no negative sizes, got \(-2, -3\)"),
        (pack(promise((9,), 1 << 24), zipfile.ZIP_DEFLATED), r"no header of a \.npy array: "),
        (
            pack(promise((1 << 60,)), zipfile.ZIP_DEFLATED),
            "expected 1152921504606846976 bytes of plain values .+ got 0",
        ),
        (
            claim(pack(promise((1 << 31,)), zipfile.ZIP_DEFLATED), 1 << 31),
            "expected at most .+ bytes in so short a file, got 2,147,",
        ),
    ],
    ids=[
        "header",
        "bzip2",
        "password",
        "short",
        "Fortran",
        "long",
        "shorter than listed",
        "no bytes",
        "negative",
        "long header",
        "huge",
        "huge and listed so",
    ],
)
def test_odd_member_of_an_npz_is_refused(tmp_path, content, reported):
    """A member that numpy did not write so, or that unpacks to another size than it says, is told by its name."""
    (tmp_path / "own.npz").write_bytes(content)
    with pytest.raises(DataError) as refusal:
        load_folder("own.npz", (28, 28), 0.2, 0)
    problem = refusal.value.causes[0]  # the three other arrays are missing

    assert problem.where in (str(tmp_path / "own.npz"), f"{tmp_path / 'own.npz'}: x_train")
    assert re.match(reported, problem.problem)
    assert problem.hint.startswith("save ")


def test_all_problems_of_own_files_are_told_at_once(own):
    """A file that is missing and two that are damaged are three errors in one go."""
    drop(own)
    for path in own.glob("*images*"):
        path.write_bytes(b"<html>")
    with pytest.raises(DataError) as refusal:
        load_folder("own", (28, 28), 0.2, 0)

    assert [cause.got for cause in refusal.value.causes] == ["3c68746d", "3c68746d", "none"]


def test_path_that_is_not_there_is_refused(tmp_path, monkeypatch):
    """The message names the path, and the parameter and the argument that it may come from."""
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    with pytest.raises(DataError) as refusal:
        load_folder("own", (28, 28), 0.2, 0)

    assert refusal.value.args == (
        "own",
        "no such folder or .npz file",
        "set ingest.path, or the argument of `pipeline check`, to where your images are",
    )
