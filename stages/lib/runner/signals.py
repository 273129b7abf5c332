"""Ctrl-C and `kill`: a stage stops, tidies up and ends with one line and the shell's code for the signal."""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

_LINES = {signal.SIGINT: "interrupted; nothing was half-written", signal.SIGTERM: ""}


@contextmanager
def end_on_signal(stage: str) -> Iterator[None]:
    """Let SIGINT and SIGTERM end the block, and the process with 130 and 143; partial files are removed on the way.

    Libraries turn what ends them into exceptions of their own, or lose it, as Python itself does in a finalizer. So the
    signal is remembered, and however the block ends, the process ends by the signal. A second one, or one that comes
    once the block has ended, ends the process at once: the default. A signal that was ignored, as a shell has it of
    what runs in the background, is ignored still.
    """
    received: list[int] = []

    def stop(number: int, _frame: FrameType | None) -> NoReturn:
        signal.signal(number, signal.SIG_DFL)
        received.append(number)
        raise KeyboardInterrupt

    handled = [number for number in _LINES if signal.getsignal(number) is not signal.SIG_IGN]
    for number in handled:
        signal.signal(number, stop)
    try:
        yield
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt) and not received:
            received.append(signal.SIGINT)
        if not received:
            raise
    finally:
        # DVC goes on with the next stage after one that ended well, and so Ctrl-C must count to the very end.
        for number in handled:
            signal.signal(number, signal.SIG_DFL)
    if received:
        line = _LINES[signal.Signals(received[0])]
        if line:
            print(f"{stage}: {line}", file=sys.stderr)
        sys.exit(128 + received[0])
