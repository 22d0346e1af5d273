"""The contact sheet: each image in its place, complex ones by magnitude, values clipped to the window."""

import numpy as np
import pytest

from pgm_jax.report import contact_sheet


def test_images_lie_in_rows_and_complex_ones_show_their_magnitude(tmp_path):
    image = pytest.importorskip("matplotlib.image")
    random = np.random.default_rng(0)
    magnitude = random.uniform(-0.0, 2.0, (5, 3, 4, 1)).astype(np.float32)
    phase = np.exp(1j * random.uniform(0, 6, magnitude.shape))
    contact_sheet(magnitude * phase, tmp_path / "sheet.png", window=(0.5, 1.5))
    drawn = image.imread(tmp_path / "sheet.png")[..., 0]
    # Three columns and two rows of 3 x 4 pixels, one black line between them.
    assert drawn.shape == (7, 14)
    expected = np.zeros((7, 14))
    for place in range(5):
        row, column = 4 * (place // 3), 5 * (place % 3)
        expected[row : row + 3, column : column + 4] = np.clip(magnitude[place, ..., 0] - 0.5, 0, 1)
    np.testing.assert_allclose(drawn, expected, atol=1.5 / 255)
