"""The commands run in any folder of a project; outside of one each says where to go."""

import shlex

import pytest
from click.testing import CliRunner
from imports import ROOT

from stages.commands.main import main
from stages.lib.core.files import read_json

# Every command that works on the project; `predict` needs a model alone.
COMMANDS = {
    "accept": ["accept"],
    "check": ["check"],
    "promote": ["promote"],
    "report": ["report"],
    "rollback": ["rollback"],
    "sweep": ["sweep", "plan.yaml"],
    "verify": ["verify", "--quick"],
    "whatis": ["whatis", "plan.yaml"],
}


def run(*arguments):
    return CliRunner().invoke(main, [*map(str, arguments)])


@pytest.mark.parametrize("arguments", COMMANDS.values(), ids=COMMANDS)
def test_outside_of_a_project_one_line_says_where_to_go(tmp_path, monkeypatch, arguments):
    """In a folder of no project a command ends with one line that names the project whose code it is."""
    (tmp_path / "plan.yaml").touch()
    monkeypatch.chdir(tmp_path)
    result = run(*arguments)

    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == (
        f"{arguments[0]}: {tmp_path}: it is in no project: there is no dvc.yaml here or above; "
        f"run `cd {shlex.quote(str(ROOT))}` first\n"
    )


@pytest.mark.parametrize("arguments", [["check"], ["report"], ["rollback"], ["verify", "--quick"], ["whatis", "main"]])
def test_command_in_a_subfolder_gives_what_it_gives_in_the_root(reproduced, monkeypatch, arguments):
    """What a command says does not depend on the folder of the project in which it is typed."""
    results = []
    for folder in (reproduced.root, reproduced.root / "docs/how-to"):
        monkeypatch.chdir(folder)
        results.append(run(*arguments))
    in_root, in_folder = results

    assert in_root.stdout + in_root.stderr
    assert (in_folder.exit_code, in_folder.stdout) == (in_root.exit_code, in_root.stdout)
    assert in_folder.stderr == in_root.stderr


def test_accepted_data_are_written_to_the_projects_own_folder(reproduced, tmp_path, monkeypatch):
    """A command that writes, writes below the project's root."""
    project = reproduced.copy_to(tmp_path / "copy")
    monkeypatch.chdir(project.root / "docs")

    assert run("accept").exit_code == 0
    assert "digits" in read_json(project.root / "data/accepted.json")
    assert not (project.root / "docs/data").exists()


def test_typed_paths_are_those_of_the_folder_in_which_they_are_typed(reproduced, tmp_path, monkeypatch):
    """In a subfolder relative paths stay relative to it, absolute ones are what they are."""
    monkeypatch.chdir(reproduced.root / "docs")
    relative, absolute = run("check", "../../nowhere"), run("check", tmp_path / "nowhere")

    assert relative.output.startswith("stops: ../nowhere: ")
    assert absolute.output.startswith(f"stops: {tmp_path / 'nowhere'}: ")
