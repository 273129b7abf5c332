"""A Python for AArch64 with this project's packages, to be emulated by QEMU: laid once, below .cache, without root.

Python itself and the libraries under it come as the system's own packages for that architecture, the rest as the wheels
that requirements.txt locks. They are unpacked into a folder that QEMU shows to the program in place of /.
"""

import hashlib
import platform
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

from stages.lib.core.errors import PipelineError
from stages.lib.core.files import atomic_write, require_space, write_text
from stages.lib.core.paths import resolve
from stages.lib.verification.programs import require_program, run_program

ARCHITECTURE = "aarch64"
EMULATOR = "qemu-aarch64"
INSTALL_QEMU = "install it (Debian, Ubuntu: `apt-get install qemu-user`)"
# Runs DVC and MLflow, which need not be emulated: only what stages import up to `export` is laid.
LEFT_OUT = ("dvc", "mlflow")

_WHERE = f"--arch {ARCHITECTURE}"
_PROCESSOR = "neoverse-n1"  # of servers in many clouds, such as AWS's Graviton2
_PYTHON = Path("usr/bin/python")
# Only what needs no other choice than a Debian's or Ubuntu's own.
_PACKAGES = ("python3", "libstdc++6")
# Of wheels, by the C library that they need: no newer one than Debian 12 has, the oldest system with Python 3.11.
_PLATFORMS = [*(f"manylinux_2_{minor}_aarch64" for minor in range(17, 37)), "manylinux2014_aarch64", "any"]
_CHECK_APT = "check the network and apt's sources (/etc/apt/sources.list*), then run again"
_NEEDED_BYTES = 4 << 30  # 2.2 GB, and what is downloaded for it
# The system's apt, with folders of its own and nothing to be done afterwards.
_APT_CONFIG = """\
APT::Architecture "arm64";
APT::Architectures {{ "arm64"; }};
APT::Sandbox::User "root";
Dir::State "{state}";
Dir::State::status "{state}/status";
Dir::Cache "{cache}";
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
#clear DPkg::Post-Invoke;
"""
# What tells a program its processor, of which QEMU 7 shows the host's. ONNX Runtime and LiteRT end at that.
_CPUINFO = """\
processor	: {number}
BogoMIPS	: 100.00
Features	: fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp
CPU implementer	: 0x41
CPU architecture: 8
CPU variant	: 0x3
CPU part	: 0xd0c
CPU revision	: 1

"""
# -0 is what the program takes for its own name: with it a stage starts another Python through this script again.
_START = f"""\
#!/bin/sh
root=$(cd "$(dirname "$0")/../.." && pwd)
exec {EMULATOR} -cpu {_PROCESSOR} -L "$root" -0 "$root/{_PYTHON}" "$root/usr/bin/python{{version}}" "$@"
"""


def lay_python() -> Path:
    """The `python` that runs a program as AArch64 does; it is laid first if it is not there yet.

    Raises:
        PipelineError: this machine lacks a program for it, or packages cannot be had.
    """
    require_programs()
    pins = select_pins(
        Path("requirements.txt").read_text(encoding="utf-8"), Path("pyproject.toml").read_text(encoding="utf-8")
    )
    root = resolve(f".cache/{ARCHITECTURE}/{hashlib.sha256(pins.encode()).hexdigest()[:12]}")
    if not root.is_dir():
        print(f"laying an AArch64 Python into {root}, once: some minutes, 2.2 GB", flush=True)
        require_space(root, _NEEDED_BYTES)
        with atomic_write(root) as partial:
            _lay_system(partial)
            _lay_wheels(partial, pins)
    return root / _PYTHON


def require_programs() -> None:
    """Refuse what cannot be emulated here.

    Raises:
        PipelineError: this machine is an AArch64 itself, or a program is missing, and how to get it.
    """
    if platform.machine() in (ARCHITECTURE, "arm64"):
        raise PipelineError(
            _WHERE, "this machine is an AArch64 itself", "leave it out: every rebuild here is on AArch64"
        )
    require_program(EMULATOR, _WHERE, INSTALL_QEMU)
    for program in ("apt-get", "dpkg-deb"):
        require_program(program, _WHERE, "run this on Debian or Ubuntu, or in a container of one")


