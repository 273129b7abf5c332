"""Whatever comes in, a reader gives a value or one of the pipeline's own errors: for inputs that nobody thought of.

`pytest tests/faults/test_properties.py --examples 5000` makes up more of them.
"""

import gzip
import io
import os
import random
import struct
import tempfile
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from pictures_made_up import damage, draw_samples, encode
from PIL import Image
from ruamel.yaml import YAML

from stages.ingest import IngestParams
from stages.lib.core.errors import DataError, ExportError, ParamsError
from stages.lib.core.params import load_section, validate_section
from stages.lib.data.idx import open_idx
from stages.lib.data.image_decoding import decode_image, fit_image
from stages.lib.data.image_folder import KINDS, read_image_folder
from stages.lib.data.npz import open_npz
from stages.lib.exports.parity import Budget, compare
from stages.lib.exports.parity_matrix import Comparison, describe_exports, measure_errors, tabulate
from stages.lib.exports.withholding import judge, require_exports

# Longer than any line that a person reads; a thousand aliases must not make it a page.
LONGEST_MESSAGE = 6000


def attempt(kind, action):
    """What comes of an action, be it an error of that kind; any other one fails the test."""
    try:
        return action()
    except kind as error:
        return error


@contextmanager
def place(name, content):
    """A file of that name and content, as long as the block lasts."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(content)
        yield path


# --- params.yaml --------------------------------------------------------------------------------------------------

# What YAML's grammar is made of: random letters would hardly ever get past its first rule.
WORDS = st.sampled_from(
    [
        "ingest",
        "dataset",
        "digits",
        "seed",
        ": ",
        ": ",
        "\n",
        "\n  ",
        "- ",
        "[",
        "]",
        "{",
        "}",
        ", ",
        "&a ",
        "*a",
        "!!float",
        "!!binary",
        "!!set",
        "!!omap",
        "!!timestamp",
        "<<: ",
        "? ",
        "'",
        '"',
        "# ",
        "%YAML 1.1\n",
        "---\n",
        "...",
        "0x1g",
        "1e999",
        ".nan",
        "2001-13-45",
        "2001-01-01T25:00:00Z",
        "1:60:70",
        "\t",
        "\x00",
        "\x85",
        "\ufeff",
        "12345678901234567890",
        "@",
        "`",
        "~",
        "true",
        "=",
        "+",
        "._",
        "1_000",
        "\\x",
        "!<",
        "é",
    ]
)
TEXTS = st.lists(WORDS | st.text(max_size=3), max_size=25).map("".join)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5) | st.integers(), inner, max_size=4),
    max_leaves=8,
)
INGEST = st.builds(
    IngestParams,
    dataset=st.sampled_from(["digits", "mnist", "fashion_mnist", "cifar10", "folder"]),
    path=st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), min_size=1),
    image_size=st.lists(st.integers(1, 1024), min_size=2, max_size=2),
    channels=st.sampled_from([1, 3]),
    test_fraction=st.floats(0, 1, exclude_min=True, exclude_max=True),
    seed=st.integers(0, 2**32 - 1),
)
LAUGHS = "".join(
    f"a{level}: &a{level} [{', '.join([f'*a{level - 1}' if level else 'x'] * 10)}]\n" for level in range(7)
)


@given(TEXTS.map(lambda text: f"ingest: {text}".encode("utf-8", "surrogatepass")) | st.binary())
@example(b"ingest: " + b"[" * 1500)
@example(b"ingest: !!float")
@example(b"ingest: {seed: 0x" + b"9" * 5000 + b"}")
@example(b"ingest: &a {seed: *a}")
@example(f"{LAUGHS}ingest: {{dataset: *a6}}".encode())
def test_any_params_are_a_section_or_a_short_error(content):
    """Text, bytes, recursion and what multiplies itself: one line, of bounded length."""
    with place("params.yaml", content) as path:
        outcome = attempt(ParamsError, lambda: load_section("ingest", IngestParams, path))

    assert isinstance(outcome, IngestParams) or len(str(outcome)) < LONGEST_MESSAGE


@given(VALUES)
def test_any_value_is_a_section_or_an_error(value):
    """What YAML can say, of whatever type and depth, is a section or is told."""
    outcome = attempt(ParamsError, lambda: validate_section(value, IngestParams, "ingest."))

    if isinstance(outcome, ParamsError):
        assert len(str(outcome)) < LONGEST_MESSAGE
    else:
        assert outcome.model_dump() == value


@given(INGEST)
def test_section_comes_back_from_yaml(section):
    """What is valid is the same after it was written and read."""
    file = io.BytesIO()
    YAML(typ="safe").dump({"ingest": section.model_dump()}, file)

    with place("params.yaml", file.getvalue()) as path:
        assert load_section("ingest", IngestParams, path) == section


# --- arrays -------------------------------------------------------------------------------------------------------

BYTE_ARRAYS = st.integers(1, 3).flatmap(lambda n: arrays.arrays(np.uint8, arrays.array_shapes(min_dims=n, max_dims=n)))
HEADERS = st.builds(
    lambda kind, sizes: struct.pack(f">BBBB{len(sizes)}I", 0, 0, kind, len(sizes), *sizes),
    st.sampled_from([8, 8, 8, 9, 0]),
    st.lists(st.integers(0, 3) | st.integers(0, 2**32 - 1), min_size=1, max_size=3),
)


@given(st.builds(bytes.__add__, HEADERS, st.binary(max_size=30)) | st.binary(), st.sampled_from([1, 3]))
@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
def test_any_bytes_are_an_idx_array_or_an_error(pack, content, dimensions):
    """A file, compressed or not, is read as its header says, or refused by its name."""
    with place("x", pack(content)) as path:
        opened = attempt(DataError, lambda: open_idx(path, dimensions))

        if isinstance(opened, DataError):
            assert opened.where == str(path)
        else:
            assert (opened.dtype, opened.ndim) == (np.uint8, dimensions)
            assert opened.tobytes() == content[4 + 4 * dimensions :]


@given(BYTE_ARRAYS)
@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
def test_any_array_comes_back_from_idx(pack, array):
    """Shape and values are those that were written."""
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)

    with place("x", pack(header + array.tobytes())) as path:
        np.testing.assert_array_equal(np.array(open_idx(path, array.ndim)), array, strict=True)


NUMBERS = arrays.arrays(
    arrays.integer_dtypes() | arrays.floating_dtypes() | st.just(np.dtype(np.bool_)), arrays.array_shapes(min_dims=0)
)
SAVES = pytest.mark.parametrize("save", [np.savez, np.savez_compressed], ids=["stored", "deflated"])


@given(NUMBERS)
@SAVES
def test_any_array_comes_back_from_npz(save, array):
    """Type, shape and bits are those that were saved."""
    file = io.BytesIO()
    save(file, x=np.ascontiguousarray(array).reshape(array.shape))
    with place("x.npz", file.getvalue()) as path:
        opened = open_npz(path, ["x"])["x"]

    assert (opened.dtype, opened.shape, opened.tobytes()) == (array.dtype, array.shape, array.tobytes())


@given(st.integers(0, 2**32))
@SAVES
def test_damaged_npz_is_an_array_or_an_error(save, seed):
    """Flipped bits, other numbers, and a missing end, in the archive's lists and in the array's header, too."""
    file = io.BytesIO()
    save(file, x=np.arange(40, dtype=np.uint8).reshape(5, 8))
    with place("x.npz", damage(file.getvalue(), random.Random(seed), [file.getvalue()])) as path:
        opened = attempt(DataError, lambda: open_npz(path, ["x"]))

    assert str(opened).startswith(str(path)) or isinstance(opened["x"], np.ndarray)


# --- images -----------------------------------------------------------------------------------------------------

SAMPLES = draw_samples()


@given(st.integers(0, 2**32))
@pytest.mark.parametrize("is_colour", [False, True], ids=["grey", "colour"])
@pytest.mark.parametrize("name", SAMPLES)
def test_damaged_picture_is_read_or_refused(name, is_colour, seed):
    """No exception of a decoder comes through."""
    content = damage(SAMPLES[name], random.Random(seed), list(SAMPLES.values()))
    outcome = attempt(
        DataError,
        lambda: fit_image(decode_image(io.BytesIO(content), "own/a.png", KINDS, is_colour=is_colour), (6, 8)),
    )

    if isinstance(outcome, DataError):
        assert outcome.where == "own/a.png"
        assert outcome.problem
        assert outcome.hint
    else:
        assert (outcome.dtype, outcome.shape) == (np.uint8, (6, 8, 3) if is_colour else (6, 8))


NAMES = st.sampled_from(
    [
        "a",
        "A",
        "b",
        "train",
        "test",
        "é",
        "e\u0301",
        "=1+1",
        "<b>",
        " ",
        "-1",
        "a\nb",
        "\x1b[2J",
        "\udcff",
        ".git",
        "x" * 200,
    ]
)
SOUND = encode(Image.new("L", (3, 2), 9), "PNG")
CONTENTS = st.sampled_from([SOUND, encode(Image.new("RGB", (5, 4)), "JPEG"), SOUND[:-9], b"", b"text"])
ENTRIES = st.lists(
    st.tuples(st.lists(NAMES, min_size=1, max_size=4), CONTENTS | st.sampled_from(["link", "fifo"])), max_size=9
)


def plant(folder, entries):
    """Make files, links and FIFOs at paths of names, as far as these do not collide, and list those of the classes."""
    for names, content in entries:
        path = folder.joinpath(*names[:-1], f"{names[-1]}.png")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if content == "link":
                path.symlink_to(folder.parent)
            elif content == "fifo":
                os.mkfifo(path)
            else:
                with path.open("xb") as file:  # not into a FIFO that is there
                    file.write(content)
        except FileExistsError:
            continue
    return {
        path
        for path in folder.rglob("*")
        if (path.is_symlink() or not path.is_dir())
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    }


def show(path):
    """The path in one line, as errors have it."""
    name = os.fsencode(path).decode("utf-8", "backslashreplace")
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in name)


@given(ENTRIES, st.integers(0, 9))
def test_each_file_of_any_folder_is_a_picture_or_a_problem(entries, seed):
    """Every file is in Images or named by one error, never in both and never in neither."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "own"
        folder.mkdir()
        planted = plant(folder, entries)
        pictures, problems = read_image_folder(folder, "own", (2, 3), 0.3, seed, heading="test")
        reported = [problem.where for problem in problems]
        read = [name for names in pictures.files.values() for name in names] if pictures else []
        for path in planted:
            name = path.relative_to(folder)
            own = reported.count(f"own/{show(name)}")
            # A class whose name is not UTF-8 is told as one.
            around = sum(reported.count(f"own/{show(parent)}") for parent in name.parents if "\udcff" in str(parent))
            count = read.count(name.as_posix()) + own + (around if not own else 0)
            assert count == 1 if pictures else count <= 1, (name, reported, read)
        assert pictures or problems
        if pictures:
            assert [len(split.labels) for split in (pictures.train, pictures.test)] == [
                len(pictures.files[name]) == len(pictures.sizes[name]) and len(pictures.sizes[name])
                for name in ("train", "test")
            ]


