"""What is left out of an import, or put off, is not loaded by it, and the collector is back when it is over."""

# PLC0415: what is imported, and when, is what is tested.
# ruff: noqa: PLC0415

import gc
import sys

import pytest

from stages.lib.core.lean_imports import import_lean

# A package that takes another along where it finds it, as Keras does with scikit-learn.
TAKING = """
try:
    import taken
except ImportError:
    taken = None
"""


@pytest.fixture(autouse=True)
def _modules(tmp_path, monkeypatch):
    """A folder with two modules, `taking` and `taken`, of which neither is loaded."""
    (tmp_path / "taking.py").write_text(TAKING, encoding="utf-8")
    (tmp_path / "taken.py").write_text("value = 1", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    yield
    for name in ("taking", "taken"):
        sys.modules.pop(name, None)


def test_left_out_module_is_not_loaded():
    """The one that would take it along does without."""
    with import_lean("taken"):
        import taking

    assert taking.taken is None
    assert "taken" not in sys.modules


def test_left_out_module_can_be_loaded_afterwards():
    """It is left out of the block alone."""
    with import_lean("taken"):
        import taking  # noqa: F401
    import taken

    assert sys.modules["taken"] is taken


def test_module_that_is_loaded_already_stays():
    """Who has asked for it keeps it, and nothing is imported twice."""
    import taken

    with import_lean("taken"):
        import taking

    assert taking.taken is sys.modules["taken"] is taken


def test_later_module_is_loaded_when_something_is_asked_of_it():
    """The one that takes it along has it at once, and it has its contents when they are wanted."""
    with import_lean(later=["taken"]):
        import taking
    assert "value" not in object.__getattribute__(taking.taken, "__dict__")

    assert taking.taken.value == 1
    assert "value" in object.__getattribute__(taking.taken, "__dict__")


def test_later_module_that_is_missing_is_missing():
    """Nothing takes the place of what is not there."""
    with pytest.raises(ModuleNotFoundError, match="missing"), import_lean(later=["missing"]):
        import missing  # noqa: F401


def test_after_the_block_modules_are_loaded_at_once():
    """What is imported later is imported as ever."""
    with import_lean(later=["taken"]):
        pass
    import taken

    assert object.__getattribute__(taken, "__dict__")["value"] == 1


def test_failed_import_leaves_nothing_behind():
    """A package that cannot do without says so, and everything else is as it was."""
    with pytest.raises(ModuleNotFoundError, match="taken"), import_lean("taken"):
        import taken  # noqa: F401

    assert "taken" not in sys.modules
    assert gc.isenabled()


def test_collector_has_nothing_to_do_with_what_was_loaded():
    """It waits for the end of the block, and never looks at what was loaded in it."""
    with import_lean():
        import taken

        assert not gc.isenabled()

    assert gc.isenabled()
    assert not any(module is taken for module in gc.get_objects())


def test_collector_that_was_off_stays_off():
    """A process that does without the collector is not given one."""
    gc.disable()
    try:
        with import_lean():
            pass

        assert not gc.isenabled()
    finally:
        gc.enable()
