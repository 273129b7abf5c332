"""A board's name, or two numbers, say how much memory the int8 model may take."""

import pytest

from stages.lib.core.errors import ParamsError
from stages.lib.model.boards import BOARDS, find_board, find_limits, read_limits


def test_half_of_a_board_is_allowed():
    """The firmware needs RAM and flash, too."""
    limits = find_limits("arduino_uno_r4", None, None)

    assert (limits.where, limits.max_arena_bytes, limits.max_file_bytes) == ("arduino_uno_r4", 16384, 131072)
    assert limits.is_of_board is True


@pytest.mark.parametrize("board", [None, "esp32_s3"])
def test_limits_that_are_given_hold_whatever_the_board(board):
    """Numbers in params.yaml count, with a board or without."""
    limits = find_limits(board, 1000, 2000)

    assert (limits.max_arena_bytes, limits.max_file_bytes, limits.is_of_board) == (1000, 2000, False)


def test_one_limit_may_be_given():
    """The other is half of what the board has."""
    limits = find_limits("nucleo_f401re", 1000, None)

    assert (limits.max_arena_bytes, limits.max_file_bytes, limits.is_of_board) == (1000, 256 * 1024, False)


@pytest.mark.parametrize("limits", [(None, None), (1000, None), (None, 1000)])
def test_neither_a_board_nor_a_limit_is_refused(limits):
    """One line names every board, and the keys that take a number in place of one."""
    with pytest.raises(ParamsError) as refusal:
        find_limits(None, *limits)

    assert (refusal.value.where, refusal.value.got) == ("params.yaml: export.board", "null")
    assert all(name in refusal.value.hint for name in (*BOARDS, "max_arena_bytes", "max_file_bytes"))


def test_board_that_is_suggested_is_the_smallest_that_fits():
    """By RAM, of which there is least."""
    assert find_board(1, 1) == "arduino_uno_r4"
    assert find_board(16384, 131072) == "arduino_uno_r4"
    assert find_board(16385, 131072) == "nucleo_f401re"
    assert find_board(1, 4 << 20) == "esp32_s3"
    assert find_board(1 << 30, 1) is None


@pytest.mark.parametrize("board", BOARDS)
def test_every_board_has_memory_and_its_source(board):
    """Flash is larger than RAM, and the vendor's document is named."""
    found = BOARDS[board]

    assert 0 < found.ram_bytes < found.flash_bytes
    assert "datasheet" in found.source or "specification" in found.source


def test_section_without_the_int8_file_has_no_limits():
    """Who asks for no int8 file has no microcontroller in mind."""
    microcontroller = {"max_arena_bytes": 1, "max_file_bytes": 2}
    section = {"artifacts": ["tflite_int8"], "board": None, "microcontroller": microcontroller}

    assert read_limits(section) == find_limits(None, 1, 2)
    assert read_limits(section | {"artifacts": ["onnx_float32"]}) is None
