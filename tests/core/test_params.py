"""params.yaml is read strictly: an error is told in one line with its dotted path, its value and what is allowed."""

import json
import re
from importlib import import_module

import pytest
from imports import ROOT, STAGES
from pydantic import ValidationError
from samples import run_python

from stages.export import ExportParams
from stages.ingest import IngestParams
from stages.lib.core.errors import ParamsError
from stages.lib.core.params import load_params, load_section
from stages.normalize import NormalizeParams
from stages.track import TrackParams
from stages.train import TrainParams

SECTIONS = {
    "export": ExportParams,
    "ingest": IngestParams,
    "normalize": NormalizeParams,
    "track": TrackParams,
    "train": TrainParams,
}

INGEST = "ingest: {dataset: digits, path: own, image_size: [28, 28], test_fraction: 0.2, seed: 0}"
NORMALIZE = "normalize: {method: scale, validation_fraction: 0.1, seed: 0}"
TRAIN = (
    "train: {hidden_units: [20], epochs: 20, batch_size: 32, learning_rate: 1.0e-3, optimizer: adam, seed: 0, "
    "early_stopping: {monitor: val_loss, patience: 0}}"
)
BUDGET = "{max_abs_error: 0.1, min_same_class: 1.0, max_accuracy_drop: 0.0}"
EXPORT = (
    "export: {artifacts: [onnx_float32, tflite_int8], opset: 18, representative_samples: 5, budgets: {"
    f"onnx_float32: {BUDGET}, onnx_int8: {BUDGET}, tflite_float32: {BUDGET}, tflite_float16: {BUDGET}, "
    f"tflite_dynamic_range: {BUDGET}, tflite_int8: {BUDGET.replace('0.1', '0.35')}"
    "}, microcontroller: {max_arena_bytes: 4096, max_file_bytes: 9999, operators: [SOFTMAX]}}"
)
TRACK = "track: {experiment: digits, registered_model: digits, significance: 0.05, min_recall: 0.7}"
# What is allowed.
EPOCHS = "a whole number of epochs, at least 1"
ARTIFACTS = (
    "a list of different ones of onnx_float32, onnx_int8, tflite_float32, tflite_float16, tflite_dynamic_range, "
    "tflite_int8, onnx_float32 among them (MLflow registers it)"
)
ERROR = "a difference of probabilities above 0, at most 1"
OPTIMIZERS = "adadelta, adagrad, adam, adamax, adamw, lamb, lion, muon, nadam, rmsprop, schedulefreeadamw, sgd"
PATIENCE = "a whole number of epochs; 0 never stops early"
SEED = "a whole number from 0 to 4294967295"
SHARE = "a number from 0 to below 1"
LEVEL = "a number above 0, at most 0.5"
UNITS = "a list of whole numbers of units, each at least 1"


def load(folder, text):
    """The section of the stage that `text` starts with, from a params.yaml of that text."""
    path = folder / "params.yaml"
    path.write_text(text, encoding="utf-8")
    name = text.partition(":")[0]
    return load_section(name, SECTIONS[name], path)


def explain(folder, text):
    """The message about a faulty params.yaml, from its dotted path on; it must be one line."""
    with pytest.raises(ParamsError) as caught:
        load(folder, text)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    return message.removeprefix(f"{folder / 'params.yaml'}: ")


