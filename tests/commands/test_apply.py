"""`pipeline apply` writes a recipe's settings into params.yaml, and nothing else."""

import shutil

import pytest
from click.testing import CliRunner
from imports import ROOT

from stages.commands import sweep
from stages.commands.main import main
from stages.lib.core.params import PARAMS_PATH, flatten_params, load_mapping, load_params, take_section

RECIPES = sorted((ROOT / "docs/recipes").glob("*.yaml"))


@pytest.fixture(autouse=True)
def project(tmp_path, monkeypatch):
    """A folder with this project's params, the current one."""
    for name in ("dvc.yaml", "params.yaml"):
        shutil.copy(ROOT / name, tmp_path)
    monkeypatch.chdir(tmp_path)


def apply(recipe):
    """What applying a recipe comes to; `recipe` is a path or the text of one."""
    path = recipe
    if isinstance(recipe, str):
        path = PARAMS_PATH.with_name("recipe.yaml")
        path.write_text(recipe, encoding="utf-8")
    return CliRunner().invoke(main, ["apply", str(path)])


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_recipe_is_taken_by_every_stage(recipe):
    """Each setting is where it belongs, and is allowed."""
    result = apply(recipe)

    assert result.exit_code == 0, result.output
    params, settings = load_params(), flatten_params(load_mapping(recipe, "sections"))
    assert {key: flatten_params(params)[key] for key in settings} == settings
    for name, section in sweep.load_sections().items():
        take_section(params, name, section)


def test_other_settings_and_comments_stay():
    """Only the lines of settings that differ are others."""
    before = PARAMS_PATH.read_text(encoding="utf-8")
    result = apply("train:\n  epochs: 7\n  seed: 0\n")

    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[0] == "train.epochs: 20 → 7"
    assert result.stdout.splitlines()[1].startswith("1 of 2 settings changed")
    after = PARAMS_PATH.read_text(encoding="utf-8")
    ((was, became),) = [
        lines for lines in zip(before.splitlines(), after.splitlines(), strict=True) if lines[0] != lines[1]
    ]
    assert became.split() == was.replace("20", "7", 1).split()


def test_unknown_setting_is_refused_with_nothing_written():
    """A misspelt key is named with the likely one; those before it are not set either."""
    before = PARAMS_PATH.read_text(encoding="utf-8")
    result = apply("train:\n  epochs: 7\n  epoch: 8\n")

    assert result.exit_code == 1
    assert result.stderr == (
        "apply: recipe.yaml: train.epoch: expected a key of params.yaml, got another; did you mean train.epochs?\n"
    )
    assert PARAMS_PATH.read_text(encoding="utf-8") == before


def test_missing_recipe_is_told_in_one_line():
    """A path that leads nowhere ends with 1."""
    result = apply(PARAMS_PATH.with_name("none.yaml"))

    assert result.exit_code == 1
    assert result.stderr.startswith("apply: none.yaml: no such file")
