"""The manifest tells the machine and the programs of a run."""

import os
import platform
from importlib.metadata import version

from stages.lib.tracking.manifest import describe_environment

TIMES = {"train": {"imports": 5.0, "work": 2.0}}


def test_manifest_has_what_results_might_depend_on():
    """Python, the packages that pyproject.toml names, the processor, the cores, and the stages' seconds."""
    manifest = describe_environment(TIMES)

    assert manifest["python"] == platform.python_version()
    assert manifest["packages"]["tensorflow"] == version("tensorflow")
    assert manifest["packages"]["onnxruntime"] == version("onnxruntime")
    assert manifest["cores"] == os.cpu_count()
    assert manifest["processor"]
    assert manifest["seconds"] == TIMES


def test_manifest_tells_thread_settings_and_no_secrets(monkeypatch):
    """Of the environment it tells what libraries look at, never the rest, which may be a password."""
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    for name in ("MLFLOW_TRACKING_PASSWORD", "TF_VAR_password", "TF_TOKEN_example_com", "KERAS_TOKEN"):
        monkeypatch.setenv(name, "secret")
    settings = describe_environment(TIMES)["settings"]

    assert settings["OMP_NUM_THREADS"] == "3"
    assert "secret" not in settings.values()