@pytest.mark.parametrize(
    ("section", "then", "now", "message"),
    [
        (TRAIN, "epochs: 20", 'epochs: "30"', f"train.epochs: expected {EPOCHS}, got '30' (str); correct it"),
        (TRAIN, "epochs: 20", "epochs: true", f"train.epochs: expected {EPOCHS}, got True (bool); correct it"),
        (TRAIN, "epochs: 20", "epochs: 2.0", f"train.epochs: expected {EPOCHS}, got 2.0 (float); correct it"),
        (TRAIN, "epochs: 20", "epochs: null", f"train.epochs: expected {EPOCHS}, got None (NoneType); correct it"),
        (TRAIN, "epochs: 20", "epochs: 0", f"train.epochs: expected {EPOCHS}, got 0 (int); correct it"),
        (TRAIN, "epochs: 20, ", "", f"train.epochs: expected {EPOCHS}, got no such key; add it"),
        (TRAIN, "[20]", "20", f"train.hidden_units: expected {UNITS}, got 20 (int); correct it"),
        (TRAIN, "[20]", "[20, many]", f"train.hidden_units.1: expected {UNITS}, got 'many' (str); correct it"),
        (TRAIN, "[20]", "[0]", f"train.hidden_units.0: expected {UNITS}, got 0 (int); correct it"),
        (TRAIN, "1.0e-3", "true", "train.learning_rate: expected a number above 0, got True (bool); correct it"),
        (TRAIN, "1.0e-3", ".inf", "train.learning_rate: expected a number above 0, got inf (float); correct it"),
        (TRAIN, "adam", "adm", f"train.optimizer: expected one of {OPTIMIZERS}, got 'adm' (str); correct it"),
        (TRAIN, "adam", "Adam", f"train.optimizer: expected one of {OPTIMIZERS}, got 'Adam' (str); correct it"),
        (
            TRAIN,
            "patience: 0",
            "patience: -1",
            f"train.early_stopping.patience: expected {PATIENCE}, got -1 (int); correct it",
        ),
        (
            TRAIN,
            "patience: 0",
            "patience: null",
            f"train.early_stopping.patience: expected {PATIENCE}, got None (NoneType); correct it",
        ),
        (
            TRAIN,
            "val_loss",
            "loss",
            "train.early_stopping.monitor: expected one of val_loss, val_accuracy, got 'loss' (str); correct it",
        ),
        (
            TRAIN,
            "{monitor: val_loss, patience: 0}",
            "null",
            "train.early_stopping: expected the keys monitor and patience, got None (NoneType); correct it",
        ),
        (TRAIN, "seed: 0", "seed: 4294967296", f"train.seed: expected {SEED}, got 4294967296 (int); correct it"),
        (NORMALIZE, "0.1", "1.5", f"normalize.validation_fraction: expected {SHARE}, got 1.5 (float); correct it"),
        (NORMALIZE, "0.1", ".nan", f"normalize.validation_fraction: expected {SHARE}, got nan (float); correct it"),
        (NORMALIZE, "0.1", "-.inf", f"normalize.validation_fraction: expected {SHARE}, got -inf (float); correct it"),
        (TRACK, "0.05", "0", f"track.significance: expected {LEVEL}, got 0 (int); correct it"),
        (TRACK, "0.05", "0.51", f"track.significance: expected {LEVEL}, got 0.51 (float); correct it"),
        (TRACK, "0.7", "70", "track.min_recall: expected a number from 0 to 1, got 70 (int); correct it"),
        (
            *(INGEST, "digits", "mist"),
            "ingest.dataset: expected one of digits, mnist, folder, got 'mist' (str); correct it",
        ),
        (
            *(EXPORT, "0.35", "2"),
            f"export.budgets.tflite_int8.max_abs_error: expected {ERROR}, got 2 (int); correct it",
        ),
        (
            *(EXPORT, "max_abs_error: 0.35, ", ""),
            f"export.budgets.tflite_int8.max_abs_error: expected {ERROR}, got no such key; add it",
        ),
        (
            *(EXPORT, "max_abs_error: 0.35", "max_abs_eror: 0.35"),
            (
                "export.budgets.tflite_int8.max_abs_eror: expected one of the keys max_abs_error, max_accuracy_drop, "
                "min_same_class, got 'max_abs_eror'; did you mean max_abs_error?"
            ),
        ),
        (
            EXPORT,
            "[SOFTMAX]",
            "SOFTMAX",
            (
                "export.microcontroller.operators: expected a list of TFLite's operator names, "
                "such as FULLY_CONNECTED, got 'SOFTMAX' (str); correct it"
            ),
        ),
        (
            *(EXPORT, "32, tflite_int8]", "32, tflite_int4]"),
            f"export.artifacts.1: expected {ARTIFACTS}, got 'tflite_int4' (str); correct it",
        ),
        (
            *(EXPORT, "32, tflite_int8]", "32, onnx_float32]"),
            f"export.artifacts: expected {ARTIFACTS}, got ['onnx_float32', 'onnx_float32'] (list); correct it",
        ),
        (
            *(EXPORT, "[onnx_float32, ", "["),
            f"export.artifacts: expected {ARTIFACTS}, got ['tflite_int8'] (list); correct it",
        ),
    ],
)
def test_faulty_value_is_named_with_its_path_and_what_is_allowed(tmp_path, section, then, now, message):
    """A wrong type, a value out of range and a missing or unknown key are refused, at any depth."""
    assert section.count(then) == 1

    assert explain(tmp_path, section.replace(then, now)) == message


def test_misspelt_key_is_one_problem_with_a_suggestion(tmp_path):
    """A misspelt key is told once, not once more as the missing key that it was meant to be."""
    assert explain(tmp_path, TRAIN.replace("epochs: 20", "epoch: 3")) == (
        "train.epoch: expected one of the keys batch_size, early_stopping, epochs, hidden_units, learning_rate, "
        "optimizer, seed, got 'epoch'; did you mean epochs?"
    )


@pytest.mark.parametrize(
    ("key", "path", "got"),
    [("zzz", "zzz", "'zzz'"), ("1", "1", "1"), ("null", "None", "'None'")],
)
def test_key_that_resembles_none_is_to_be_removed(tmp_path, key, path, got):
    """An unknown key is refused beside all others, too, be it a word or another YAML value."""
    assert explain(tmp_path, INGEST.replace("seed: 0", f"seed: 0, {key}: 1")) == (
        f"ingest.{path}: expected one of the keys dataset, image_size, path, seed, test_fraction, got {got}; remove it"
    )


