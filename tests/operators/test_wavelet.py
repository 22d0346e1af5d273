"""Daubechies filters and the periodic wavelet transform against conditions, dense matrices and PyWavelets."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pgm_jax import operators as op
from pgm_jax.operators.daubechies import daubechies_filter
from pgm_jax.operators.wavelet import Wavelet

NAMES = ["haar", *[f"db{n}" for n in range(2, 11)]]


@pytest.mark.parametrize("name", NAMES)
def test_filters_are_orthogonal_and_have_their_vanishing_moments(name):
    taps = daubechies_filter(name)
    size = len(taps)
    for shift in range(0, size, 2):
        np.testing.assert_allclose(taps[shift:] @ taps[: size - shift], shift == 0, atol=1e-14)
    k = np.arange(size)
    for power in range(size // 2):
        np.testing.assert_allclose(((-1.0) ** k * (k / size) ** power) @ taps, 0, atol=1e-13)
    # Extremal phase: the energy comes early.
    assert (k @ taps**2) < size / 2


def test_db2_is_daubechies_closed_form_and_others_are_refused():
    root = np.sqrt(3)
    exact = np.array([1 + root, 3 + root, 3 - root, 1 - root]) / (4 * np.sqrt(2))
    np.testing.assert_allclose(daubechies_filter("db2"), exact, atol=1e-15)
    for name in ("db0", "db11", "sym4"):
        with pytest.raises(ValueError, match='"haar" or "db1" to "db10"'):
            daubechies_filter(name)


CASES = {
    "haar_1d": ((16, 1), "haar", 4, None),
    "db4_1d_wraps_around": ((8, 1), "db4", 2, None),
    "db3_2d": ((8, 12, 1), "db3", 2, None),
    "db8_2d_shorter_than_its_filter": ((4, 8, 2), "db8", 2, None),
    "db2_3d": ((4, 4, 8, 1), "db2", 1, None),
    "one_axis": ((3, 8, 1), "db2", 2, (1,)),
}


@pytest.mark.parametrize("name", CASES)
def test_the_transform_is_orthogonal(name, x64):
    wavelet = Wavelet(*CASES[name])
    matrix = np.asarray(jax.jit(lambda a: a.matrix())(wavelet))
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(len(matrix)), atol=1e-13)
    assert float(jax.jit(op.element_gap)(wavelet)) < 1e-14
    x = jnp.asarray(np.random.default_rng(0).normal(size=wavelet.shape)) * (1 + 2j)
    np.testing.assert_allclose(wavelet.adjoint(wavelet(x)), x, atol=1e-13)
    assert wavelet.norm() == 1 and (wavelet.gram(x) == x).all()


@pytest.mark.parametrize("name", ["db3_2d", "one_axis"])
def test_single_precision_dot_test_and_transforms(name):
    wavelet = Wavelet(*CASES[name])
    assert float(jax.jit(op.adjoint_gap)(wavelet, jax.random.key(0))) < 1e-6
    x = jax.random.normal(jax.random.key(0), wavelet.shape)
    np.testing.assert_allclose(jax.linear_transpose(wavelet, x)(x)[0], wavelet.adjoint(x), atol=1e-5)
    batched = jax.jit(jax.vmap(wavelet))(jnp.stack([x, 2 * x]))
    np.testing.assert_allclose(batched[1], 2 * wavelet(x), atol=1e-5)


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[] if n in ("haar", "db4", "db8") else pytest.mark.slow) for n in NAMES]
)
def test_coefficients_are_those_of_pywavelets(name, x64):
    pywt = pytest.importorskip("pywt")
    np.testing.assert_allclose(daubechies_filter(name), pywt.Wavelet(name).rec_lo, atol=1e-12)
    rng = np.random.default_rng(0)
    for shape, levels in (((32,), 2), ((16, 24), 2), ((4, 8, 8), 1)):
        x = rng.normal(size=shape)
        with warnings.catch_warnings(action="ignore"):
            levels_of_theirs = pywt.wavedecn(x, name, mode="periodization", level=levels)
        theirs, _ = pywt.coeffs_to_array(levels_of_theirs)
        ours = Wavelet((*shape, 1), name, levels)(jnp.asarray(x)[..., None])[..., 0]
        np.testing.assert_allclose(ours, theirs, atol=1e-11)


def test_polynomials_have_no_detail_away_from_the_border(x64):
    x = jnp.linspace(0, 1, 64)[:, None] ** 3
    detail = Wavelet((64, 1), "db4", 1)(x)[32:]
    assert np.abs(detail[4:-4]).max() < 1e-12 < 1e-2 < np.abs(detail).max()


def test_the_coarse_band_is_marked():
    wavelet = Wavelet((8, 16, 1), "haar", 2)
    marks = np.asarray(wavelet.details())
    assert marks.sum() == 8 * 16 - 2 * 4 and (marks[:2, :4] == 0).all()
    # A constant image lives in the coarse band alone.
    assert np.abs(marks * wavelet(jnp.ones((8, 16, 1)))).max() < 1e-6


@pytest.mark.parametrize("shape, levels", [((12, 16, 1), 3), ((16, 16, 1), 0)])
def test_sizes_that_do_not_fit_are_refused(shape, levels):
    with pytest.raises(ValueError, match="pad the image"):
        Wavelet(shape, "haar", levels)(jnp.ones(shape))
    with pytest.raises(ValueError, match="negative entries"):
        Wavelet((8, 1), "haar", 1).row_sums()
