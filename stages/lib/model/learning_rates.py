"""The learning rate of each step, computed once, the same to the bit on every processor."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from stages.lib.model.order_free_sine import compute_sine

Decay = Literal["constant", "cosine"]


def compute_learning_rates(
    learning_rate: float, decay: Decay, warmup_steps: int, step_count: int
) -> NDArray[np.float32]:
    """The rate (step_count,) of each step: from 0 up to `learning_rate` at step `warmup_steps`, then as `decay` says.

    cosine: learning_rate (1 + cos(pi t / T)) / 2 at step t of the T after the warm-up: 0 as the last one ends
    (I. Loshchilov and F. Hutter, SGDR, 2017, equation 5, without restarts; `CosineDecay` of Keras). step_count: of all
    epochs, more than `warmup_steps`.
    """
    steps = np.arange(step_count, dtype=np.float64)
    rates = np.full(step_count, learning_rate)
    if decay == "cosine":
        progress = (steps - warmup_steps) / (step_count - warmup_steps)
        rates *= compute_sine((1 - progress) / 2) ** 2  # = (1 + cos(pi progress)) / 2
    rising = steps[:warmup_steps]
    rates[:warmup_steps] = learning_rate * rising / max(1, warmup_steps)
    return rates.astype(np.float32)
