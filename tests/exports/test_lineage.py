"""What an exported model says of its upstream is read again, from it alone."""

import subprocess
import sys
import tracemalloc

import onnx
import pytest
from empty_models import write_onnx, write_tflite
from imports import ROOT
from onnx import helper

from stages.lib.core.errors import ParamsError
from stages.lib.core.params import load_params
from stages.lib.exports.lineage import MODEL_SECTIONS, Upstream, digest_params, read_upstream

UPSTREAM = Upstream(params="1" * 64, data="2" * 32 + ".dir", model="3" * 32)
PARAMS = {
    "ingest": {"dataset": "digits", "test_fraction": 0.2},
    "validate": {"min_contrast": 32},
    "normalize": {"method": "scale"},
    "train": {"hidden_units": [20], "learning_rate": 0.001},
    "export": {"opset": 18, "max_abs_error": {"onnx": 1e-05}},
}

WRITERS = {"onnx": write_onnx, "tflite": write_tflite}
each_format = pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)


def test_order_of_keys_does_not_change_the_digest():
    """Params mean the same in any order, so they have one digest."""
    other = {name: dict(reversed(section.items())) for name, section in reversed(PARAMS.items())}

    assert digest_params(other) == digest_params(PARAMS)


def test_spelling_of_numbers_does_not_change_the_digest(tmp_path):
    """A number as a person writes it and as DVC writes it to dvc.lock is one number."""
    digests = set()
    for rate, budget in (("1.0e-3", "1.0e-5"), ("0.001", "1e-05")):
        path = tmp_path / "params.yaml"
        path.write_text(
            "ingest: {}\nnormalize: {}\n"
            f"train: {{learning_rate: {rate}}}\nexport: {{max_abs_error: {{onnx: {budget}}}}}\n",
            encoding="utf-8",
        )
        digests.add(digest_params(load_params(path)))

    assert len(digests) == 1


@pytest.mark.parametrize("section", MODEL_SECTIONS)
def test_each_section_of_a_model_changes_the_digest(section):
    """What determines an exported model is in the digest."""
    assert digest_params(PARAMS | {section: PARAMS[section] | {"seed": 7}}) != digest_params(PARAMS)


def test_other_sections_do_not_change_the_digest():
    """What is checked or told of a model does not change its upstream."""
    assert digest_params(PARAMS | {"validate": {"min_contrast": 1}, "track": {}}) == digest_params(PARAMS)


@pytest.mark.parametrize("section", MODEL_SECTIONS)
def test_missing_section_is_one_line(section):
    """Params without one of the sections have no digest, and the error names the section."""
    params = {name: value for name, value in PARAMS.items() if name != section}
    with pytest.raises(ParamsError) as refusal:
        digest_params(params)

    assert refusal.value.args == (
        f"params.yaml: {section}",
        "no such section",
        "copy it from `git show HEAD:./params.yaml`",
    )


@each_format
def test_upstream_is_read_under_any_name(tmp_path, write):
    """What was written under `upstream` is read again; the file's content, not its ending, tells the format."""
    path = write(tmp_path / "copy of a model.bin", {"class_names": ["0"], "upstream": UPSTREAM._asdict()})

    assert read_upstream(path) == UPSTREAM


@each_format
@pytest.mark.parametrize(
    "metadata",
    [
        {},
        {"upstream": "v1"},
        {"upstream": ["1", "2", "3"]},
        {"upstream": {"params": "1" * 64, "data": "2" * 32}},
        {"upstream": {**UPSTREAM._asdict(), "model": 3}},
    ],
    ids=["nothing", "text", "list", "incomplete", "number"],
)
def test_model_without_upstream_has_none(tmp_path, write, metadata):
    """A model that tells nothing, or something else under that name, has no upstream."""
    assert read_upstream(write(tmp_path / "model", metadata)) is None


def test_metadata_of_another_program_is_no_upstream(tmp_path):
    """Metadata that is no JSON belongs to another program."""
    path = write_onnx(tmp_path / "model.onnx", {})
    model = onnx.load(path)
    helper.set_model_props(model, {"author": "somebody", "upstream": "yes"})
    onnx.save(model, path)

    assert read_upstream(path) is None


@each_format
def test_every_truncation_has_no_upstream_or_the_right_one(tmp_path, write):
    """A file cut off anywhere ends in no exception and in no other digests."""
    path = write(tmp_path / "model", {"upstream": UPSTREAM._asdict()})
    content = path.read_bytes()
    found = set()
    for size in range(len(content)):
        path.write_bytes(content[:size])
        found.add(read_upstream(path))

    assert None in found
    assert found <= {None, UPSTREAM}


@pytest.mark.parametrize(
    "content",
    [b"", b"no model", b"\x93NUMPY\x01\x00", b"\x89PNG\r\n\x1a\n", b"PK\x03\x04", b"\x00" * 4 + b"TFL3", bytes(64)],
)
def test_other_kinds_of_files_have_no_upstream(tmp_path, content):
    """A chart, an array, an archive or nothing at all is no exported model."""
    path = tmp_path / "model.onnx"
    path.write_bytes(content)

    assert read_upstream(path) is None


def test_huge_file_is_not_read(tmp_path):
    """A file larger than either format can be is not brought into memory."""
    path = tmp_path / "model.onnx"
    with path.open("wb") as file:
        file.truncate(2**31 + 1)  # takes no room on the disk
    tracemalloc.start()
    upstream = read_upstream(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert upstream is None
    assert peak < 2**20


def test_import_is_cheap():
    """Importing the module brings neither TensorFlow nor MLflow."""
    program = (
        "import sys, stages.lib.exports.lineage; print(sorted({'tensorflow', 'keras', 'mlflow'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)

    assert done.stdout == "[]\n"
