"""SENSE unaliasing against dense least squares and CG, and its g-factor against noise replicas."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tables import rest_slow

from pgm_jax import operators as op
from pgm_jax.operators.coils import birdcage_volume_maps
from pgm_jax.reconstruction import cg_sense
from pgm_jax.reconstruction.sense import g_factor, unalias


def _mask(shape, acceleration, offset):
    mask = np.ones(shape)
    for axis, (index, n, r) in enumerate(zip(np.indices(shape), shape, acceleration, strict=True)):
        first = (n // 2) % r if offset is None else offset[axis]
        mask = mask * (index % r == first)
    return mask


def _scan(shape, acceleration, offset=None, coils=8, dtype=np.complex128):
    rings = birdcage_volume_maps(coils, *shape, dtype=dtype) if len(shape) == 3 else None
    maps = op.birdcage_maps(coils, *shape, dtype=dtype) if rings is None else rings
    sense = op.Sense.create(maps, _mask(shape, acceleration, offset))
    x = np.random.default_rng(0).normal(size=(2, *shape, 1))
    return sense, jnp.asarray((x[0] + 1j * x[1]).astype(dtype))


def _covariance(coils):
    rng = np.random.default_rng(1)
    factor = rng.normal(size=(coils, coils)) + 1j * rng.normal(size=(coils, coils))
    return factor @ factor.conj().T / coils + np.eye(coils)


CASES = [
    ((6, 9), (2, 3), None),
    ((2, 6, 4), (1, 3, 2), (0, 1, 1)),
    ((8, 10), (1, 2), (0, 1)),
    ((9, 7), (3, 1), (2, 0)),
]


@pytest.mark.parametrize("case", rest_slow(CASES, keep=2))
def test_unaliasing_is_the_dense_least_squares_solution(case, x64):
    shape, acceleration, offset = case
    sense, x = _scan(shape, acceleration, offset)
    y = sense(x)
    np.testing.assert_allclose(unalias(y, sense.maps, acceleration, offset=offset), x, atol=1e-10)
    rng = np.random.default_rng(2)
    noisy = y + sense.mask * (rng.normal(size=y.shape) + 1j * rng.normal(size=y.shape))
    covariance = _covariance(8)
    matrix = np.asarray(sense.matrix())
    precision = np.kron(np.linalg.inv(covariance), np.eye(int(np.prod(shape))))
    normal = matrix.conj().T @ precision @ matrix + 0.1 * np.eye(matrix.shape[1])
    expected = np.linalg.solve(normal, matrix.conj().T @ precision @ np.ravel(noisy))
    options = dict(offset=offset, covariance=covariance, weight=0.1)
    got = jax.jit(lambda y, maps: unalias(y, maps, acceleration, **options))(noisy, sense.maps)
    np.testing.assert_allclose(got.ravel(), expected, atol=1e-10)


def test_cg_sense_approaches_it():
    sense, x = _scan((8, 12), (1, 2), dtype=np.complex64)
    y = sense(x) + 0.1 * np.float32(sense.mask)[None]
    direct = unalias(y, sense.maps, (1, 2), weight=1e-2)
    np.testing.assert_allclose(cg_sense(sense, y, steps=25, weight=1e-2)[0], direct, atol=1e-4)


def test_g_factor_is_the_noise_of_replicas():
    # Pseudo replicas: the same scan with 3000 draws of coloured noise, unaliased; Pruessmann's definition.
    acceleration, coils, shape = (1, 3), 6, (4, 9)
    sense, _ = _scan(shape, acceleration, coils=coils, dtype=np.complex64)
    covariance = _covariance(coils)
    lower = np.linalg.cholesky(covariance)
    draw = np.random.default_rng(3).normal(size=(2, 3000, coils, *shape)) / np.sqrt(2)
    noise = jnp.asarray(np.einsum("cd,ndhw->nchw", lower, draw[0] + 1j * draw[1]), jnp.complex64)
    mask = jnp.asarray(sense.mask, jnp.float32)

    def spread(mask, acceleration):
        draw = lambda n: unalias(mask[None] * n, sense.maps, acceleration, covariance=covariance)[..., 0]
        images = jax.jit(jax.vmap(draw))(noise)
        return jnp.sqrt(jnp.mean(jnp.abs(images) ** 2, axis=0))

    ratio = spread(mask, acceleration) / (np.sqrt(3) * spread(jnp.ones(shape), (1, 1)))
    g = g_factor(sense.maps, acceleration, covariance=covariance)
    # The standard deviation of 3000 complex draws is known to 1 / sqrt(2 * 3000) = 1.3 %, of two of them to 1.8 %.
    np.testing.assert_allclose(ratio, g, rtol=0.075)
    assert g.max() > 1.1


def test_g_factor_is_one_for_orthogonal_coils_and_never_less(x64):
    # Two coils that each see one half: folding in two costs nothing.
    maps = np.zeros((2, 4, 6), complex)
    maps[0, :, :3], maps[1, :, 3:] = 1j, 1
    np.testing.assert_allclose(g_factor(jnp.asarray(maps), (1, 2)), 1, rtol=1e-12)
    sense, _ = _scan((6, 8), (2, 2))
    assert g_factor(sense.maps, (2, 2)).min() >= 1 - 1e-12
    np.testing.assert_allclose(g_factor(sense.maps, (1, 1)), 1, rtol=1e-12)


def test_unseen_voxels_are_zero_and_help_their_alias(x64):
    sense, x = _scan((4, 6), (1, 2), coils=4)
    maps = sense.maps.at[:, 1, 2].set(0)
    y = op.Sense(maps, sense.mask)(x)
    image, g = unalias(y, maps, (1, 2)), g_factor(maps, (1, 2))
    assert image[1, 2, 0] == 0 and g[1, 2] == 0
    np.testing.assert_allclose(g[1, 5], 1, rtol=1e-12)
    np.testing.assert_allclose(image.ravel()[np.arange(24) != 8], x.ravel()[np.arange(24) != 8], atol=1e-10)


def test_nan_in_k_space_shows():
    sense, x = _scan((4, 6), (1, 2), dtype=np.complex64)
    assert np.isnan(unalias(sense(x).at[0, 0, 0].set(np.nan), sense.maps, (1, 2))).all()


@pytest.mark.parametrize("acceleration", [(1, 4), (2,), (1, 1.5), (0, 1)])
def test_impossible_accelerations_are_refused(acceleration):
    maps = jnp.ones((2, 4, 6), jnp.complex64)
    with pytest.raises(ValueError, match="divides its size"):
        g_factor(maps, acceleration)
    with pytest.raises(ValueError, match="divides its size"):
        unalias(jnp.zeros((2, 4, 6)), maps, acceleration)


def test_k_space_of_another_shape_is_refused():
    with pytest.raises(ValueError, match="shape of the maps"):
        unalias(jnp.zeros((2, 4, 5)), jnp.ones((2, 4, 6)), (1, 2))
