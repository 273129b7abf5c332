"""params.yaml is read strictly: an error is told in one line with its dotted path, its value and what is allowed."""

import json
import re
from difflib import ndiff
from importlib import import_module

import pytest
from dvc.utils.hydra import apply_overrides
from imports import ROOT, STAGES
from pydantic import ValidationError
from samples import run_python

from stages.export import ExportParams
from stages.ingest import IngestParams
from stages.lib.core.errors import ParamsError
from stages.lib.core.params import flatten_params, load_params, load_section
from stages.normalize import NormalizeParams
from stages.track import TrackParams
from stages.train import TrainParams
from stages.validate import ValidateParams

SECTIONS = {
    "export": ExportParams,
    "ingest": IngestParams,
    "normalize": NormalizeParams,
    "track": TrackParams,
    "train": TrainParams,
    "validate": ValidateParams,
}

INGEST = "ingest: {dataset: digits, path: own, image_size: [28, 28], channels: 1, test_fraction: 0.2, seed: 0}"
NORMALIZE = "normalize: {method: scale, validation_fraction: 0.1, seed: 0}"
TRAIN = (
    "train: {conv_blocks: [], hidden_units: [20], dropout: 0.0, epochs: 20, batch_size: 32, learning_rate: 1.0e-3, "
    "learning_rate_schedule: {decay: constant, warmup_steps: 0}, optimizer: adam, weight_decay: null, "
    "class_weights: none, augmentation: {shift: 0, rotation: 0.0, scale: 0.0, horizontal_flip: false, brightness: 0.0, "
    "contrast: 0.0}, seed: 0, early_stopping: {monitor: val_loss, patience: 0}}"
)
BUDGET = "{max_abs_error: 0.1, min_same_class: 1.0, max_accuracy_drop: 0.0}"
EXPORT = (
    "export: {artifacts: [onnx_float32, tflite_int8], required: [onnx_float32], opset: 18, representative_samples: 5, "
    "budgets: {"
    f"onnx_float32: {BUDGET}, onnx_int8: {BUDGET}, tflite_float32: {BUDGET}, tflite_float16: {BUDGET}, "
    f"tflite_dynamic_range: {BUDGET}, tflite_int8: {BUDGET.replace('0.1', '0.35')}"
    "}, board: null, microcontroller: {max_arena_bytes: 4096, max_file_bytes: 9999, operators: [SOFTMAX]}}"
)
TRACK = (
    "track: {experiment: digits, registered_model: digits, significance: 0.05, max_accuracy_drop: 0.02, "
    "min_recall: 0.7}"
)
VALIDATE = (
    "validate: {fail_on: [min_contrast], min_images_per_class: 1, max_class_ratio: 10.0, min_contrast: 32, "
    "min_foreground_fraction: 0.01, max_foreground_fraction: 0.9, max_robust_z: 8.0, max_mixed_polarity_fraction: 0.0, "
    "max_mixed_resolution_fraction: 0.0, max_duplicate_fraction: 0.0, max_leaked_fraction: 0.0, "
    "max_near_leaked_fraction: 0.0, max_label_conflict_fraction: 0.0, max_class_drift: 0.1, max_grey_level_drift: 0.1}"
)
# What is allowed.
EPOCHS = "a whole number of epochs, at least 1"
DECAY = "a number from 0 to 1, or null, the optimizer's own"
TRAIN_KEYS = (
    "augmentation, batch_size, class_weights, conv_blocks, dropout, early_stopping, epochs, hidden_units, "
    "learning_rate, learning_rate_schedule, optimizer, seed, weight_decay"
)
DEGREES = "a number of degrees from 0 to 180"
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
OPERATORS = "a list of TFLite's operator names, such as FULLY_CONNECTED"
UNITS = "a list of whole numbers of units, each at least 1"


