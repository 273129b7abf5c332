"""What a piece of code takes of memory."""

import tracemalloc
from collections.abc import Callable


def measure_peak(run: Callable[[], object]) -> int:
    """The most bytes that `run` holds at a time, NumPy's arrays included, those in files not."""
    tracemalloc.start()
    try:
        run()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
