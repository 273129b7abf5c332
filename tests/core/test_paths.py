"""Relative paths are relative to the project's root, wherever DVC runs a stage."""

from pathlib import Path

from stages.lib.core.paths import find_root, resolve


def test_root_is_the_folder_that_dvc_names(tmp_path, monkeypatch):
    """In an experiment that runs in a copy elsewhere, DVC_ROOT is the project's own folder."""
    monkeypatch.setenv("DVC_ROOT", str(tmp_path / "project"))
    monkeypatch.chdir(tmp_path)

    assert find_root() == tmp_path / "project"
    assert resolve("images") == tmp_path / "project" / "images"


def test_root_is_the_working_folder_without_dvc(tmp_path, monkeypatch):
    """A stage that a person starts runs in the project's root."""
    monkeypatch.delenv("DVC_ROOT", raising=False)
    monkeypatch.chdir(tmp_path)

    assert find_root() == tmp_path
    assert resolve("images") == tmp_path / "images"


def test_absolute_path_stays(tmp_path, monkeypatch):
    """An absolute path needs no root."""
    monkeypatch.setenv("DVC_ROOT", "elsewhere")

    assert resolve(str(tmp_path)) == tmp_path


def test_tilde_is_the_home_folder(tmp_path, monkeypatch):
    """`~` is what a shell makes of it, though no shell has seen it."""
    monkeypatch.setenv("HOME", str(tmp_path))

    assert resolve("~/images") == Path(tmp_path) / "images"
