"""Corrections that carry state, and denoisers of views (contracts, rows 3 and 12)."""

import jax
import jax.numpy as jnp
import numpy as np

from pgm_jax.core import lift
from pgm_jax.guidance import correct, dds
from pgm_jax.operators import FiniteDifference, GaussianLikelihood, Identity, Matrix
from pgm_jax.processes import EDM, karras
from pgm_jax.reconstruction import tv
from pgm_jax.samplers import ddim, heun, sample_one


def _mbir(matrix, y, difference, weight, rho):
    """One ADMM iteration of review Eq. 31 at each evaluation; the dual and split variables are the state."""
    normal = matrix.T @ matrix + rho * difference.T @ difference

    def update(key, process, x0, t, state):
        z, w = state
        x = jnp.linalg.solve(normal, matrix.T @ y + rho * difference.T @ (z - w))
        shifted = difference @ x + w
        z = jnp.sign(shifted) * jnp.maximum(jnp.abs(shifted) - weight / rho, 0.0)
        return x, (z, shifted - z)

    rows = difference.shape[0]
    return correct(update, lambda x_t: (jnp.zeros(rows), jnp.zeros(rows)), keep_noise=True)


def test_warm_duals_bring_mbir_to_the_minimum_of_its_objective(x64):
    """Row 3: duals kept over the steps; 40 steps end within 1e-3 of the TV minimum, far closer than 10."""
    rng = np.random.default_rng(0)
    matrix, y = jnp.asarray(rng.normal(size=(6, 8))), jnp.asarray(rng.normal(size=6))
    difference = jnp.asarray(np.diff(np.eye(8), axis=0))
    weight, guidance = 0.3, _mbir(matrix, y, difference, 0.3, 0.5)
    objective = lambda x: 0.5 * jnp.sum((matrix @ x - y) ** 2) + weight * jnp.sum(jnp.abs(difference @ x))
    best = objective(tv(Matrix(matrix), y, weight, 4000, gradient=FiniteDifference((8,), axes=(0,)))[0])
    gaps = []
    for steps in (10, 40):
        x = sample_one(
            jax.random.key(0), heun(), lambda x, t, cond: x / (1 + t**2), EDM(), karras(steps), shape=(8,),
            dtype=jnp.float64, guidance=guidance,
        )  # fmt: skip
        gaps.append(float(objective(x) - best))
    assert -1e-6 < gaps[1] < 1e-3 and gaps[1] < 0.1 * gaps[0], gaps


def test_equal_views_and_tiles_of_a_pointwise_denoiser_change_nothing(x64):
    """Row 12: the mean of three equal views is one view; tiles of a pointwise denoiser are the whole."""
    denoise = lambda x, t, cond=None: x / (1 + t**2)
    views = lambda x, t, cond=None: (
        sum(
            jnp.moveaxis(jax.vmap(lambda s: denoise(s, t))(jnp.moveaxis(x, axis, 0)), 0, axis)
            for axis in range(3)
        )
        / 3
    )
    tiles = lambda x, t, cond=None: jnp.concatenate([denoise(part, t) for part in jnp.split(x, 2)])
    run = lambda d: sample_one(
        jax.random.key(0), heun(), d, EDM(), karras(6), shape=(4, 4, 4), dtype=jnp.float64
    )
    np.testing.assert_allclose(run(views), run(denoise), rtol=1e-12)
    np.testing.assert_allclose(run(tiles), run(denoise), rtol=1e-12)


def test_a_volume_is_corrected_over_a_denoiser_of_its_slices(x64):
    """Row 12: DDS on the whole volume, the denoiser slice by slice: the residual falls by an order."""
    rng = np.random.default_rng(1)
    truth = jnp.asarray(rng.normal(size=(3, 4, 4)))
    likelihood = GaussianLikelihood.create(Identity((3, 4, 4)), truth, 0.01)
    slices = lambda x, t, cond=None: jax.vmap(lambda s: s / (1 + t**2))(x)
    run = lambda guidance: sample_one(
        jax.random.key(0),
        ddim(),
        slices,
        EDM(),
        karras(20),
        shape=truth.shape,
        dtype=jnp.float64,
        guidance=guidance,
    )
    residual = [float(jnp.linalg.norm(run(g) - truth)) for g in (None, dds(likelihood))]
    assert residual[1] < 0.1 * residual[0]
    state = dds(likelihood)(lift(EDM(), slices)).init(truth)
    assert jax.tree.leaves(state) == []
