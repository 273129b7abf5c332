"""Microcontroller boards by name, and how much of its memory a model may take."""

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from stages.lib.core.errors import ParamsError


class Board(NamedTuple):
    """A board's memory."""

    ram_bytes: int  # static RAM of the chip; memory beside the chip, such as PSRAM or SDRAM, does not count
    flash_bytes: int
    source: str  # of both figures


BoardName = Literal[
    "arduino_uno_r4", "arduino_nano_33_ble", "arduino_portenta_h7", "esp32_s3", "nucleo_f401re", "raspberry_pi_pico"
]
_KIB = 1 << 10
BOARDS: dict[BoardName, Board] = {
    "arduino_uno_r4": Board(32 * _KIB, 256 * _KIB, "Renesas, RA4M1 Group datasheet (R7FA4M1AB3CFM)"),
    "arduino_nano_33_ble": Board(256 * _KIB, 1024 * _KIB, "Nordic Semiconductor, nRF52840 product specification"),
    "arduino_portenta_h7": Board(1024 * _KIB, 2048 * _KIB, "STMicroelectronics, STM32H747xI/G datasheet (STM32H747XI)"),
    "esp32_s3": Board(512 * _KIB, 8192 * _KIB, "Espressif, ESP32-S3 and ESP32-S3-WROOM-1 datasheets (variant N8)"),
    "nucleo_f401re": Board(96 * _KIB, 512 * _KIB, "STMicroelectronics, STM32F401xD/xE datasheet (STM32F401RE)"),
    "raspberry_pi_pico": Board(264 * _KIB, 2048 * _KIB, "Raspberry Pi, RP2040 and Pico datasheets"),
}


class Limits(NamedTuple):
    """How much memory the int8 model may take."""

    where: str  # a board's name, or `a microcontroller`
    max_arena_bytes: int
    max_file_bytes: int
    is_of_board: bool  # whether both follow from the board


def find_limits(board: BoardName | None, max_arena_bytes: int | None, max_file_bytes: int | None) -> Limits:
    """The limits that are given; for one that is none, half of the board's RAM or flash: the firmware needs some, too.

    Raises:
        ParamsError: there is neither a limit nor a known board.
    """
    given = {"max_arena_bytes": max_arena_bytes, "max_file_bytes": max_file_bytes}
    halves = _halve(board) if board else {}
    limits = {key: halves.get(key) if value is None else value for key, value in given.items()}
    missing = [
        ParamsError(
            f"params.yaml: export.microcontroller.{key}",
            expected="a whole number of bytes where export.board is null",
            got="null",
            hint=f"write a number, or set export.board to one of {', '.join(BOARDS)}",
        )
        for key, value in limits.items()
        if value is None
    ]
    if missing:
        raise ParamsError.join(missing)
    arena, file = (value or 0 for value in limits.values())
    return Limits(board or "a microcontroller", arena, file, is_of_board=limits == halves)


def find_board(arena_bytes: int, file_bytes: int) -> BoardName | None:
    """The board with the least RAM of those that have twice as much RAM and flash; none if none has."""
    needed = {"max_arena_bytes": arena_bytes, "max_file_bytes": file_bytes}
    fitting = [board for board in BOARDS if all(needed[key] <= half for key, half in _halve(board).items())]
    return min(fitting, key=lambda board: BOARDS[board].ram_bytes, default=None)


def _halve(board: BoardName) -> dict[str, int]:
    return {"max_arena_bytes": BOARDS[board].ram_bytes // 2, "max_file_bytes": BOARDS[board].flash_bytes // 2}


def read_limits(section: Mapping[str, Any]) -> Limits | None:
    """The limits that the section `export` of params.yaml gives the int8 model; none if it asks for no such model.

    Raises:
        ParamsError: as `find_limits`.
        KeyError, TypeError: the section is not as it must be, which its own stage tells.
    """
    if "tflite_int8" not in section["artifacts"]:
        return None
    microcontroller = section["microcontroller"]
    return find_limits(section["board"], microcontroller["max_arena_bytes"], microcontroller["max_file_bytes"])