def load(folder, text):
    """The section of the stage that `text` starts with, from a params.yaml of that text."""
    path = folder / "params.yaml"
    path.write_text(text, encoding="utf-8")
    name = text.partition(":")[0]
    return load_section(name, SECTIONS[name], path)


def refuse(folder, text):
    """The error about a faulty params.yaml, whose line is one."""
    with pytest.raises(ParamsError) as caught:
        load(folder, text)
    assert len(str(caught.value).splitlines()) == 1
    return caught.value


@pytest.mark.parametrize(
    ("section", "change", "key", "expected", "got"),
    [
        (TRAIN, ("epochs: 20", "epochs: abc"), "train.epochs", EPOCHS, "'abc' (str)"),
        (TRAIN, ("epochs: 20", "epochs: true"), "train.epochs", EPOCHS, "True (bool)"),
        (TRAIN, ("epochs: 20", "epochs: 2.0"), "train.epochs", EPOCHS, "2.0 (float)"),
        (TRAIN, ("epochs: 20", "epochs: null"), "train.epochs", EPOCHS, "None (NoneType)"),
        (TRAIN, ("epochs: 20", "epochs: 0"), "train.epochs", EPOCHS, "0 (int)"),
        (TRAIN, ("[20]", "20"), "train.hidden_units", UNITS, "20 (int)"),
        (TRAIN, ("[20]", "[20, many]"), "train.hidden_units.1", UNITS, "'many' (str)"),
        (TRAIN, ("[20]", "[0]"), "train.hidden_units.0", UNITS, "0 (int)"),
        (TRAIN, ("1.0e-3", "true"), "train.learning_rate", "a number above 0", "True (bool)"),
        (TRAIN, ("1.0e-3", ".inf"), "train.learning_rate", "a number above 0", "inf (float)"),
        (TRAIN, ("adam", "zzz"), "train.optimizer", f"one of {OPTIMIZERS}", "'zzz' (str)"),
        (TRAIN, ("adam", "[adam]"), "train.optimizer", f"one of {OPTIMIZERS}", "['adam'] (list)"),
        (TRAIN, ("patience: 0", "patience: -1"), "train.early_stopping.patience", PATIENCE, "-1 (int)"),
        (TRAIN, ("patience: 0", "patience: null"), "train.early_stopping.patience", PATIENCE, "None (NoneType)"),
        (
            TRAIN,
            ("{monitor: val_loss, patience: 0}", "null"),
            "train.early_stopping",
            "the keys monitor and patience",
            "None (NoneType)",
        ),
        (TRAIN, ("seed: 0", "seed: 4294967296"), "train.seed", SEED, "4294967296 (int)"),
        (
            TRAIN,
            ("constant", "step"),
            "train.learning_rate_schedule.decay",
            "one of constant, cosine",
            "'step' (str)",
        ),
        (TRAIN, ("none", "uneven"), "train.class_weights", "one of none, balanced", "'uneven' (str)"),
        (TRAIN, ("decay: null", "decay: -1.0"), "train.weight_decay", DECAY, "-1.0 (float)"),
        (TRAIN, ("rotation: 0.0", "rotation: 181.0"), "train.augmentation.rotation", DEGREES, "181.0 (float)"),
        (NORMALIZE, ("0.1", "1.5"), "normalize.validation_fraction", SHARE, "1.5 (float)"),
        (NORMALIZE, ("0.1", ".nan"), "normalize.validation_fraction", SHARE, "nan (float)"),
        (NORMALIZE, ("0.1", "-.inf"), "normalize.validation_fraction", SHARE, "-inf (float)"),
        (TRACK, ("0.05", "0"), "track.significance", LEVEL, "0 (int)"),
        (TRACK, ("0.05", "0.51"), "track.significance", LEVEL, "0.51 (float)"),
        (TRACK, ("0.7", "70"), "track.min_recall", "a number from 0 to 1", "70 (int)"),
        (EXPORT, ("0.35", "2"), "export.budgets.tflite_int8.max_abs_error", ERROR, "2 (int)"),
        (EXPORT, ("[SOFTMAX]", "SOFTMAX"), "export.microcontroller.operators", OPERATORS, "'SOFTMAX' (str)"),
        (
            EXPORT,
            ("32, tflite_int8]", "32, onnx_float32]"),
            "export.artifacts",
            ARTIFACTS,
            "['onnx_float32', 'onnx_float32'] (list)",
        ),
        (EXPORT, ("[onnx_float32, ", "["), "export.artifacts", ARTIFACTS, "['tflite_int8'] (list)"),
        (INGEST, ("channels: 1", "channels: 2"), "ingest.channels", "1, grey, or 3, colour", "2 (int)"),
        (INGEST, ("channels: 1", "channels: true"), "ingest.channels", "1, grey, or 3, colour", "True (bool)"),
        ("train: 3", ("3", "3"), "train", "a mapping of keys to values", "3 (int)"),
        ("train:", ("", ""), "train", "a mapping of keys to values", "None (NoneType)"),
        ("train: [1, 2]", ("1", "1"), "train", "a mapping of keys to values", "[1, 2] (list)"),
    ],
)
def test_faulty_value_is_named_with_its_path_and_what_is_allowed(tmp_path, section, change, key, expected, got):
    """A wrong type, a value out of range and a section that is no mapping are refused, at any depth."""
    error = refuse(tmp_path, section.replace(*change, 1))

    assert (error.where, error.expected, error.got) == (f"{tmp_path / 'params.yaml'}: {key}", expected, got)
    assert error.hint == "change this value"


