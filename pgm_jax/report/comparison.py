"""A figure that compares reconstructions of one slice: a row of panels for each setting."""

from typing import NamedTuple

import numpy as np

from pgm_jax.core import require


class Panel(NamedTuple):
    """One image of the figure.

    Attributes:
        image: (height, width) real image.
        title: text above it.
        window: (low, high) grey values, in units of the image.
        cmap: matplotlib colour map.
    """

    image: np.ndarray
    title: str
    window: tuple
    cmap: str = "gray"


def comparison_figure(rows, path, labels, heading, footnote="") -> None:
    """Draws rows of panels and saves them; row 0 of an image is at the top, columns run to the right.

    Args:
        rows: list of lists of `Panel`.
        path: file to write, of which the suffix chooses the format, or a binary file open for writing (PNG).
        labels: one label a row, drawn at its left.
        heading: title of the figure.
        footnote: small text below.

    Raises:
        MissingExtra: without the `viz` extra.
    """
    figure_of = require("matplotlib.figure", "viz").Figure
    columns = max(len(row) for row in rows)
    height, width = rows[0][0].image.shape
    size = (1.9 * columns, 1.9 * height / width * len(rows) + 0.35 * len(rows) + 0.7)
    figure = figure_of(figsize=size, layout="constrained")
    axes = figure.subplots(len(rows), columns, squeeze=False)
    for row, label, line in zip(rows, labels, axes, strict=True):
        for axis in line:
            axis.set_axis_off()
        for panel, axis in zip(row, line, strict=False):
            low, high = panel.window
            shown = axis.imshow(panel.image, cmap=panel.cmap, vmin=low, vmax=high, interpolation="nearest")
            axis.set_title(panel.title, fontsize=7)
            if panel.cmap != "gray":
                figure.colorbar(shown, ax=axis, fraction=0.04, pad=0.02).ax.tick_params(labelsize=6)
        line[0].text(
            -0.08, 0.5, label, rotation=90, va="center", ha="right", transform=line[0].transAxes, fontsize=8
        )
    figure.suptitle(heading, fontsize=9)
    if footnote:
        figure.supxlabel(footnote, fontsize=6)
    figure.savefig(path, dpi=160)
