"""The pipeline's one family of exceptions: what a person caused and can fix."""

import errno
import re
from collections.abc import Sequence
from typing import Any, Self, TypeVar

# As many errors as one line has room for.
_FEW = 5

# What a terminal obeys instead of showing it (ECMA-48), what ends a line or turns its order
# (https://www.unicode.org/reports/tr9/#Directional_Formatting_Characters), and what Python makes of bytes that are no
# UTF-8 (https://peps.python.org/pep-0383/); names of files may hold all of it.
CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")

_FREE_SPACE = "free some (`dvc gc --workspace` empties DVC's cache of what is not in use) and run again"
_WAYS_OUT = {
    errno.ENOSPC: _FREE_SPACE,
    errno.EDQUOT: _FREE_SPACE,
    errno.EROFS: "let it be written to and run again",
}


class PipelineError(Exception):
    """An error a person can act on, told in one line: where, expected, got, what to do."""

    def __init__(self, where: str, *, expected: str, got: str, hint: str) -> None:
        # Texts of other libraries may have several lines.
        super().__init__(show_controls(" ".join(f"{where}: expected {expected}, got {got}; {hint}".split())))

    @classmethod
    def join(cls, problems: Sequence["PipelineError"]) -> Self:
        """Several errors as one error: in one line if they are few, else a line for each."""
        reported = [str(problem) for problem in problems]
        is_few = len(reported) <= _FEW
        return _restore(
            cls, "; also ".join(reported) if is_few else "\n  ".join([f"{len(reported):,} errors:", *reported])
        )

    def __reduce__(self) -> tuple[Any, ...]:
        """How the error gets from a process to another."""
        return _restore, (type(self), *self.args)


E = TypeVar("E", bound=PipelineError)


def _restore(kind: type[E], text: str) -> E:
    error = kind.__new__(kind)
    error.args = (text,)
    return error


class ParamsError(PipelineError):
    """params.yaml holds something that a stage cannot take."""


class DataError(PipelineError):
    """Data is missing, damaged or not what its source promises."""


class TrainingError(PipelineError):
    """Training gave no usable network."""


class ExportError(PipelineError):
    """An exported model is missing, damaged or does not answer as Keras does."""


class TrackingError(PipelineError):
    """The MLflow store, or what should go into it, is not as tracking needs it."""


def show_controls(text: str) -> str:
    """The text with each control character as Python escapes it: a terminal would obey it."""
    return CONTROLS.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)


def describe_os_error(error: OSError) -> str:
    """What the system refused, in one line: where, why, what to do."""
    hint = _WAYS_OUT.get(error.errno or 0, "fix it and run again")
    return show_controls(f"{error.filename or 'input or output'}: {error.strerror or error}; {hint}")
