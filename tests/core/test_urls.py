"""Addresses as they may be shown."""

import pytest

from stages.lib.core.urls import hide_password


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://ann:secret@host/path", "https://ann:***@host/path"),
        ("postgresql://ann:a%40b@host:5432/mlflow", "postgresql://ann:***@host:5432/mlflow"),
        ("https://ann@host/path", "https://ann@host/path"),
        ("sqlite:///mlflow.db", "sqlite:///mlflow.db"),
        ("../shared/mnist", "../shared/mnist"),
        ("http://[1", "http://[1"),
    ],
)
def test_password_is_hidden_and_nothing_else(url, shown):
    """A message may name an address, never the password in it."""
    assert hide_password(url) == shown
