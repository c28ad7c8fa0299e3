"""The loss curve, as an SVG file."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path


def can_draw() -> bool:
    """Say whether matplotlib, which is part of the extra `train`, is installed."""
    return importlib.util.find_spec("matplotlib") is not None


def draw_curve(log: Sequence[dict[str, float]], best_step: int, path: Path) -> None:
    """Draw the training and the held-out loss over the steps; the same log gives the same bytes."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context({"svg.hashsalt": "enrich", "svg.fonttype": "none"}):
        figure = Figure(figsize=(7, 4), layout="constrained")
        axes = figure.subplots()
        for key, label in (("loss", "training"), ("eval_loss", "held out")):
            points = [(entry["step"], entry[key]) for entry in log if key in entry]
            if points:
                marker = "o" if len(points) < 40 else None
                axes.plot(*zip(*points, strict=True), label=label, marker=marker, markersize=3)
        axes.axvline(best_step, color="gray", linestyle=":", linewidth=1, label=f"kept: step {best_step:,}")
        axes.set_xlabel("step")
        axes.set_ylabel("loss (nats per token)")
        axes.grid(alpha=0.3)
        axes.legend(frameon=False)
        figure.savefig(path, metadata={"Date": None})
