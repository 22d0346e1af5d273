"""Coil maps, whitening, compression and volumes: ESPIRiT against known maps and sigpy, Sense against dense sums."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pgm_jax import operators as op
from pgm_jax.operators.coils import birdcage_volume_maps
from pgm_jax.operators.mri import (
    calibration_region,
    compression_matrix,
    espirit_maps,
    mix_coils,
    noise_covariance,
    whitening_matrix,
)
from pgm_jax.reconstruction import cg_sense


def _scan(shape=(28, 32), coils=5, noise=0.0):
    """A disc with texture and phase, its true maps and its k-space."""
    maps = (
        birdcage_volume_maps(coils, *shape, rings=1) if len(shape) == 3 else op.birdcage_maps(coils, *shape)
    )
    grid = np.stack(np.indices(shape), axis=-1) / np.asarray(shape) - 0.5
    inside = np.sum(grid**2, axis=-1) < 0.4**2
    texture = 1 + 0.3 * np.sin(20 * grid[..., 0]) * np.cos(17 * grid[..., 1])
    image = inside * texture * np.exp(3j * grid[..., -1])
    k_space = np.asarray(op.Sense(jnp.asarray(maps), np.ones(shape[-1]))(jnp.asarray(image[..., None])))
    draw = np.random.default_rng(0).normal(size=(2, *k_space.shape))
    k_space = k_space + noise * (draw[0] + 1j * draw[1])
    return maps, inside, image, k_space.astype(np.complex64)


def _likeness(a, b):
    """|<a, b>| of the coil vectors of every voxel: 1 where they agree up to phase."""
    return np.abs(np.sum(np.conj(a) * b, axis=0))


def test_espirit_finds_the_maps_up_to_phase():
    maps, inside, _, k_space = _scan()
    found, value = espirit_maps(calibration_region(k_space, 20), inside.shape, kernel=5)
    assert np.min(_likeness(found, maps)[inside]) > 0.999
    assert np.min(np.asarray(value)[inside]) > 0.99 and np.max(value) < 1 + 1e-5
    size = np.sqrt(np.sum(np.abs(found) ** 2, axis=0))
    shown = np.asarray(value) >= 0.95
    np.testing.assert_allclose(size[shown], 1, atol=1e-5)
    assert np.all(size[~shown] == 0)


def test_espirit_explains_the_whole_scan():
    # Projecting the coil images on the found maps loses nothing, and the phase is smooth: CG-SENSE can use them.
    maps, inside, image, k_space = _scan()
    found, _ = espirit_maps(calibration_region(k_space, 20), inside.shape, kernel=5)
    mask = op.equispaced_mask(0, 32, 2, 0.2)
    sense = op.Sense(found, mask)
    recovered, _ = cg_sense(sense, mask * k_space, steps=30)
    gap = np.abs(np.abs(recovered[..., 0]) - np.abs(image))
    assert np.sqrt(np.mean(gap**2)) < 0.02 * np.abs(image).max()
    turns = np.asarray(found)[:, 14, 8:24]
    assert np.max(np.abs(np.diff(np.unwrap(np.angle(turns))))) < 0.5


def test_espirit_does_not_see_the_image_size_or_a_scale():
    _, inside, _, k_space = _scan()
    region = calibration_region(k_space, 20)
    small, value = espirit_maps(region, inside.shape, kernel=5)
    scaled, _ = espirit_maps(1e-4 * region, inside.shape, kernel=5)
    np.testing.assert_allclose(scaled, small, atol=1e-4)
    fine, fine_value = espirit_maps(region, (56, 64), kernel=5)
    # Voxel n of the small grid lies at voxel 2 n of the fine one, both centred at N // 2.
    np.testing.assert_allclose(fine_value[::2, ::2], value, atol=1e-5)
    np.testing.assert_allclose(_likeness(fine[:, ::2, ::2], small)[inside], 1, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("noise", [0.0, 0.02])
def test_sigpy_finds_the_same_maps(noise):
    mri = pytest.importorskip("sigpy.mri")
    _, inside, _, k_space = _scan((32, 28), noise=noise)
    app = mri.app.EspiritCalib(
        k_space,
        calib_width=20,
        kernel_width=5,
        max_iter=300,
        crop=0.9,
        output_eigenvalue=True,
        show_pbar=False,
    )
    theirs, their_value = app.run()
    ours, value = espirit_maps(calibration_region(k_space, 20), inside.shape, kernel=5, crop=0.9)
    np.testing.assert_allclose(value, np.squeeze(their_value), atol=1e-4)
    turn = np.sum(np.conj(theirs) * np.asarray(ours), axis=0)
    aligned = np.asarray(ours) * np.exp(-1j * np.angle(turn))
    np.testing.assert_allclose(aligned[:, inside], theirs[:, inside], atol=1e-3)


@pytest.mark.slow
def test_espirit_of_a_volume():
    maps, inside, _, k_space = _scan((12, 14, 16), coils=4)
    found, value = espirit_maps(calibration_region(k_space, (10, 10, 12)), inside.shape, kernel=4)
    assert np.percentile(_likeness(found, maps)[inside], 1) > 0.995 and np.max(value) < 1 + 1e-4


def test_wrong_calibrations_are_refused():
    with pytest.raises(ValueError, match="wider centre"):
        espirit_maps(np.ones((2, 5, 8)), (16, 16))
    with pytest.raises(ValueError, match="is zero"):
        espirit_maps(np.zeros((2, 8, 8)), (16, 16))
    with pytest.raises(ValueError, match="not finite"):
        espirit_maps(np.full((2, 8, 8), np.nan), (16, 16))
    with pytest.raises(ValueError, match="does not fit"):
        calibration_region(np.ones((2, 8, 8)), 9)


def test_calibration_region_is_centred_on_dc():
    for n, size in [(9, 4), (8, 5), (8, 8)]:
        k_space = np.zeros((1, n, n))
        k_space[0, n // 2, n // 2] = 1
        region = calibration_region(k_space, size)
        assert region.shape == (1, size, size) and region[0, size // 2, size // 2] == 1


def _covariance(coils, seed=0):
    rng = np.random.default_rng(seed)
    factor = rng.normal(size=(coils, coils)) + 1j * rng.normal(size=(coils, coils))
    return factor @ factor.conj().T + coils * np.eye(coils)


def test_whitening_leaves_unit_noise_per_real_component():
    covariance, rng = _covariance(4), np.random.default_rng(1)
    white = (rng.normal(size=(4, 100000)) + 1j * rng.normal(size=(4, 100000))) / np.sqrt(2)
    noise = np.linalg.cholesky(covariance) @ white
    # Relative standard errors of 1e5 complex draws are 0.3 %.
    estimate = noise_covariance(noise)
    assert np.linalg.norm(estimate - covariance) < 0.02 * np.linalg.norm(covariance)
    matrix = whitening_matrix(covariance)
    np.testing.assert_allclose(matrix @ covariance @ matrix.conj().T, 2 * np.eye(4), atol=1e-12)
    whitened = np.asarray(mix_coils(matrix, noise.astype(np.complex64)))
    np.testing.assert_allclose(np.std(whitened.real), 1, rtol=0.01)
    np.testing.assert_allclose(np.std(whitened.imag), 1, rtol=0.01)


def test_whitened_scan_has_the_generalised_least_squares_likelihood(x64):
    covariance, matrix = _covariance(3), whitening_matrix(_covariance(3))
    maps = op.birdcage_maps(3, 4, 5, dtype=np.complex128)
    rng = np.random.default_rng(2)
    x, y = (rng.normal(size=s) + 1j * rng.normal(size=s) for s in ((4, 5, 1), (3, 4, 5)))
    plain, whitened = (op.Sense(m, np.ones(5)) for m in (maps, mix_coils(matrix, maps)))
    likelihood = op.GaussianLikelihood.create(whitened, mix_coils(matrix, y), 1.0)
    residual = y - np.asarray(plain(jnp.asarray(x)))
    weighted = np.einsum("cd,dhw->chw", np.linalg.inv(covariance), residual)
    expected = 2 * np.asarray(plain.adjoint(jnp.asarray(weighted)))
    np.testing.assert_allclose(likelihood.grad(jnp.asarray(x)), expected, atol=1e-10)


def test_compression_keeps_what_few_coils_hold():
    rng = np.random.default_rng(3)
    few = rng.normal(size=(2, 6, 7)) + 1j * rng.normal(size=(2, 6, 7))
    k_space = np.einsum("cd,dhw->chw", rng.normal(size=(5, 2)), few)
    matrix = compression_matrix(k_space, 2)
    np.testing.assert_allclose(matrix @ matrix.conj().T, np.eye(2), atol=1e-12)
    virtual = matrix @ k_space.reshape(5, -1)
    np.testing.assert_allclose(matrix.conj().T @ virtual, k_space.reshape(5, -1), atol=1e-12)
    energy = np.sum(np.abs(compression_matrix(k_space, 5) @ k_space.reshape(5, -1)) ** 2, axis=1)
    assert energy[0] >= energy[1] and np.all(energy[2:] < 1e-20)


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda: noise_covariance(np.ones((4, 3))), "do not determine"),
        (lambda: noise_covariance(np.full((2, 9), np.inf)), "not finite"),
        (lambda: whitening_matrix(np.diag([1.0, 0.0])), "positive definite"),
        (lambda: whitening_matrix(np.array([[1.0, 1.0], [0.0, 1.0]])), "Hermitian"),
        (lambda: compression_matrix(np.ones((3, 5)), 4), "1 to 3 coils"),
    ],
)
def test_wrong_coil_data_are_refused(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_birdcage_volume_is_normalised_and_turned_between_rings():
    maps = birdcage_volume_maps(6, 4, 8, 8, rings=2)
    np.testing.assert_allclose(np.sum(np.abs(maps) ** 2, axis=0), 1, atol=1e-6)
    # Mirrored in z, ring 0 becomes ring 1 turned by half a gap; coil 0 of ring 0 faces +x.
    strongest = np.argmax(np.abs(maps[:3, 0]).sum(axis=(1, 2)))
    assert np.abs(maps[strongest, 0]).sum() > np.abs(maps[strongest, 3]).sum()
    assert np.abs(maps[0, 0, 4, 7]) > np.abs(maps[0, 0, 4, 0])
    with pytest.raises(ValueError, match="rings"):
        birdcage_volume_maps(5, 2, 2, 2, rings=2)


@pytest.mark.parametrize("mask_shape", [(), (4,), (3, 1), (5, 1, 1), (5, 1, 4), (5, 3, 4)])
def test_sense_of_a_volume_is_the_conjugate_sum_formula(mask_shape, x64):
    shape = (5, 3, 4)
    maps = birdcage_volume_maps(2, *shape, dtype=np.complex128)
    rng = np.random.default_rng(0)
    mask = rng.uniform(size=mask_shape)
    x = jnp.asarray(rng.normal(size=(*shape, 1)) + 1j * rng.normal(size=(*shape, 1)))
    sense = op.Sense(jnp.asarray(maps), mask)
    k = [np.arange(n) - n // 2 for n in shape]
    dft = [np.exp(-2j * np.pi * np.outer(i, i) / len(i)) / np.sqrt(len(i)) for i in k]
    expected = mask * np.einsum("kd,mh,lw,cdhw->ckml", *dft, maps * x[None, ..., 0])
    np.testing.assert_allclose(sense(x), expected, atol=1e-12)
    np.testing.assert_allclose(sense.gram(x), sense.adjoint(sense(x)), atol=1e-12)
    assert op.adjoint_gap(sense, jax.random.key(0)) < 1e-12
    assert sense.domain.shape == (*shape, 1) and sense.range.shape == (2, *shape)


@pytest.mark.parametrize(
    "maps, mask, words",
    [
        (np.ones((1, 4, 4)), np.zeros(4), "mask is empty"),
        (np.ones((1, 4, 4)), np.array([1, np.nan, 0, 0]), "not finite"),
        (np.full((1, 4, 4), np.inf), np.ones(4), "not finite"),
        (np.ones((1, 4, 4)), np.ones(5), "broadcasts"),
        (np.ones((4, 4)), np.ones(4), "maps of shape"),
    ],
)
def test_wrong_scans_are_refused(maps, mask, words):
    with pytest.raises(ValueError, match=words):
        op.Sense.create(maps, mask)


def test_an_empty_mask_inside_jit_measures_nothing():
    # Stated behaviour where the numbers cannot be seen: the image of no data is zero, not NaN.
    maps = jnp.asarray(op.birdcage_maps(2, 4, 4))
    image, _ = jax.jit(lambda mask: cg_sense(op.Sense(maps, mask), jnp.zeros((2, 4, 4)), 3))(jnp.zeros(4))
    np.testing.assert_array_equal(image, 0)
    unseen = maps.at[:, 1, 2].set(0)
    sense = op.Sense.create(unseen, np.ones(4))
    image, _ = cg_sense(sense, sense(jnp.ones((4, 4, 1))), 5)
    assert image[1, 2, 0] == 0 and np.allclose(image[0, 0, 0], 1, atol=1e-5)


@pytest.mark.slow
def test_sigpy_sense_agrees():
    mri = pytest.importorskip("sigpy.mri")
    maps, mask = op.birdcage_maps(3, 8, 10), op.random_mask(0, 10, 2, 0.2)
    rng = np.random.default_rng(0)
    x = (rng.normal(size=(8, 10)) + 1j * rng.normal(size=(8, 10))).astype(np.complex64)
    theirs = mri.linop.Sense(maps, weights=np.broadcast_to(mask, (8, 10)))
    ours = op.Sense(jnp.asarray(maps), mask)
    np.testing.assert_allclose(ours(jnp.asarray(x)[..., None]), theirs * x, atol=1e-5)
    y = np.asarray(ours(jnp.asarray(x)[..., None]))
    np.testing.assert_allclose(ours.adjoint(y)[..., 0], theirs.H * y, atol=1e-5)
