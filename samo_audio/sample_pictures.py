"""What the network sees of some clips: as they are, and as the first epoch augments them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from samo.data.manifest import Manifest
from samo.reporting.drawing import verbatim

__all__ = ["augmentation_figure"]


def augmentation_figure(
    manifest: Manifest, rows: np.ndarray, plain: np.ndarray, augmented: np.ndarray, seconds: float
) -> Figure:
    """One line a clip: its spectrogram as evaluation sees it, and as the first epoch of training does.

    Args:
        manifest: of the clips.
        rows: (B,) their row numbers.
        plain: (B, bands, frames) normalised spectrograms of the beginning of each clip.
        augmented: (B, bands, frames) the same augmented; the window may be another one.
        seconds: length of a window.
    """
    n = len(rows)
    figure = Figure(figsize=(8.4, 0.9 + 1.7 * n), layout="constrained")
    FigureCanvasAgg(figure)
    synthetic = " (synthetic demo data)" if manifest.synthetic else ""
    figure.suptitle(verbatim(f"{manifest.corpus}{synthetic}: what training sees"), fontsize=11)
    grid = figure.subplots(n, 2, squeeze=False, sharex=True, sharey=True)
    # Of what is not augmented: noise and gain must show.
    low, high = np.quantile(plain, (0.02, 0.998))
    image = None
    for line, row in enumerate(rows):
        item = manifest.items[row]
        label = ", ".join(name for labels in item.labels.values() for name in labels)
        titles = (f"{Path(item.source).name}: {label}", "augmented, as in epoch 1")
        for axes, spectrogram, title in zip(grid[line], (plain[line], augmented[line]), titles, strict=True):
            image = axes.imshow(
                spectrogram, origin="lower", aspect="auto", cmap="magma", vmin=low, vmax=high,
                extent=(0.0, seconds, 0.0, float(spectrogram.shape[0])), interpolation="nearest",
            )  # fmt: skip
            axes.set_title(verbatim(title), fontsize=8)
            axes.tick_params(labelsize=7)
        grid[line, 0].set_ylabel("mel band", fontsize=8)
    for axes in grid[-1]:
        axes.set_xlabel("seconds", fontsize=8)
    if image is not None:
        bar = figure.colorbar(image, ax=grid, shrink=0.6, aspect=40)
        bar.set_label("level as the network gets it, in standard deviations", fontsize=8)
        bar.ax.tick_params(labelsize=7)
    return figure
