"""The pipeline's one family of exceptions: what a person caused and can put right."""

from collections.abc import Sequence
from typing import Self

# As many faults as one line has room for.
_FEW = 5


class PipelineError(Exception):
    """A fault a person can act on, told in one line: where, expected, got, what to do."""

    def __init__(self, where: str, *, expected: str, got: str, do: str) -> None:
        # Texts of other libraries may have several lines.
        super().__init__(" ".join(f"{where}: expected {expected}, got {got}; {do}".split()))

    @classmethod
    def join(cls, faults: Sequence["PipelineError"]) -> Self:
        """Several faults as one error: in one line if they are few, else a line for each."""
        joined = cls.__new__(cls)
        told = [str(fault) for fault in faults]
        joined.args = ("; also ".join(told) if len(told) <= _FEW else "\n  ".join([f"{len(told):,} faults:", *told]),)
        return joined


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
