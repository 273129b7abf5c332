"""Fixtures that several test modules share."""

import shutil

import mlflow
import pytest
from mlflow import MlflowClient
from stores import enter_root


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory):
    """A fresh SQLite store: creating its tables takes seconds, copying the file does not."""
    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    MlflowClient(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def root(tmp_path, monkeypatch, empty_store):
    """A project's root with an empty store of its own; the current folder."""
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    yield enter_root(tmp_path, monkeypatch)
    mlflow.set_tracking_uri(None)