def test_several_problems_are_told_in_one_line(tmp_path):
    """All errors of a section are named at once, misspelt keys first."""
    text = TRAIN.replace("epochs: 20", "epoch: 3").replace("seed: 0", "seed: -1").replace("batch_size: 32, ", "")
    places = re.findall(r"train\.\w+(?=: expected)", explain(tmp_path, text))

    assert places == ["train.epoch", "train.seed", "train.epochs", "train.batch_size"]


@pytest.mark.parametrize("value", ["1e-3", "1.0e-3", "0.001"])
def test_number_is_read_by_the_rules_of_yaml_1_2(tmp_path, value):
    """`1e-3` is a number, as it is for DVC, though YAML 1.1 takes it for text."""
    assert load(tmp_path, TRAIN.replace("1.0e-3", value)).learning_rate == 0.001


def test_whole_number_passes_for_a_number(tmp_path):
    """A person writes 1 for 1.0."""
    assert load(tmp_path, TRAIN.replace("1.0e-3", "1")).learning_rate == 1.0


def test_section_is_frozen(tmp_path):
    """Nothing can change a parameter once it is read."""
    params = load(tmp_path, TRAIN)

    with pytest.raises(ValidationError, match="frozen"):
        params.epochs = 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train: 3", "train: expected a mapping of keys to values, got 3 (int); correct it"),
        ("train:", "train: expected a mapping of keys to values, got None (NoneType); correct it"),
        ("train: [1, 2]", "train: expected a mapping of keys to values, got [1, 2] (list); correct it"),
    ],
)
def test_section_that_is_no_mapping_is_refused(tmp_path, text, message):
    """A section holds keys and values."""
    assert explain(tmp_path, text) == message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("trian: {}", "train: expected a section, got none; did you mean trian?"),
        ("ingest: {}", "train: expected a section, got none; add it"),
        ("{}", "train: expected a section, got none; add it"),
        ("1: {}", "train: expected a section, got none; add it"),
    ],
)
def test_missing_section_is_named(tmp_path, text, message):
    """A params.yaml without the stage's section is refused, with the section that may have been meant."""
    path = tmp_path / "params.yaml"
    path.write_text(text, encoding="utf-8")

    with pytest.raises(ParamsError) as caught:
        load_section("train", TrainParams, path)
    assert str(caught.value) == f"{path}: {message}"


@pytest.mark.parametrize(
    ("content", "reported"),
    [
        (b"- 1\n", ["expected one section per stage, got [1] (list)"]),
        (b"", ["expected one section per stage, got None (NoneType)"]),
        (b"train: {epochs: 1, epochs: 2}\n", ["expected valid YAML", 'duplicate key "epochs"', "line 1"]),
        (b"train: {epochs: 1\n", ["expected valid YAML", "line 2"]),
        (b"train: \xff\n", ["expected valid YAML", "position 7"]),
        (b"train: 2020-13-01\n", ["expected valid YAML", "month"]),
    ],
)
def test_file_that_is_no_mapping_is_refused_in_one_line(tmp_path, content, reported):
    """Something other than a YAML mapping, or a key given twice, is refused with the place."""
    path = tmp_path / "params.yaml"
    path.write_bytes(content)
    with pytest.raises(ParamsError) as caught:
        load_params(path)
    message = str(caught.value)

    assert message.startswith(f"{path}: ")
    assert [part for part in reported if part not in message] == []
    assert len(message.splitlines()) == 1


def test_missing_file_says_where_to_run(tmp_path):
    """Outside the project there is no params.yaml."""
    path = tmp_path / "params.yaml"

    with pytest.raises(ParamsError) as caught:
        load_params(path)
    assert str(caught.value) == f"{path}: expected a file, got none; run from the project's root folder"


@pytest.mark.heavy
@pytest.mark.parametrize("stage", STAGES)
def test_own_params_pass(stage):
    """The project's own params.yaml is right for every stage."""
    section = getattr(import_module(f"stages.{stage}"), f"{stage.capitalize()}Params")

    assert load_section(stage, section, ROOT / "params.yaml").model_dump() == load_params(ROOT / "params.yaml")[stage]


@pytest.mark.heavy
@pytest.mark.parametrize("stage", STAGES)
def test_stage_with_a_faulty_section_ends_in_one_line(tmp_path, stage):
    """A stage that finds an error in params.yaml ends with 1 and one line, and not with a traceback."""
    params = load_params(ROOT / "params.yaml")
    params[stage]["surplus"] = 1
    (tmp_path / "params.yaml").write_text(json.dumps(params), encoding="utf-8")
    done = run_python("-m", f"stages.{stage}", cwd=tmp_path)

    assert done.returncode == 1
    assert re.fullmatch(
        rf"{stage}: params\.yaml: {stage}\.surplus: expected one of the keys .+, got 'surplus'; remove it\n",
        done.stderr,
    )
    assert [path.name for path in tmp_path.iterdir()] == ["params.yaml"]
