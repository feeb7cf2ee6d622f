"""The picture of a learning-rate range test."""

from pathlib import Path

import numpy as np

from engine.report.figures import save_figure
from engine.report.grid import SIGNATURE


def draw_rates(
    rates: np.ndarray, losses: np.ndarray, smoothed: np.ndarray, suggestion: float | None, path: Path
) -> None:
    """Draws losses over rates on a logarithmic axis, smoothed too, and the suggested rate, as a PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.plot(rates, losses, ".", color="0.7", label="loss of a batch")
    axes.plot(rates[: len(smoothed)], smoothed, label="smoothed")
    if suggestion is not None:
        axes.axvline(suggestion, color="C1", linestyle="--", label=f"suggested: {suggestion:.2g}")
    low, high = float(smoothed.min()), float(smoothed[0])
    margin = 0.5 * max(high - low, 1e-3 * abs(high), 1e-12)
    axes.set(xscale="log", xlabel="learning rate", ylabel="training loss", ylim=(low - margin, high + 2 * margin))
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    save_figure(figure, path, metadata={"Software": SIGNATURE})
