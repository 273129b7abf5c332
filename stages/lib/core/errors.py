"""The pipeline's one family of exceptions: what a person caused and can fix."""

import errno
import re
from collections.abc import Sequence
from typing import Self

# As many errors as one line has room for.
_FEW = 5

# What a terminal obeys instead of showing it (ECMA-48), what ends a line or turns its order
# (https://www.unicode.org/reports/tr9/#Directional_Formatting_Characters), and what Python makes of bytes that are no
# UTF-8 (https://peps.python.org/pep-0383/); names of files may hold all of it.
CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")

_FREE_SPACE = "free some (`dvc gc --workspace` empties DVC's cache of what is not in use) and run again"
_ALLOW = "allow it with `chmod` or `chown` and run again"
_MOVE_AWAY = "something else has this name: move that away and run again"
_WAYS_OUT = {
    errno.ENOSPC: _FREE_SPACE,
    errno.EDQUOT: _FREE_SPACE,
    errno.EFBIG: "allow larger files (`ulimit -f unlimited`) and run again",
    errno.EROFS: "make its disk writable (`mount` shows how it is mounted) and run again",
    errno.EACCES: _ALLOW,
    errno.EPERM: _ALLOW,
    errno.ENOENT: "restore it (`dvc checkout` or `git checkout`) and run again",
    errno.EISDIR: _MOVE_AWAY,
    errno.ENOTDIR: _MOVE_AWAY,
    errno.EEXIST: _MOVE_AWAY,
    errno.ELOOP: "remove the link that leads back to itself and run again",
    errno.ENAMETOOLONG: "use shorter names of files and folders and run again",
    errno.EMFILE: "allow more open files (`ulimit -n 4096`) and run again",
}


class PipelineError(Exception):
    """An error a person can act on, told in one line: where it is, what is wrong, what to do.

    where, problem, hint: these three. expected, got: of a wrong value, in place of a problem.
    """

    def __init__(self, where: str, problem: str = "", hint: str = "", *, expected: str = "", got: str = "") -> None:
        if expected:
            problem = f"expected {expected}, got {got}"
        super().__init__(where, problem, hint)  # with these Python unpickles it, and the attributes after that
        self.where, self.problem, self.hint = where, problem, hint
        self.expected, self.got = expected, got
        self._joined: tuple[Self, ...] = ()

    @classmethod
    def join(cls, causes: Sequence[Self]) -> Self:
        """Several errors as one error, told in one line if they are few, else in a line for each; one stays itself."""
        if len(causes) == 1:
            return causes[0]
        joined = cls("")
        joined._joined = tuple(causes)
        return joined

    @property
    def causes(self) -> tuple[Self, ...]:
        """The single errors of a joined one, which has no parts of its own; else the error itself."""
        return self._joined or (self,)

    @classmethod
    def unreadable(cls, where: str, error: OSError) -> Self:
        """A file or folder that the system refused to read."""
        return cls(where, f"cannot be read: {error.strerror or error}", _suggest_way_out(error))

    def __str__(self) -> str:
        """The line, or the lines of a joined error."""
        if self._joined:
            lines = [str(cause) for cause in self._joined]
            return "; also ".join(lines) if len(lines) <= _FEW else "\n  ".join([f"{len(lines):,} errors:", *lines])
        line = "; ".join(filter(None, [f"{self.where}: {self.problem}", self.hint]))
        return show_controls(" ".join(line.split()))  # texts of other libraries may have several lines


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
    where = error.filename or "input or output"
    return str(PipelineError(str(where), error.strerror or str(error), _suggest_way_out(error)))


def _suggest_way_out(error: OSError) -> str:
    return _WAYS_OUT.get(error.errno or 0, "run again; if it comes back, check the disk (`df`, `dmesg`)")
