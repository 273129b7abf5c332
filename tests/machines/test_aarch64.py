"""A Python for AArch64 gets the locked packages that stages import, or one line says why there is none."""

import platform
import re
import shutil

import pytest
from click.testing import CliRunner
from imports import ROOT

from stages.commands.main import main
from stages.lib.core.errors import PipelineError
from stages.lib.verification.aarch64 import lay_python, select_pins

PROJECT = """
[project]
dependencies = [
  "dvc>=3,<4",  # runs the stages
  "Ruamel.YAML>=0.19",
  "tensorflow>=2.21,<2.22",
  "tflite-micro==0.dev1; platform_machine == 'x86_64'",
]
[project.optional-dependencies]
dev = ["pytest>=9"]
"""
REQUIREMENTS = """\
celery==5.6.3 \\
    --hash=sha256:aa
    # via dvc
dvc==3.67.1 \\
    --hash=sha256:bb
    # via same-answers (pyproject.toml)
numpy==2.4.0 \\
    --hash=sha256:cc \\
    --hash=sha256:dd
    # via
    #   celery
    #   tensorflow
pytest==9.2.0 \\
    --hash=sha256:ee
    # via same-answers (pyproject.toml)
pywin32==312 ; sys_platform == 'win32' \\
    --hash=sha256:ff
    # via numpy
ruamel-yaml==0.19.1 \\
    --hash=sha256:01
    # via same-answers (pyproject.toml)
tensorflow==2.21.0 \\
    --hash=sha256:02
    # via same-answers (pyproject.toml)
tflite-micro==0.dev1 ; platform_machine == 'x86_64' and sys_platform == 'linux' \\
    --hash=sha256:03
    # via same-answers (pyproject.toml)
"""
needs_another_processor = pytest.mark.skipif(platform.machine() == "aarch64", reason="this machine is an AArch64")


def test_packages_are_those_that_stages_import():
    """What stages import comes with all that it needs, hashes included; DVC, tests and what is for others stay out."""
    assert select_pins(REQUIREMENTS, PROJECT) == (
        "numpy==2.4.0 \\\n    --hash=sha256:cc \\\n    --hash=sha256:dd\n"
        "pywin32==312 ; sys_platform == 'win32' \\\n    --hash=sha256:ff\n"
        "ruamel-yaml==0.19.1 \\\n    --hash=sha256:01\n"
        "tensorflow==2.21.0 \\\n    --hash=sha256:02\n"
    )


def test_packages_of_this_project_are_selected():
    """Of the committed files come TensorFlow and the runtimes, without DVC, MLflow, Ray and TensorFlow Lite Micro."""
    texts = [(ROOT / name).read_text(encoding="utf-8") for name in ("requirements.txt", "pyproject.toml")]
    names = set(re.findall(r"^([\w-]+)==", select_pins(*texts), re.MULTILINE))

    assert {"ai-edge-litert", "great-expectations", "keras", "numpy", "onnxruntime", "tensorflow"} <= names
    assert names & {"dvc", "mlflow", "pytest", "ray", "tflite-micro"} == set()


@needs_another_processor
@pytest.mark.parametrize(
    ("programs", "reported"),
    [
        (
            [],
            ("--arch aarch64: qemu-aarch64 is not on PATH; install it (Debian, Ubuntu: `apt-get install qemu-user`)"),
        ),
        (
            ["qemu-aarch64"],
            ("--arch aarch64: apt-get is not on PATH; run this on Debian or Ubuntu, or in a container of one"),
        ),
    ],
)
def test_missing_program_is_one_line(tmp_path, monkeypatch, programs, reported):
    """Where QEMU or apt is missing, one line says so and what to do, before anything else is done."""
    for name in programs:
        (tmp_path / name).write_text("#!/bin/sh\n", encoding="utf-8")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    result = CliRunner().invoke(main, ["verify", "--arch", "aarch64"])

    assert (result.exit_code, result.stdout, result.stderr) == (1, "", f"verify: {reported}\n")


@needs_another_processor
def test_python_that_cannot_be_had_whole_is_not_there(tmp_path, monkeypatch):
    """Where packages cannot be had, one line says what apt said, and nothing half-made is left to be used."""
    for name in ("requirements.txt", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    programs = {"apt-get": 'echo "E: no network" >&2; exit 100', "dpkg-deb": "", "qemu-aarch64": ""}
    (tmp_path / "bin").mkdir()
    for name, command in programs.items():
        (tmp_path / "bin" / name).write_text(f"#!/bin/sh\n{command}\n", encoding="utf-8")
        (tmp_path / "bin" / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.delenv("DVC_ROOT", raising=False)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(PipelineError) as refusal:
        lay_python()

    assert refusal.value.args == (
        "--arch aarch64",
        "apt-get cannot list the packages for arm64: E: no network",
        "check the network and apt's sources (/etc/apt/sources.list*), then run again",
    )
    assert list((tmp_path / ".cache/aarch64").iterdir()) == []


def test_other_architecture_is_a_usage_error():
    """Only what there is a Python for can be asked for."""
    assert CliRunner().invoke(main, ["verify", "--arch", "riscv64"]).exit_code == 2
