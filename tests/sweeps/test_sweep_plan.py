"""The file of a sweep says what is tried; what it may not say is told in one line before anything starts."""

import re
from difflib import ndiff

import pytest
from imports import ROOT
from pydantic import Field

from stages.lib.core.errors import ParamsError
from stages.lib.core.params import Section, load_params
from stages.lib.sweeps.params_editor import edit_params
from stages.lib.sweeps.plan import Range, apply_settings, describe_settings, read_plan


class Noise(Section):
    """A section in a section."""

    shift: int = Field(ge=0, description="a whole number of pixels")
    flip: bool = Field(description="true or false")


class Net(Section):
    """A section as a stage would have it."""

    units: list[int] = Field(description="a list of whole numbers")
    epochs: int = Field(ge=1, le=100, description="a whole number of epochs, 1 to 100")
    rate: float = Field(gt=0, le=1, description="a number above 0, at most 1")
    name: str = Field(description="a name")
    blocks: list[list[int]] = Field(description="a list of lists of whole numbers")
    decay: float | None = Field(ge=0, le=1, description="a number from 0 to 1, or null")
    noise: Noise = Field(description="the keys shift and flip")


NET = {"units": [20], "epochs": 20, "rate": 0.001, "name": "adam", "blocks": [], "decay": None}
BASE = {"data": {"seed": 0}, "net": {**NET, "noise": {"shift": 0, "flip": False}}}
METRICS = ["accuracy/test", "export_bytes/model_int8.tflite", "loss/validation"]
GRID = "search: grid\nmaximize: accuracy/test\n"
RANDOM = "search: random\ntrials: 50\nseed: 3\nmaximize: accuracy/test\n"


@pytest.fixture
def read(tmp_path):
    """Reads a plan from the text of its file."""

    def read(text):
        (tmp_path / "sweep.yaml").write_text(text, encoding="utf-8")
        return read_plan(tmp_path / "sweep.yaml", BASE, {"net": Net}, METRICS)

    return read


def test_grid_has_as_many_trials_as_combinations(read):
    """A value that is there twice counts once."""
    plan = read(GRID + "params: {net.units: [[], [8, 4]], net.epochs: [5, 10, 5]}")

    assert plan.choices == {"net.units": [[], [8, 4]], "net.epochs": [5, 10]}
    assert plan.trials == 4


def test_lists_of_lists_are_values(read):
    """Of a key that is a list of blocks, each of them a list; no block is one, too."""
    plan = read(GRID + "params: {net.blocks: [[], [[16], [32]], [[8, 8], [16, 16]], [[16], [32]]]}")

    assert plan.choices == {"net.blocks": [[], [[16], [32]], [[8, 8], [16, 16]]]}


def test_keys_of_a_section_in_a_section_are_swept(read):
    """By their dotted names, as lists or as ranges; each trial has the others as they are."""
    plan = read(RANDOM + "params: {net.noise.shift: {min: 0, max: 3}, net.noise.flip: [true, false]}")
    settings = {"net.noise.shift": 2, "net.noise.flip": True}

    assert plan.choices == {"net.noise.shift": Range.model_construct(min=0, max=3), "net.noise.flip": [True, False]}
    assert apply_settings(BASE, settings)["net"]["noise"] == {"shift": 2, "flip": True}
    assert apply_settings(BASE, {"net.noise.flip": True})["net"]["noise"] == {"shift": 0, "flip": True}
    assert describe_settings({"net.blocks": [[16], [32]], **settings}) == "blocks=[[16],[32]] shift=2 flip=true"


def test_key_that_may_be_null_has_a_range(read):
    """Whatever it is in params.yaml, numbers can be drawn for it."""
    plan = read(RANDOM + "params: {net.decay: {min: 1.0e-4, max: 1, log: true}}")

    assert plan.choices == {"net.decay": Range(min=1e-4, max=1.0, log=True)}


@pytest.mark.parametrize(("count", "trials"), [(2, 2), (50, 3)])
def test_search_has_no_more_trials_than_there_are(read, count, trials):
    """A search over few values ends with the last of them."""
    assert read(RANDOM.replace("50", str(count)) + "params: {net.epochs: [1, 2, 3]}").trials == trials


def test_range_is_of_the_keys_type(read):
    """A key that takes whole numbers has a range of whole numbers."""
    plan = read(RANDOM + "params: {net.epochs: {min: 2, max: 5}, net.rate: {min: 1.0e-3, max: 1, log: true}}")
    epochs, rate = plan.choices.values()

    assert [type(value) for value in (epochs.min, epochs.max, rate.min, rate.max)] == [int, int, float, float]
    assert rate == Range(min=1e-3, max=1.0, log=True)
    assert plan.trials == 50