@pytest.mark.parametrize(
    ("section", "then", "now", "hint"),
    [
        (TRAIN, "epochs: 20", 'epochs: "30"', "remove the quotes"),
        (TRAIN, "1.0e-3", '"1.0e-3"', "remove the quotes"),
        (TRAIN, "adam", "adm", "did you mean adam?"),
        (TRAIN, "adam", "Adam", "did you mean adam?"),
        (TRAIN, "val_loss", "loss", "did you mean val_loss?"),
        (INGEST, "digits", "digit", "did you mean digits?"),
        (EXPORT, "32, tflite_int8]", "32, tflite_int4]", "did you mean tflite_int8?"),
        (VALIDATE, "[min_contrast]", "[max_robust]", "did you mean max_robust_z?"),
    ],
)
def test_value_that_is_nearly_right_has_a_hint_of_its_own(tmp_path, section, then, now, hint):
    """A number in quotes and a name that resembles one that is allowed are told how to become valid."""
    assert section.count(then) == 1

    assert refuse(tmp_path, section.replace(then, now)).hint == hint


@pytest.mark.parametrize(
    ("section", "then", "key", "allowed"),
    [
        (TRAIN, "epochs: 20, ", "train.epochs", EPOCHS),
        (EXPORT, "max_abs_error: 0.35, ", "export.budgets.tflite_int8.max_abs_error", ERROR),
    ],
)
def test_missing_key_is_named_with_what_to_add(tmp_path, section, then, key, allowed):
    """A key that is not there is refused, at any depth, with what its value may be."""
    assert section.count(then) == 1

    assert refuse(tmp_path, section.replace(then, "")).args == (
        f"{tmp_path / 'params.yaml'}: {key}",
        "no such key",
        f"add it: {allowed}",
    )