def select_pins(requirements: str, project: str) -> str:
    """The locked packages that stages import on AArch64, as pip's requirements with hashes.

    requirements: what uv wrote, which says by whom each is needed. project: the text of pyproject.toml.
    """
    pins, needed_by = {}, {}
    for block in re.split(r"\n(?=\S)", requirements.strip()):
        lines, name = block.splitlines(), _read_name(block)
        comments = " ".join(line.strip(" #") for line in lines if line.startswith("    #"))
        needed_by[name] = {_read_name(word) for word in comments.split() if re.match(r"[\w.-]+$", word)}
        pins[name] = "\n".join(line for line in lines if not line.lstrip().startswith("#")).rstrip("\\ \n")
    direct = tomllib.loads(project)["project"]["dependencies"]
    needed: set[str] = set()
    found = {_read_name(dependency) for dependency in direct}.difference(LEFT_OUT)
    while found:
        needed |= found
        found = {name for name in pins if needed_by[name] & needed} - needed
    # pip would take the markers as of the machine that it runs on.
    return "\n".join(pins[name] for name in sorted(needed) if "'x86_64'" not in pins[name]) + "\n"


def _read_name(requirement: str) -> str:
    """A requirement's name in its normalized form."""
    match = re.match(r"[\w.-]+", requirement)
    assert match
    return re.sub(r"[-_.]+", "-", match[0]).lower()


def _lay_system(root: Path) -> None:
    """Unpack Python and what it needs of the system's packages into `root`."""
    private = root / "apt"
    for folder in ("state/lists/partial", "cache/archives/partial"):
        (private / folder).mkdir(parents=True)
    (private / "state/status").touch()
    config = _APT_CONFIG.format(state=private / "state", cache=private / "cache")
    write_text(private / "apt.conf", config)
    apt = ["apt-get", "--quiet", "--config-file", str(private / "apt.conf")]
    run_program([*apt, "update"], _WHERE, "apt-get cannot list the packages for arm64", _CHECK_APT)
    install = [*apt, "install", "--yes", "--no-install-recommends", "--download-only", *_PACKAGES]
    run_program(install, _WHERE, "apt-get cannot download the packages for arm64", _CHECK_APT)
    for archive in sorted((private / "cache/archives").glob("*.deb")):
        extract = ["dpkg-deb", "--extract", str(archive), str(root)]
        run_program(
            extract, _WHERE, f"dpkg-deb cannot unpack {archive.name}", "free disk space (`df .cache`) and run again"
        )
    shutil.rmtree(private)
    version = _find_version(root)
    write_text(root / "proc/cpuinfo", "".join(_CPUINFO.format(number=number) for number in range(2)))
    write_text(root / _PYTHON, _START.format(version=version))
    (root / _PYTHON).chmod(0o755)
    _compile(root / f"usr/lib/python{version}", version)


def _find_version(root: Path) -> str:
    """Which Python was unpacked, such as 3.11."""
    (program,) = [path for path in (root / "usr/bin").iterdir() if re.fullmatch(r"python3\.\d+", path.name)]
    return program.name.removeprefix("python")


def _lay_wheels(root: Path, pins: str) -> None:
    """Install wheels for AArch64 by this machine's pip, which runs nothing of them."""
    version = _find_version(root)
    requirements = root / "requirements.txt"
    write_text(requirements, pins)
    abi = f"cp{version.replace('.', '')}"
    # Where this Python looks by itself.
    target = root / f"usr/local/lib/python{version}/dist-packages"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-compile", "--require-hashes"]
    pip += ["--only-binary=:all:", f"--requirement={requirements}", f"--target={target}", f"--python-version={version}"]
    pip += ["--implementation=cp", *(f"--abi={name}" for name in (abi, "abi3", "none"))]
    pip += [f"--platform={name}" for name in _PLATFORMS]
    hint = "check the network and the index (`python -m pip config list`), then run again"
    run_program(pip, _WHERE, "pip cannot download the wheels for AArch64", hint)
    _compile(target, version)


def _compile(folder: Path, version: str) -> None:
    """Write byte code, if this Python's is the same: emulated, it would take minutes at the first import."""
    if f"{sys.version_info.major}.{sys.version_info.minor}" == version:
        command = [sys.executable, "-m", "compileall", "-q", "-j", "0", str(folder)]
        # Some files are not for this version, which is no matter until they are imported.
        subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)  # noqa: S603