@pytest.mark.parametrize(("epochs", "largest"), [("[5, 10]", 10), ("{min: 1, max: 7}", 7)])
def test_longest_trial_is_known(tmp_path, epochs, largest):
    """What stops trials early has to know how long one may be; it is the pipeline's where no epochs are swept."""
    (tmp_path / "sweep.yaml").write_text(RANDOM + f"params: {{train.epochs: {epochs}}}", encoding="utf-8")
    (tmp_path / "other.yaml").write_text(RANDOM + "params: {train.units: [[1]]}", encoding="utf-8")
    base = {"train": BASE["net"]}

    assert read_plan(tmp_path / "sweep.yaml", base, {"train": Net}, METRICS).max_epochs == largest
    assert read_plan(tmp_path / "other.yaml", base, {"train": Net}, METRICS).max_epochs == BASE["net"]["epochs"]


def test_goal_is_told_in_a_line(read):
    """What is wanted, with its bounds."""
    plan = read(
        "search: grid\nminimize: export_bytes/model_int8.tflite\nwhere: {accuracy/test: {min: 0.95}}\n"
        "params: {net.epochs: [1]}"
    )

    assert plan.goal.describe() == "smallest export_bytes/model_int8.tflite with accuracy/test ≥ 0.95"


def refuse(read, text):
    """Where the file is wrong, in what, and what to do: of the first error, whose line is one."""
    with pytest.raises(ParamsError) as refusal:
        read(text)
    assert "\n" not in str(refusal.value)
    first = refusal.value.causes[0]
    return first.where.partition("sweep.yaml")[2], first.problem, first.hint


EPOCHS = "expected a whole number of epochs, 1 to 100, got "
KEYS = "expected a dotted key of net in params.yaml"
LIST = "expected a list of values to try"
CHANGE = "change this value"
WRITE = "write the values to try in [ ], one at least"
CHANGE_BOTH = "change these two"


@pytest.mark.parametrize(
    ("text", "where", "problem", "hint"),
    [
        ("params: {net.epoch: [1]}", ": params.net.epoch", KEYS, "did you mean net.epochs?"),
        ("params: {data.seed: [1]}", ": params.data.seed", KEYS, "choose a key of these sections"),
        ("params: {net: {epochs: [1]}}", ": params.net", KEYS, "choose a key of these sections"),
        ("params: {net.epochs: []}", ": params.net.epochs", LIST, WRITE),
        ("params: {net.epochs: 5}", ": params.net.epochs", f"{LIST} or a range", WRITE),
        ("params: {net.name: {min: 1, max: 2}}", ": params.net.name", LIST, WRITE),
        ("params: {net.epochs: [0, 5]}", ": net.epochs", f"{EPOCHS}0 (int)", CHANGE),
        ("params: {net.epochs: [1.5]}", ": net.epochs", f"{EPOCHS}1.5 (float)", CHANGE),
        ("params: {net.units: [8]}", ": params.net.units", f"{LIST}, got one value, [8]", "write it in [ ]: [[8]]"),
        (
            *("params: {net.blocks: [[16], [32]]}", ": params.net.blocks"),
            *(f"{LIST}, got one value, [[16],[32]]", "write it in [ ]: [[[16],[32]]]"),
        ),
        ("params: {net.units: [[8], 8]}", ": net.units", "expected a list of whole numbers, got 8", CHANGE),
        ("params: {net.noise: [{shift: 1}]}", ": params.net.noise", KEYS, "did you mean net.noise.flip?"),
        ("params: {net.noise.shift: [-1]}", ": net.noise.shift", "expected a whole number of pixels, got -1", CHANGE),
        (
            *("params: {net.epochs: {min: 1, max: 5}}", ": params.net.epochs"),
            *(
                "expected a list, for this is a grid, got a range",
                "list its values, or say `search: random` or `search: tpe`",
            ),
        ),
        ("params: {}", ": params", "expected a mapping of at least one dotted name", CHANGE),
        (
            *("params: {net.epochs: [1]}\nwhere: {accuracy: {min: 0}}", ""),
            *("expected a metric of ", "did you mean accuracy/test?"),
        ),
        (
            *("params: {net.epochs: [1]}\nwhere: {accuracy/test: {least: 0}}", ": where.accuracy/test.least"),
            *("expected one of the keys max, min, got 'least'", "remove it"),
        ),
        (
            *("params: {net.epochs: [1]}\nminimize: accuracy/test", ""),
            *("it has both of minimize and maximize", "remove one of them"),
        ),
        ("params: {net.epochs: [1]}\ntrails: 5", ": trails", "expected one of the keys ", "remove it"),
    ],
)
def test_problem_of_a_grid_is_told_in_one_line(read, text, where, problem, hint):
    """Each error names where it is, what is wrong there and what to do."""
    told = refuse(read, GRID + text)

    assert told == (where, told[1], hint)
    assert told[1].startswith(problem)


