"""docs/benchmarks.svg: how far each figure is above or below its target."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from benchmarks.figures import Figure

__all__ = ["draw"]

_REACHED, _MISSED = "#1b7f5c", "#c2410c"
_LEAST, _MOST = 0.25, 16.0


def draw(figures: Sequence[Figure], path: Path) -> None:
    """One bar per figure that has a target, from 1 x, on a logarithmic scale; the name and the measured value beside it."""
    import matplotlib as mpl  # noqa: PLC0415 (a third of a second, for those who draw)

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "crdtstore"
    from matplotlib import pyplot  # noqa: PLC0415

    rows = [(figure, min(max(figure.ratio, _LEAST), _MOST)) for figure in figures if figure.ratio is not None][::-1]
    canvas, axes = pyplot.subplots(figsize=(11, 1.2 + 0.27 * len(rows)), layout="constrained")
    for at, (figure, ratio) in enumerate(rows):
        axes.barh(at, ratio - 1, left=1, color=_REACHED if ratio >= 1 else _MISSED, height=0.7)
        value = f"{figure.median:,.0f}" if figure.median >= 100 else f"{figure.median:,.2f}"
        axes.annotate(
            f"{value} {figure.unit}", (max(ratio, 1), at), (4, 0), textcoords="offset points", va="center", size=8
        )
    axes.set_yticks(range(len(rows)), [figure.name for figure, _ in rows], size=8)
    axes.set_xscale("log", base=2)
    axes.set_xlim(_LEAST, _MOST * 2.5)
    axes.set_xticks([0.25, 0.5, 1, 2, 4, 8, 16], ["¼", "½", "target", "2 x", "4 x", "8 x", "16 x"])
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_ylim(-0.6, len(rows) - 0.4)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(left=False)
    axes.set_title("measured against the target; to the right is better", size=10, loc="left")
    canvas.savefig(path, metadata={"Date": None})
    pyplot.close(canvas)