@pytest.mark.parametrize(
    ("section", "change", "where", "allowed", "hint"),
    [
        (
            TRAIN,
            ("epochs: 20", "epoch: 3"),
            "train.epoch",
            TRAIN_KEYS,
            "did you mean epochs?",
        ),
        (
            EXPORT,
            ("max_abs_error: 0.35", "max_abs_eror: 0.35"),
            "export.budgets.tflite_int8.max_abs_eror",
            "max_abs_error, max_accuracy_drop, min_same_class",
            "did you mean max_abs_error?",
        ),
    ],
)
def test_misspelt_key_is_one_problem_with_a_suggestion(tmp_path, section, change, where, allowed, hint):
    """A misspelt key is told once, not once more as the missing key that it was meant to be."""
    error = refuse(tmp_path, section.replace(*change))

    assert (error.where, error.hint) == (f"{tmp_path / 'params.yaml'}: {where}", hint)
    assert (error.expected, error.got) == (f"one of the keys {allowed}", repr(where.rpartition(".")[2]))


@pytest.mark.parametrize(
    ("key", "path", "got"),
    [("zzz", "zzz", "'zzz'"), ("1", "1", "1"), ("null", "None", "'None'")],
)
def test_key_that_resembles_none_is_to_be_removed(tmp_path, key, path, got):
    """An unknown key is refused beside all others, too, be it a word or another YAML value."""
    error = refuse(tmp_path, INGEST.replace("seed: 0", f"seed: 0, {key}: 1"))

    assert (error.where, error.got) == (f"{tmp_path / 'params.yaml'}: ingest.{path}", got)
    assert error.expected == "one of the keys channels, dataset, image_size, path, seed, test_fraction"
    assert error.hint == "remove it"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("stops", "fail_on"),
        ("min_ink_fraction", "min_foreground_fraction"),
        ("max_ink_fraction", "max_foreground_fraction"),
        ("max_deviation", "max_robust_z"),
        ("max_conflicting_fraction", "max_label_conflict_fraction"),
    ],
)
def test_key_that_was_renamed_is_told_by_its_new_name(tmp_path, old, new):
    """The old name is the only thing to complain about: that the new one is missing follows from it."""
    assert VALIDATE.count(f"{new}: ") == 1

    assert refuse(tmp_path, VALIDATE.replace(f"{new}: ", f"{old}: ")).args == (
        f"{tmp_path / 'params.yaml'}: validate.{old}",
        "an old name",
        f"renamed to {new}",
    )


def test_keys_that_were_renamed_hide_no_other_error(tmp_path):
    """Each old name is told once, and beside them what else is missing, misspelt or out of range."""
    text = VALIDATE.replace("max_robust_z: ", "max_deviation: ").replace("fail_on: ", "stops: ")
    text = text.replace("min_contrast: 32", "min_contrast: 0").replace("max_class_drift: 0.1, ", "")
    causes = refuse(tmp_path, text).causes

    assert [(cause.where.rpartition(".")[2], cause.hint) for cause in causes] == [
        ("stops", "renamed to fail_on"),
        ("max_deviation", "renamed to max_robust_z"),
        ("min_contrast", "change this value"),
        ("max_class_drift", "add it: a share of images from 0 to 1"),
    ]


@pytest.mark.parametrize(
    ("old", "new"),
    [("min_ink_fraction", "min_foreground_fraction"), ("max_conflicting_fraction", "max_label_conflict_fraction")],
)
def test_rule_that_was_renamed_is_told_by_its_new_name(tmp_path, old, new):
    """`fail_on` lists thresholds by their names, which are told to be old as the thresholds themselves are."""
    error = refuse(tmp_path, VALIDATE.replace("[min_contrast]", f"[min_contrast, {old}]"))

    assert (error.where, error.got) == (f"{tmp_path / 'params.yaml'}: validate.fail_on.1", f"'{old}' (str)")
    assert error.hint == f"renamed to {new}"


