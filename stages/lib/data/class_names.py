"""Names of classes, which reports, pages, terminals and other systems have to show."""

import re
import unicodedata

from stages.lib.core.errors import CONTROLS, DataError

_TAG = re.compile(r"<[A-Za-z/!?]")  # what begins a tag of HTML


def normalize_name(name: str) -> str:
    """The name with its accents in the composed form: systems differ in which they write."""
    return unicodedata.normalize("NFC", name)


def find_name_problem(name: str, where: str, hint: str) -> DataError | None:
    """The error of a name that reports could not show, or that pages would take for something else."""
    is_visible = any(unicodedata.category(letter)[0] not in "CZ" for letter in name)
    if CONTROLS.search(name) or not is_visible or name != name.strip():
        expected = "a class name that can be read, without blanks around it"
        return DataError(where, expected=expected, got=ascii(name), hint=hint)
    if _TAG.search(name):
        return DataError(where, "this class name holds a tag of HTML", hint)
    return None