# --- parity -------------------------------------------------------------------------------------------------------

SHAPES = st.tuples(st.integers(1, 6), st.integers(2, 4))
ANY = st.floats(width=32)
UNIT = st.floats(0, 1, width=32)
BUDGETS = st.builds(Budget, max_abs_error=st.floats(1e-6, 1), min_same_class=UNIT, max_accuracy_drop=st.floats(0, 100))


def draw_pair(elements):
    """Two arrays of probabilities, a label for each row, and a budget."""
    return SHAPES.flatmap(
        lambda shape: st.tuples(
            arrays.arrays(np.float32, shape, elements=elements),
            arrays.arrays(np.float32, shape, elements=elements),
            arrays.arrays(np.int64, shape[0], elements=st.integers(0, shape[1] - 1)),
            BUDGETS,
        )
    )


@given(draw_pair(UNIT))
def test_parity_counts_are_consistent(pair):
    """Each image is the same or different; another class is the same only where the reference is undecided."""
    one, other, labels, budget = pair
    parity, turned = compare(one, other, labels, budget), compare(other, one, labels, budget)

    assert parity.images == len(labels) == parity.same_class + len(parity.different)
    assert 0 <= parity.ties <= len(parity.different)
    assert parity.max_abs_error == turned.max_abs_error
    for row in np.flatnonzero(one.argmax(axis=1) != other.argmax(axis=1)):
        distance = one[row].max() - one[row, other[row].argmax()]
        assert (row in parity.different) == (distance > np.float32(1e-5))
    assert parity.within_budget == (
        parity.max_abs_error <= budget.max_abs_error
        and parity.same_class / parity.images >= budget.min_same_class
        and parity.accuracy_drop <= budget.max_accuracy_drop
    )
    assert compare(one, one, labels, budget).within_budget


@given(draw_pair(ANY), st.sampled_from([np.nan, np.inf, -np.inf]), st.data())
def test_no_number_is_never_within_budget(pair, value, data):
    """One NaN or infinity in either is beyond any budget, and the reports of it can be written."""
    one, other, labels, budget = pair
    spoilt = data.draw(st.sampled_from([one, other]))
    spoilt[data.draw(st.integers(0, len(one) - 1)), data.draw(st.integers(0, one.shape[1] - 1))] = value
    with np.errstate(invalid="ignore"):
        parity = compare(one, other, labels, budget)
    comparisons = [Comparison("model.onnx", "onnx_runtime", budget, "", other, parity)]

    assert not parity.within_budget
    assert not describe_exports(comparisons, {"model.onnx": 1})["model.onnx"]["within_budget"]
    assert measure_errors(comparisons) == {"model.onnx": {"onnx_runtime": None}}
    assert "BEYOND BUDGET" in "\n".join(tabulate(comparisons, is_measured=True))
    with pytest.raises(ExportError) as refusal:
        require_exports(judge(comparisons, {}, {"model.onnx": "onnx_float32"}), ["model.onnx"])

    assert "model.onnx" in str(refusal.value)
