"""A model file is loaded only if it is, bit for bit, the file that was exported."""

import hashlib
import shutil
import subprocess

import pytest
from samples import list_files

from stages.lib.core.errors import ExportError
from stages.lib.exports.checksums import CHECKSUMS_NAME, read_whole, write_checksums

CONTENTS = {
    "model.tflite": bytes(range(256)),
    "model.onnx": b"\x08\x08 a model\r\n\x00\xff",
    "c/model_int8.h": b"#define ONE 1\n",
    "c/two words.txt": b"",
}


def write_files(folder, names):
    """Files with their contents, made in the order of `names`."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(CONTENTS[name])
    return folder


@pytest.fixture
def export_dir(tmp_path):
    """A folder as `export` writes it, with its digests."""
    write_checksums(write_files(tmp_path / "export", CONTENTS))
    return tmp_path / "export"


def flip(content, place):
    """The content with one bit of the byte at `place` turned."""
    changed = bytearray(content)
    changed[place] ^= 1
    return bytes(changed)


def refuse(path):
    """The error by which a file is refused, whose line is one."""
    with pytest.raises(ExportError) as refusal:
        read_whole(path)
    assert "\n" not in str(refusal.value)
    return refusal.value


def test_coreutils_accept_what_was_written(export_dir):
    """`sha256sum --check` reads the list and finds every file whole, those of a nested folder, too."""
    program = shutil.which("sha256sum")
    if program is None:
        pytest.skip("no sha256sum on this machine")
    command = [program, "--check", "--strict", CHECKSUMS_NAME]
    done = subprocess.run(command, cwd=export_dir, capture_output=True, text=True, check=False, timeout=60)

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [f"{name}: OK" for name in sorted(CONTENTS)]


def test_list_has_a_line_for_each_file_sorted_by_path(export_dir):
    """A line is the SHA-256, two spaces and the path from the folder, with slashes and a newline."""
    assert (export_dir / CHECKSUMS_NAME).read_bytes() == b"".join(
        f"{hashlib.sha256(CONTENTS[name]).hexdigest()}  {name}\n".encode() for name in sorted(CONTENTS)
    )


def test_list_does_not_depend_on_the_order_of_writing(export_dir, tmp_path):
    """The same files, made in another order, give the same list; nothing else is written."""
    other_dir = write_files(tmp_path / "other", reversed(CONTENTS))
    write_checksums(other_dir)

    assert list_files(other_dir) == list_files(export_dir)
    assert list_files(export_dir).keys() == {*CONTENTS, CHECKSUMS_NAME}


def test_list_written_again_is_the_same_bytes(export_dir):
    """A list that lies in the folder already is no file that was exported: it has no line of its own."""
    before = (export_dir / CHECKSUMS_NAME).read_bytes()
    write_checksums(export_dir)

    assert (export_dir / CHECKSUMS_NAME).read_bytes() == before


@pytest.mark.parametrize("name", ["model.onnx", "model.tflite"])
def test_whole_file_is_read_as_its_bytes(export_dir, name):
    """An undamaged file is given as it is, line ends and zeros included."""
    assert read_whole(export_dir / name) == CONTENTS[name]


def test_whole_file_is_read_from_its_own_folder(export_dir, monkeypatch):
    """A file's name alone is enough where one stands beside it."""
    monkeypatch.chdir(export_dir)

    assert read_whole((export_dir / "model.onnx").relative_to(export_dir)) == CONTENTS["model.onnx"]


@pytest.mark.parametrize(
    "damaged",
    [
        pytest.param(flip(CONTENTS["model.onnx"], 0), id="first byte"),
        pytest.param(flip(CONTENTS["model.onnx"], 7), id="a byte within"),
        pytest.param(flip(CONTENTS["model.onnx"], -1), id="last byte"),
        pytest.param(CONTENTS["model.onnx"][:-1], id="cut off"),
        pytest.param(CONTENTS["model.onnx"] + b"\x00", id="a byte more"),
        pytest.param(CONTENTS["model.onnx"].replace(b"\r\n", b"\n"), id="line ends"),
        pytest.param(b"", id="empty"),
        pytest.param(CONTENTS["model.tflite"], id="another model"),
    ],
)
def test_damaged_file_is_refused(export_dir, damaged):
    """A single other bit is told, with both digests, the length that came, and what to do."""
    path = export_dir / "model.onnx"
    path.write_bytes(damaged)
    error = refuse(path)

    assert error.where == str(path)
    assert error.expected == f"a whole model, SHA-256 {hashlib.sha256(CONTENTS['model.onnx']).hexdigest()[:12]}…"
    assert error.got == f"{hashlib.sha256(damaged).hexdigest()[:12]}… ({len(damaged)} bytes)"
    assert error.hint == "copy it again, or `dvc checkout models/export --force`"


LINE = f"{hashlib.sha256(CONTENTS['model.onnx']).hexdigest()}  model.onnx\n".encode()


@pytest.mark.parametrize(
    "listed",
    [
        pytest.param(None, id="no list"),
        pytest.param(b"", id="empty list"),
        pytest.param(LINE.replace(b"model.onnx", b"model.tflite"), id="another file's line"),
        pytest.param(LINE.replace(b"model.onnx", b"c/model.onnx"), id="a nested file of that name"),
        pytest.param(LINE.replace(b"model.onnx", b"model.onnx.old"), id="a longer name"),
        pytest.param(b"\xff\xfe\x00" + LINE, id="no text"),
    ],
)
def test_file_without_its_digest_is_refused(export_dir, listed):
    """Without its line in a list beside it, nobody knows whether a file is whole: it is not loaded."""
    list_path = export_dir / CHECKSUMS_NAME
    list_path.unlink()
    if listed is not None:
        list_path.write_bytes(listed)
    path = export_dir / "model.onnx"

    assert refuse(path).args == (
        str(path),
        "there is no SHA-256 of it in SHA256SUMS beside it, which tells whether it is whole",
        "copy that file, too, from where the model came from",
    )


NAME_ONE = "run `dvc repro`, which writes models/export, or name a model that is there"


def test_missing_file_is_told_though_its_digest_is_there(export_dir):
    """A file that is not there is called missing, not damaged."""
    path = export_dir / "model.onnx"
    path.unlink()

    assert refuse(path).args == (str(path), "no such file", NAME_ONE)


def test_file_in_a_missing_folder_is_told(tmp_path):
    """A path that leads nowhere is a missing file."""
    path = tmp_path / "none" / "model.onnx"

    assert refuse(path).args == (str(path), "no such file", NAME_ONE)


def test_folder_in_place_of_the_file_is_told(export_dir):
    """A folder is no model."""
    path = export_dir / "c"

    assert refuse(path).args == (str(path), "no such file", NAME_ONE)


def test_list_that_cannot_be_read_is_told_by_its_name(export_dir):
    """It is the list that is at error, not the model."""
    list_path = export_dir / CHECKSUMS_NAME
    list_path.unlink()
    list_path.mkdir()

    assert refuse(export_dir / "model.onnx").args == (
        str(list_path),
        "cannot be read: Is a directory",
        "something else has this name: move that away and run again",
    )
