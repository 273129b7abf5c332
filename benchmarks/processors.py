"""The C99 classifier compiled for other processors and run on them, emulated; and what an answer costs on a Cortex-M.

Clang and the C libraries for all of them come with the ziglang wheel: `pip install --require-hashes -r
tests/machines/requirements.txt`, 101 MB to download and 411 MB on the disk, and so not in the usual environment. QEMU
and Node are the system's, and so is GCC for Arm, with which firmware is usually built.
"""

import importlib.util
import os
import re
import shutil
import struct
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from stages.lib.core.errors import PipelineError
from stages.lib.core.paths import find_root
from stages.lib.microcontroller.device_sources import read_template

TARGETS_DIR = Path(__file__).parent / "targets"
STRICT = ("-std=c99", "-pedantic", "-Wall", "-Wextra", "-Wconversion", "-Wsign-conversion", "-Werror")
COMPILERS = ("GCC", "Clang")
# Target and emulator; s390x has the highest byte of a number first.
LINUX_TARGETS = {
    "AArch64": ("aarch64-linux-musl", "qemu-aarch64"),
    "RISC-V 64": ("riscv64-linux-musl", "qemu-riscv64"),
    "s390x": ("s390x-linux-musl", "qemu-s390x"),
}
_CORTEX_M_EMULATOR = "qemu-system-arm"
_GCC = "arm-none-eabi-gcc"
# An instruction takes 2^5 ns of the emulated time: SysTick counts up to 13 million of them, and steps by about one.
_ICOUNT = "shift=5"
_CALIBRATION_INSTRUCTIONS = 2_000_000
# Section headers of ELF: a type, and flags.
_NOBITS, _WRITE, _ALLOCATED = 8, 1, 2


class CortexM(NamedTuple):
    """A core and a board of QEMU that has it."""

    cpu: str
    board: str


CORTEX_M = {
    # The emulated core is a Cortex-M0: both have the instructions of ARMv6-M.
    "Cortex-M0+": CortexM("cortex-m0plus", "microbit"),
    "Cortex-M3": CortexM("cortex-m3", "mps2-an385"),
    "Cortex-M4": CortexM("cortex-m4", "mps2-an386"),
}


class Sizes(NamedTuple):
    """Bytes that an object file or a program takes."""

    flash: int  # code, constants and the initial values of variables
    ram: int  # variables


class Firmware(NamedTuple):
    """What is put on a board."""

    program: Path
    program_sizes: Sizes
    classifier_sizes: Sizes  # of classifier.c alone


class Run(NamedTuple):
    """What a board did with N images."""

    answers: NDArray[np.uint8]  # (N, classes)
    instructions: NDArray[np.float64]  # (N,), of classifier_predict
    stack_bytes: int  # at most


def find_missing(*programs: str) -> str | None:
    """Why these cannot be used: which is not there. `Clang` and `GCC` are compilers, all others names of programs."""
    for name in programs:
        if name == "Clang" and importlib.util.find_spec("ziglang") is None:
            return "ziglang is not installed: pip install --require-hashes -r tests/machines/requirements.txt"
        program = _GCC if name == "GCC" else name
        if name != "Clang" and shutil.which(program) is None:
            return f"{program} is not on PATH"
    return None


def answer_on_linux(
    name: str, sources: Mapping[str, str], images: NDArray[np.uint8], folder: Path
) -> NDArray[np.uint8]:
    """The answers uint8 (N * classes,) of a program for a processor of LINUX_TARGETS, emulated."""
    target, emulator = LINUX_TARGETS[name]
    _write(folder, {**sources, "answer.c": read_template("answer.c")})
    _run([*_clang(target), *STRICT, "-O2", "-static", "answer.c", "classifier.c", "-o", "answer"], folder)
    return np.frombuffer(_run([emulator, "answer"], folder, images.tobytes()), np.uint8)


def build_webassembly(sources: Mapping[str, str], folder: Path) -> Path:
    """The classifier as a WebAssembly module that imports nothing."""
    _write(folder, sources)
    exports = [f"-Wl,--export={name}" for name in ("classifier_predict", "__heap_base")]
    options = ["-nostdlib", "-Wl,--no-entry", *exports, "classifier.c", "-o", "classifier.wasm"]
    _run([*_clang("wasm32-freestanding"), *STRICT, "-O2", *options], folder)
    return folder / "classifier.wasm"


def read_sizes(sources: Mapping[str, str]) -> list[int]:
    """Bytes of an image, of an answer and of the scratch memory, as the header says."""
    names = ("PIXEL_BYTES", "CLASS_COUNT", "SCRATCH_BYTES")
    found = [re.search(rf"#define CLASSIFIER_{name} (\d+)", sources["classifier.h"]) for name in names]
    return [int(match[1]) for match in found if match]


