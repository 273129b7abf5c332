"""Large packages, imported in no more time than they need."""

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def import_lean(*left_out: str) -> Iterator[None]:
    """A block of imports that neither waits for packages that nobody asked for, nor for the garbage collector.

    left_out: modules that the imported ones take along where they find them, and do without where they do not. In the
    block they are not to be found, unless something has loaded them before; after it they are.
    """
    hidden = [module for module in left_out if module not in sys.modules]
    for module in hidden:
        # None makes an import fail: https://docs.python.org/3/reference/import.html#the-module-cache
        sys.modules[module] = None  # type: ignore[assignment]
    is_collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        for module in hidden:
            sys.modules.pop(module, None)
        # What was loaded stays to the end, and no collection need look at it any more: the last, as the process ends,
        # would take a second for TensorFlow alone.
        gc.freeze()
        if is_collecting:
            gc.enable()
