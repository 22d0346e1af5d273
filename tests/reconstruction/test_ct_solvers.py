"""The classical solvers on a parallel beam: SIRT's limits, ordered subsets, and limited angles."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pgm_jax.operators.ct.geometry import ImageGrid, Parallel
from pgm_jax.operators.ct.parallel import ParallelBeam
from pgm_jax.reconstruction.anisotropic_tv import anisotropic_tv, coverage_weights
from pgm_jax.reconstruction.art import art
from pgm_jax.reconstruction.cgls import cgls
from pgm_jax.reconstruction.lsqr import lsqr
from pgm_jax.reconstruction.sart import sart
from pgm_jax.reconstruction.sirt import sirt
from pgm_jax.reconstruction.tgv import tgv
from pgm_jax.reconstruction.tv import natural_balance, tv

pytestmark = pytest.mark.slow
SIZE = 32


def _beam(angles, subsets=1):
    return ParallelBeam(ImageGrid((SIZE, SIZE), 1.0), Parallel(angles, 48, 1.0), subsets=subsets)


def _phantom():
    rows, columns = np.meshgrid(*[np.arange(SIZE) - (SIZE - 1) / 2] * 2, indexing="ij")
    image = 1.0 * ((rows / 13) ** 2 + (columns / 10) ** 2 < 1)
    image += 0.5 * ((rows - 4) ** 2 + (columns + 2) ** 2 < 9) - 0.5 * (
        (rows + 5) ** 2 + (columns - 3) ** 2 < 6
    )
    return jnp.asarray(image[..., None], jnp.float32)


def _error(image):
    truth = _phantom()
    return float(jnp.linalg.norm(image - truth) / jnp.linalg.norm(truth))


def test_sirt_converges_at_1_9_and_diverges_at_2_1():
    beam = _beam(np.arange(20) * np.pi / 20)
    y = beam(_phantom())
    below, above = (sirt(beam, y, 300, relax)[1].residual for relax in (1.9, 2.1))
    assert (np.diff(below) < 1e-4).all() and below[-1] < 0.02 * below[0]
    assert above[-1] > 100 * above[0]


def test_subsets_are_sooner_done_and_all_agree_on_complete_data():
    angles = np.arange(48) * np.pi / 48
    whole, views = _beam(angles), _beam(angles, 48)
    y = whole(_phantom())
    errors = {
        "sirt": _error(sirt(whole, y, 10)[0]),
        "os": _error(sart(_beam(angles, 8), y, 10, 0.7, keep_positive=True)[0]),
        "sart": _error(sart(views, y, 10, 0.7, keep_positive=True)[0]),
        "art": _error(art(views, y, 10, 0.7, keep_positive=True)[0]),
        "cgls": _error(cgls(whole, y, 40)[0]),
        "lsqr": _error(lsqr(whole, y, 40)[0]),
    }
    assert errors["sirt"] > 1.5 * max(errors["os"], errors["sart"], errors["art"]), errors
    # Forty steps of least squares, still on the way.
    assert max(errors["cgls"], errors["lsqr"]) < 0.05, errors
    # A number of views that the subsets do not divide is filled up with empty views.
    uneven = _beam(angles[:46], 8)
    assert _error(sart(uneven, uneven(_phantom()), 10, 0.7, keep_positive=True)[0]) < 1.3 * errors["os"]


def test_total_variation_fills_in_sparse_views():
    beam = _beam(np.arange(10) * np.pi / 10)
    y = beam(_phantom())
    plain = _error(cgls(beam, y, 15)[0])
    for method in (tv, tgv):
        image, trace = method(beam, y, 0.02, 1000, keep_positive=True)
        assert _error(image) < 0.5 * plain and image.min() >= 0


def test_directional_weights_help_over_a_limited_angle():
    angles = np.deg2rad(np.arange(-25, 25, 3))
    beam, directions = _beam(angles), np.array([0.0, np.pi / 2])
    y, norm = beam(_phantom()), beam.norm()
    longer = lambda w: 10 * natural_balance(beam, y, w)
    solve = jax.jit(lambda w: anisotropic_tv(beam, y, w, directions, 800, norm=norm, balance=longer(w))[0])
    best = lambda relative: min(_error(solve(jnp.asarray(relative) * w)) for w in (0.03, 0.1, 0.3))
    equal = best(np.ones(2))
    directed, crosswise = best(coverage_weights(angles, directions, 0.1)), best(np.array([0.1, 1.0]))
    assert directed < 0.6 * equal and crosswise > equal, (directed, equal, crosswise)
