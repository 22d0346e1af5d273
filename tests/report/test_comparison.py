"""The comparison figure puts pixels where they belong."""

import matplotlib.image
import numpy as np

from pgm_jax.report import Panel, comparison_figure


def test_row_zero_is_at_the_top(tmp_path):
    image = np.zeros((16, 12))
    image[:4] = 1.0
    path = tmp_path / "figure.png"
    comparison_figure([[Panel(image, "one", (0.0, 1.0))]], path, ["4x"], "heading", "note")
    picture = matplotlib.image.imread(path)[..., :3].mean(axis=-1)
    columns = picture[:, picture.shape[1] // 2]
    dark = np.flatnonzero(columns < 0.1)
    bright = columns[dark[0] - 30 : dark[0] - 5]
    assert len(dark) > 100 and (bright > 0.9).all()
