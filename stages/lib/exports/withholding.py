"""Which exports are withheld, and why: one cause, one line, with what helps against it."""

import math
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import NamedTuple

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.tools.flatbuffer_utils import convert_bytearray_to_object

from stages.lib.core.errors import ExportError
from stages.lib.exports.parity import Budget, Parity
from stages.lib.exports.parity_matrix import Comparison, list_portable
from stages.lib.exports.runtimes import RUNTIMES

_FLOATS = ("model.onnx", "model.tflite")
_CALIBRATED = ("model_int8.onnx", "model_int8.tflite")
_DYNAMIC_RANGE = "model_dynamic_range.tflite"
# LiteRT's own kernels multiply the sum of a row of int8 weights by an activation's zero point, and give nonsense from
# about this sum on (measured: dense layers on 182 x 182 pixels). XNNPACK's do not.
_MAX_ROW_SUM = 1 << 18
_LEAVE_OUT = "leave it out of export.artifacts"
# A layer that gives only zeros, as of a network that has learned nothing, has no range to be quantized by.
_RETRAIN = "train a network that tells the classes apart (normalize.method: standardize may help), or leave it out"


class Refusal(NamedTuple):
    """One cause for which files are withheld."""

    measured: dict[str, str]  # of each file by its name, what its limits are held against; differs between machines
    reason: str  # the same on every machine
    hint: str

    def describe(self) -> ExportError:
        """The same for a person, as an error."""
        is_one = len(self.measured) == 1
        figures = "; ".join(text if is_one else f"{name} {text}" for name, text in self.measured.items() if text)
        problem = f"{self.reason} ({figures})" if figures else self.reason
        return ExportError(", ".join(self.measured), problem, self.hint)


def judge(
    comparisons: Sequence[Comparison], contents: Mapping[str, bytes], budgets: Mapping[str, str]
) -> list[Refusal]:
    """Why exports are withheld that are beyond their budget in a runtime that every machine has.

    contents: each export's bytes. budgets: the key of each export's budget in params.yaml; both by the file's name.
    """
    found: dict[tuple[str, str], dict[str, str]] = {}
    for name, group in groupby(list_portable(comparisons), key=lambda comparison: comparison.export):
        run = [(comparison, comparison.parity) for comparison in group if comparison.parity]
        failed = [(comparison, parity) for comparison, parity in run if not parity.within_budget]
        if not failed:
            continue
        if refused := next((comparison for comparison, _ in failed if comparison.failure), None):
            cause = f"{RUNTIMES[refused.runtime].title} refuses it", _RETRAIN if name in _CALIBRATED else _LEAVE_OUT
            found.setdefault(cause, {})[name] = refused.failure
            continue
        worst, parity = max(failed, key=lambda pair: _rank(pair[1]))
        is_kernel_limit = name == _DYNAMIC_RANGE and len(failed) < len(run) and _has_large_row_sums(contents[name])
        cause = _find_cause(name, parity, is_kernel_limit, budgets[name])
        found.setdefault(cause, {})[name] = _describe_figures(worst, parity)
    return [Refusal(measured, reason, hint) for (reason, hint), measured in found.items()]


def require_parity_here(comparisons: Sequence[Comparison]) -> None:
    """Refuse exports beyond their budget in a runtime that only some machines have: which are written must not differ.

    Raises:
        ExportError: naming each such file, its runtime and what is beyond the budget.
    """
    problems = [
        ExportError(
            f"{comparison.export} in {RUNTIMES[comparison.runtime].title}",
            expected="Keras's answers within the budget, as in the other runtimes",
            got=comparison.failure or _describe_figures(comparison, comparison.parity),
            hint="install its tested version (`python -m pip install -r requirements.txt`), or uninstall it",
        )
        for comparison in comparisons
        if not RUNTIMES[comparison.runtime].is_everywhere and comparison.parity and not comparison.parity.within_budget
    ]
    if problems:
        raise ExportError.join(problems)


def list_withheld(refusals: Sequence[Refusal]) -> dict[str, str]:
    """Why each withheld file is, by its name: the same on every machine."""
    reasons: dict[str, list[str]] = {}
    for refusal in refusals:
        for name in refusal.measured:
            reasons.setdefault(name, []).append(f"{refusal.reason}; {refusal.hint}")
    return {name: "; also ".join(told) for name, told in reasons.items()}


def require_exports(refusals: Sequence[Refusal], required: Sequence[str]) -> None:
    """Refuse to go on without a file that is required.

    Raises:
        ExportError: with each cause for which such a file is withheld.
    """
    problems = [refusal.describe() for refusal in refusals if set(required) & refusal.measured.keys()]
    if problems:
        raise ExportError.join(problems)


def _find_cause(name: str, parity: Parity, is_kernel_limit: bool, budget: str) -> tuple[str, str]:
    """The reason and what helps against it."""
    limits = f"raise the limits in export.budgets.{budget}"
    if is_kernel_limit:
        reason = "a row of int8 weights sums to more than LiteRT's own kernels hold, which answer nonsense"
        return reason, f"lower ingest.image_size, or {_LEAVE_OUT}"
    beyond = "further from Keras than its budget allows"
    if name in _FLOATS:
        return f"{beyond}, which is for rounding alone", limits
    if not parity.is_reference_sure:
        hint = "raise train.epochs, so that Keras is surer of its answers, or raise the limits in export.budgets"
        return f"{beyond}, on images that Keras itself is unsure of", hint
    if name in _CALIBRATED:
        hint = "raise export.representative_samples, or raise the limits in export.budgets"
        return f"{beyond}, on images that Keras is sure of: activations leave the calibrated ranges", hint
    return f"{beyond}, on images that Keras is sure of: its weights have too few bits", limits


def _has_large_row_sums(content: bytes) -> bool:
    """Whether a row of a .tflite file's int8 weights sums to more than LiteRT's own kernels hold."""
    model = convert_bytearray_to_object(bytearray(content))
    (graph,) = model.subgraphs
    sums = []
    for tensor in graph.tensors:
        data = model.buffers[tensor.buffer].data
        if tensor.type == schema.TensorType.INT8 and data is not None and len(data):
            rows = np.frombuffer(bytes(data), np.int8).reshape(tensor.shape[0], -1)
            sums.append(int(np.abs(rows.sum(axis=1, dtype=np.int64)).max()))
    return max(sums, default=0) > _MAX_ROW_SUM


def _rank(parity: Parity) -> tuple[bool, float, int]:
    """By which the worst of a file's runtimes is found: NaN first, then the largest |Δp|, then the other classes."""
    return math.isnan(parity.max_abs_error), parity.max_abs_error, len(parity.different)


def _describe_figures(comparison: Comparison, parity: Parity | None) -> str:
    assert parity
    budget: Budget = comparison.budget
    return (
        f"in {RUNTIMES[comparison.runtime].title} |Δp| {parity.max_abs_error:.3g} of at most {budget.max_abs_error:g}, "
        f"Keras's class for {parity.same_class / parity.images:.2%} of at least {budget.min_same_class:.2%}, "
        f"{parity.accuracy_drop:.2f} points of accuracy lost of at most {budget.max_accuracy_drop:g}"
    )
