"""A picture of many images side by side."""

import math

import numpy as np

from pgm_jax.core import require


def contact_sheet(images, path, window=(0.0, 1.0)) -> None:
    """Draws images in rows, as near to a square as they go, grey and pixel by pixel; complex ones by magnitude.

    Args:
        images: (n, height, width, channel) real or complex; the first channel is drawn.
        path: picture to write, of which the suffix chooses the format, or a binary file open for writing (PNG).
        window: (black, white) in units of the images.

    Raises:
        MissingExtra: without the `viz` extra.
    """
    save = require("matplotlib.image", "viz").imsave
    first = np.asarray(images)[..., 0]
    first = np.abs(first) if np.iscomplexobj(first) else first
    count, height, width = first.shape
    columns = math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    # One black pixel between neighbours; places without an image stay black.
    sheet = np.full((rows * (height + 1) - 1, columns * (width + 1) - 1), window[0], np.float32)
    for place, image in enumerate(first):
        row, column = place // columns * (height + 1), place % columns * (width + 1)
        sheet[row : row + height, column : column + width] = image
    save(path, sheet, cmap="gray", vmin=window[0], vmax=window[1])