@pytest.mark.parametrize(
    ("text", "where", "problem", "hint"),
    [
        (
            *("net.epochs: {min: 5, max: 2}", ": params.net.epochs"),
            *("expected min at most max, whole numbers, got min 5, max 2", CHANGE_BOTH),
        ),
        (
            *("net.rate: {min: 0, max: 1, log: true}", ": params.net.rate"),
            *("expected min at most max, above 0 with log, got min 0, max 1", CHANGE_BOTH),
        ),
        ("net.epochs: {min: 1, max: 101}", ": net.epochs", f"{EPOCHS}101 (int)", CHANGE),
        (
            *("net.epochs: {min: 1.5, max: 3}", ": params.net.epochs"),
            *("expected min at most max, whole numbers, got min 1.5, max 3", CHANGE_BOTH),
        ),
        ("net.rate: {min: 0.1}", ": params.net.rate.max", "no such key", "add it: a number"),
        ("net.rate: {min: 0.1, max: one}", ": params.net.rate.max", "expected a number, got 'one' (str)", CHANGE),
    ],
)
def test_problem_of_a_range_is_told_in_one_line(read, text, where, problem, hint):
    """A range is judged by its ends, whatever would be drawn from it."""
    assert refuse(read, RANDOM + f"params: {{{text}}}") == (where, problem, hint)


@pytest.mark.parametrize(
    ("text", "where", "problem", "hint"),
    [
        (
            *("search: grids\nparams: {net.epochs: [1]}\nmaximize: accuracy/test", ": search"),
            *("expected grid, random or tpe, got 'grids' (str)", "did you mean grid?"),
        ),
        (
            *("params: {net.epochs: [1]}\nmaximize: accuracy/test", ": search"),
            *("no such key", "add it: grid, random or tpe"),
        ),
        (
            *("search: tpe\nseed: 0\nparams: {net.epochs: [1]}\nmaximize: accuracy/test", ": trials"),
            *("no such key", "add it: a whole number of trials, at least 1"),
        ),
        (
            *(GRID + "params: {net.epochs: [1]}\nasha: {grace_period: 0, reduction_factor: 3}", ": asha.grace_period"),
            "expected a whole number of epochs that every trial gets, at least 1, got 0 (int)",
            "change this value",
        ),
        (
            *("search: grid\nparams: {net.epochs: [1]}", "", "it has neither of minimize and maximize"),
            "write `maximize: accuracy/test`, or another metric, to say which trial is the best",
        ),
        (
            *("- 1", "", "expected search, params, and minimize or maximize, got [1] (list)"),
            "write `key: value` lines",
        ),
    ],
)
def test_problem_of_the_file_is_told_in_one_line(read, text, where, problem, hint):
    """A file must say what is searched, how, and for what."""
    assert refuse(read, text) == (where, problem, hint)


def test_stopping_early_needs_a_validation_split(tmp_path):
    """Without one there is nothing by which a trial could be stopped."""
    path = tmp_path / "sweep.yaml"
    path.write_text(GRID + "params: {net.epochs: [1]}\nasha: {grace_period: 1, reduction_factor: 3}", encoding="utf-8")
    with pytest.raises(ParamsError) as problem:
        read_plan(path, BASE, {"net": Net}, METRICS[:2])

    assert problem.value.where == f"{path}: asha"
    assert "normalize.validation_fraction" in problem.value.hint


def test_same_problem_of_many_trials_is_told_once(read):
    """A value that is wrong in every trial is one error."""
    with pytest.raises(ParamsError) as problem:
        read(GRID + "params: {net.epochs: [0], net.rate: [0.1, 0.2, 0.3]}")

    assert len(problem.value.causes) == 1


def test_settings_leave_the_params_they_are_applied_to():
    """A trial's params are a copy with its settings in it."""
    params = apply_settings(BASE, {"net.units": [8], "net.rate": 0.5})

    assert params["net"] == {**BASE["net"], "units": [8], "rate": 0.5}
    assert BASE["net"]["units"] == [20]


def test_settings_are_told_in_few_letters():
    """Settings stand in a line without their sections."""
    assert describe_settings({"net.units": [8, 4], "net.rate": 0.5}) == "units=[8,4] rate=0.5"


def test_edited_params_file_keeps_comments_and_layout(tmp_path):
    """Only the values change, and what is there already stays as it was written."""
    text = (ROOT / "params.yaml").read_text(encoding="utf-8")
    path = tmp_path / "params.yaml"
    path.write_text(text, encoding="utf-8")
    edit_params({"train.learning_rate": 1e-3, "train.hidden_units": [20]}, path)
    unchanged = path.read_text(encoding="utf-8")
    settings = {
        "train.conv_blocks": [[16], [32, 32]],
        "train.hidden_units": [16, 8],
        "train.augmentation.shift": 2,
        "train.learning_rate": 1e-05,
        "export.budgets.onnx_int8.max_abs_error": 0.5,
    }
    edit_params(settings, path)
    edited = path.read_text(encoding="utf-8")
    lines = [line.strip() for line in ndiff(text.splitlines(), edited.splitlines()) if line[0] == "+"]

    assert unchanged == text
    assert load_params(path) == apply_settings(load_params(ROOT / "params.yaml"), settings)
    assert re.findall(r"#.*", edited) == re.findall(r"#.*", text)
    assert [" ".join(line.split()[1:3]) for line in lines] == [
        "conv_blocks:",
        "- -",
        "- -",
        "- 32",
        "- 16",
        "- 8",
        "learning_rate: 1e-05",
        "shift: 2",
        "max_abs_error: 0.5",
    ]
