"""Large packages, imported in no more time than they need."""

import gc
import sys
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import LazyLoader
from types import ModuleType


@contextmanager
def import_lean(*left_out: str, later: Collection[str] = ()) -> Iterator[None]:
    """A block of imports that waits for no package that nobody asked for, nor for the garbage collector.

    left_out: modules that the imported ones take along where they find them, and do without where they do not. In the
    block they are not to be found, unless something has loaded them before; after it they are.
    later: modules that the imported ones cannot do without, but hardly use. They are loaded when something is asked
    of them.
    """
    hidden = [module for module in left_out if module not in sys.modules]
    for module in hidden:
        # None makes an import fail: https://docs.python.org/3/reference/import.html#the-module-cache
        sys.modules[module] = None  # type: ignore[assignment]
    finder = _LaterFinder(later)
    sys.meta_path.insert(0, finder)
    is_collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        for module in hidden:
            sys.modules.pop(module, None)
        # What was loaded stays to the end, and no collection need look at it any more: the last, as the process ends,
        # would take a second for TensorFlow alone.
        gc.freeze()
        if is_collecting:
            gc.enable()


class _LaterFinder(MetaPathFinder):
    """Finds modules of these names for a loader that waits until something is asked of them."""

    def __init__(self, names: Collection[str]) -> None:
        self._names = names

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        spec = PathFinder.find_spec(fullname, path, target) if fullname in self._names else None
        if spec and spec.loader:
            spec.loader = LazyLoader(spec.loader)
        return spec