def test_several_problems_are_told_in_one_line(tmp_path):
    """All errors of a section are named at once, misspelt keys first."""
    text = TRAIN.replace("epochs: 20", "epoch: 3").replace("seed: 0", "seed: -1").replace("batch_size: 32, ", "")
    causes = refuse(tmp_path, text).causes

    assert [cause.where.rpartition(": ")[2] for cause in causes] == [
        "train.epoch",
        "train.seed",
        "train.epochs",
        "train.batch_size",
    ]


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
    ("text", "rename"),
    [("trian: {}", "rename trian to train, or "), ("ingest: {}", ""), ("{}", ""), ("1: {}", "")],
)
def test_missing_section_is_named(tmp_path, text, rename):
    """A params.yaml without the stage's section is refused, with the section that may have been meant."""
    path = tmp_path / "params.yaml"
    path.write_text(text, encoding="utf-8")

    with pytest.raises(ParamsError) as caught:
        load_section("train", TrainParams, path)
    assert caught.value.args == (
        f"{path}: train",
        "no such section",
        f"{rename}copy it from `git show HEAD:./params.yaml`",
    )


@pytest.mark.parametrize("content", [b"- 1\n", b""])
def test_file_that_is_no_mapping_is_refused(tmp_path, content):
    """YAML of another kind is refused with what it should be."""
    path = tmp_path / "params.yaml"
    path.write_bytes(content)
    with pytest.raises(ParamsError) as caught:
        load_params(path)

    assert (caught.value.where, caught.value.expected) == (str(path), "one section per stage")
    assert caught.value.got == ("[1] (list)" if content else "None (NoneType)")
    assert caught.value.hint == "write `key: value` lines"


@pytest.mark.parametrize(
    ("content", "reported"),
    [
        (b"train: {epochs: 1, epochs: 2}\n", ['duplicate key "epochs"', "line 1"]),
        (b"train: {epochs: 1\n", ["line 2"]),
        (b"train: \xff\n", ["position 7"]),
        (b"train: 2020-13-01\n", ["month"]),
    ],
)
def test_file_that_is_no_yaml_is_refused_in_one_line(tmp_path, content, reported):
    """Something other than YAML, or a key given twice, is refused with the place."""
    path = tmp_path / "params.yaml"
    path.write_bytes(content)
    with pytest.raises(ParamsError) as caught:
        load_params(path)
    hint = "save it as UTF-8" if b"\xff" in content else f"correct it; `git diff {path}` shows what was changed"

    assert (caught.value.where, caught.value.hint) == (str(path), hint)
    assert caught.value.problem.startswith("not valid YAML: ")
    assert [part for part in reported if part not in caught.value.problem] == []
    assert len(str(caught.value).splitlines()) == 1


def test_missing_file_says_where_to_run(tmp_path):
    """Outside the project there is no params.yaml."""
    path = tmp_path / "params.yaml"

    with pytest.raises(ParamsError) as caught:
        load_params(path)
    hint = f"run in the project's root folder, or `git checkout {path.name}` if it was deleted"
    assert caught.value.args == (str(path), "no such file", hint)


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


COMMITTED = flatten_params(load_params(ROOT / "params.yaml"))


@pytest.mark.parametrize("key", COMMITTED)
def test_experiment_changes_its_key_alone(tmp_path, key):
    """`dvc exp run -S` writes params.yaml anew; all lines but the key's own stay as they are committed."""
    value = COMMITTED[key]
    other = "[1, 2, 3]" if isinstance(value, list) else "other" if isinstance(value, str | None) else "0.123"
    text = (ROOT / "params.yaml").read_text(encoding="utf-8")
    path = tmp_path / "params.yaml"
    path.write_text(text, encoding="utf-8")
    apply_overrides(path, [f"{key}={other}"])
    edited = path.read_text(encoding="utf-8")
    changes = [line for line in ndiff(text.splitlines(), edited.splitlines()) if line[0] in "+-"]
    removed = [line.split()[1].rstrip(":") for line in changes if line[0] == "-"]
    read = flatten_params(load_params(path))

    assert {name for name, was in COMMITTED.items() if read[name] != was} == {key}
    assert removed == (["-"] * len(value) if value and isinstance(value, list) else [key.split(".")[-1]])
    assert re.findall(r"#.*", edited) == re.findall(r"#.*", text)