def answer_in_node(sources: Mapping[str, str], images: NDArray[np.uint8], folder: Path) -> NDArray[np.uint8]:
    """The answers uint8 (N * classes,) of the WebAssembly module in Node."""
    module = build_webassembly(sources, folder)
    images.tofile(folder / "images")
    sizes = map(str, read_sizes(sources))
    script = str(TARGETS_DIR / "webassembly.js")
    return np.frombuffer(_run(["node", script, module.name, "images", *sizes], folder), np.uint8)


def build_firmware(
    core: str, compiler: str, sources: Mapping[str, str], folder: Path, optimization: str = "-O2"
) -> Firmware:
    """A program for a core of CORTEX_M that answers images; compiler: one of COMPILERS."""
    cpu = CORTEX_M[core].cpu
    if compiler == "GCC":
        command, libraries = [_GCC, f"-mcpu={cpu}", "-mthumb", "-nostdlib"], ["-lgcc"]
    else:  # it links what stands for libgcc by itself
        command, libraries = [*_clang("thumb-freestanding-eabi"), f"-mcpu={cpu.replace('-', '_')}"], []
    _write(folder, sources)
    _run([*command, *STRICT, optimization, "-ffreestanding", "-c", "classifier.c", "-o", "classifier.o"], folder)
    link = [f"-Wl,-T,{TARGETS_DIR / 'cortex_m.ld'}", str(TARGETS_DIR / "cortex_m.c"), "classifier.o", *libraries]
    _run([*command, "-std=gnu99", "-O2", "-ffreestanding", "-I.", *link, "-o", "firmware.elf"], folder)
    program = folder / "firmware.elf"
    return Firmware(program, measure_elf(program.read_bytes()), measure_elf((folder / "classifier.o").read_bytes()))


def run_firmware(core: str, firmware: Firmware, images: NDArray[np.uint8], class_count: int) -> Run:
    """What the emulated core answers to images, and what each answer costs.

    Instructions are those that QEMU counts (its option -icount) between two readings of SysTick, whose ticks are
    compared with those of a loop of known length. The stack is painted before each call.
    """
    folder = firmware.program.parent
    images.tofile(folder / "images")
    quiet = ("-display", "none", "-monitor", "none", "-serial", "none", "-parallel", "none")
    emulated = ("-icount", _ICOUNT, "-semihosting-config", "enable=on,target=native")
    command = [_CORTEX_M_EMULATOR, "-machine", CORTEX_M[core].board, *quiet, *emulated]
    _run([*command, "-kernel", firmware.program.name], folder)
    calibration, *costs = np.fromfile(folder / "costs", "<u4").astype(np.int64)
    ticks, stack_bytes = np.reshape(costs, (-1, 2)).T
    return Run(
        np.fromfile(folder / "answers", np.uint8).reshape(-1, class_count),
        ticks * (_CALIBRATION_INSTRUCTIONS / calibration),
        int(stack_bytes.max(initial=0)),
    )


def measure_elf(content: bytes) -> Sizes:
    """What a 32-bit ELF file takes of flash and RAM.

    Source: Tool Interface Standard, Executable and Linking Format, version 1.2, figures 1-3 and 1-9.
    """
    (start,) = struct.unpack_from("<I", content, 32)
    entry_bytes, count = struct.unpack_from("<HH", content, 46)
    flash = ram = 0
    for offset in range(start, start + count * entry_bytes, entry_bytes):
        kind, flags, _, _, size = struct.unpack_from("<5I", content, offset + 4)
        if flags & _ALLOCATED:
            flash += size * (kind != _NOBITS)
            ram += size * bool(flags & _WRITE)
    return Sizes(flash, ram)


def _clang(target: str) -> list[str]:
    return [sys.executable, "-m", "ziglang", "cc", "-target", target]


def _write(folder: Path, texts: Mapping[str, str]) -> None:
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="ascii")


def _run(command: Sequence[str], folder: Path, given: bytes = b"") -> bytes:
    """What a program writes.

    Raises:
        PipelineError: it fails.
    """
    # One cache for the C libraries, which Zig compiles at their first use. Objects have another in each folder: by
    # relative paths alone, Zig takes a header for the one of the same name in the folder of an earlier call.
    caches = {"ZIG_GLOBAL_CACHE_DIR": str(find_root() / ".cache/zig"), "ZIG_LOCAL_CACHE_DIR": str(folder / ".zig")}
    environment = {**os.environ, **caches}
    done = subprocess.run(command, input=given, capture_output=True, cwd=folder, env=environment, check=False)  # noqa: S603
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines()[-3:]
        problem = f"exit code {done.returncode}: {' | '.join(said)}"
        raise PipelineError(f"`{' '.join(map(str, command))}`", problem, "run it by hand to see why")
    return done.stdout
