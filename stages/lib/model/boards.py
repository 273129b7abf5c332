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
    half_arena, half_file = _halve(board) if board else (None, None)
    arena, file = max_arena_bytes or half_arena, max_file_bytes or half_file
    if arena is None or file is None:
        raise ParamsError(
            "params.yaml: export.board",
            expected="the name of a board where a limit in export.microcontroller is null",
            got="null",
            hint=f"set it to one of {', '.join(BOARDS)}, or max_arena_bytes and max_file_bytes to numbers",
        )
    return Limits(board or "a microcontroller", arena, file, is_of_board=(arena, file) == (half_arena, half_file))


def find_board(arena_bytes: int, file_bytes: int) -> BoardName | None:
    """The board with the least RAM of those that have twice as much RAM and flash; none if none has."""
    fitting = [board for board in BOARDS if arena_bytes <= _halve(board)[0] and file_bytes <= _halve(board)[1]]
    return min(fitting, key=lambda board: BOARDS[board].ram_bytes, default=None)


def _halve(board: BoardName) -> tuple[int, int]:
    return BOARDS[board].ram_bytes // 2, BOARDS[board].flash_bytes // 2


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
