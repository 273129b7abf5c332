"""How much each parameter of a sweep matters for each of a few metrics."""

from collections.abc import Mapping
from pathlib import Path

from stages.lib.plotting.png import draw_png

# Okabe and Ito's palette, which everyone can tell apart (https://jfly.uni-koeln.de/color/).
_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")


def draw_importances(path: Path, title: str, importances: Mapping[str, Mapping[str, float]]) -> None:
    """Draw a bar for each parameter and metric.

    importances: by metric, each parameter's share, 0..1, the same parameters for all; without a metric, it says that
    nothing varied.
    """
    params = list(next(iter(importances.values()), {}))
    height = 0.8 / max(1, len(importances))
    with draw_png(path, 9.5, 1.5 + len(params) * (0.3 + 0.25 * len(importances))) as figure:
        axes = figure.subplots()
        for number, (metric, shares) in enumerate(importances.items()):
            places = [row + (number - (len(importances) - 1) / 2) * height for row in range(len(params))]
            color = _COLORS[number % len(_COLORS)]
            bars = axes.barh(places, [shares[name] for name in params], height=0.9 * height, color=color, label=metric)
            axes.bar_label(bars, fmt="%.2f", padding=3, fontsize=8)
        axes.set_yticks(range(len(params)), params, parse_math=False)
        axes.invert_yaxis()
        axes.set_xlim(0, 1.08)
        axes.set_xlabel("share in the variation over the trials" if params else "nothing varied over the trials")
        axes.set_title(title, parse_math=False)
        if params:
            axes.legend(loc="lower right", fontsize=8)
