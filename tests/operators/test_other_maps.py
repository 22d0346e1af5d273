"""Differences of every kind, blur, sampling, dipole and Hankel maps: adjoints, dense matrices, closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pgm_jax import operators as op
from pgm_jax.operators.blur import Blur, Downsample, gaussian_psf
from pgm_jax.operators.dipole import Dipole
from pgm_jax.operators.directional import DirectionalDifference
from pgm_jax.operators.fractional import FractionalDifference
from pgm_jax.operators.hankel import Hankel, low_rank_hankel
from pgm_jax.operators.inpainting import inpainting
from pgm_jax.operators.symmetrised import SymmetrisedGradient


def _draw(seed, *shape, complex_values=False):
    rng = np.random.default_rng(seed)
    values = rng.normal(size=shape) + (1j * rng.normal(size=shape) if complex_values else 0)
    return jnp.asarray(values, jnp.result_type(complex if complex_values else float))


CASES = {
    "symmetrised": lambda: SymmetrisedGradient((4, 5, 1), spacing=(1.0, 0.5)),
    "symmetrised_periodic_3d": lambda: SymmetrisedGradient((3, 2, 4, 1), boundary="periodic"),
    "symmetrised_thin": lambda: SymmetrisedGradient((1, 4, 2)),
    "directional": lambda: DirectionalDifference.at_angles((4, 5, 1), [0.1, 1.0, 2.5], spacing=(1.0, 2.0)),
    "fractional": lambda: FractionalDifference.create((4, 5, 1), 1.3, spacing=(1.0, 0.5)),
    "fractional_periodic": lambda: FractionalDifference.create((4, 5, 1), 1.7, boundary="periodic"),
    "fractional_zero": lambda: FractionalDifference.create((2, 3, 4, 1), 0.6, (0, 2), boundary="zero"),
    "blur": lambda: Blur(_draw(0, 3, 2), (4, 5, 2)),
    "blur_zero": lambda: Blur(_draw(0, 3, 4), (4, 5, 1), "zero"),
    "mean": lambda: Downsample((4, 6, 2), (2, 3)),
    "pick": lambda: Downsample((4, 6, 1), (2, 3), "pick"),
    "inpainting": lambda: inpainting(np.asarray([1, 0, 1.0, 0.5])[:, None], (3, 4, 1)),
    "dipole": lambda: Dipole((4, 3, 6, 1), (2.0, 1.0, 0.5), (1.0, 0.4, -0.3)),
    "hankel": lambda: Hankel((2, 4, 3), (2, 2)),
    "hankel_1d": lambda: Hankel((1, 6), (4,)),
}
UPPER_BOUNDS = ("symmetrised", "symmetrised_periodic_3d", "symmetrised_thin", "directional", "dipole")


@jax.jit
def _examine(operator, x):
    """Both dense matrices, the dot test, complex linearity, and the gram, as one program."""
    return (
        operator.matrix(),
        operator.H.matrix(),
        op.adjoint_gap(operator, jax.random.key(0)),
        operator(x) - operator(x.real) - 1j * operator(x.imag),
        operator.gram(x) - operator.adjoint(operator(x)),
        operator.norm(steps=400),
    )


@pytest.mark.parametrize("name", CASES)
def test_every_element_of_the_adjoint_and_the_norm(name, x64):
    operator = CASES[name]()
    x = _draw(1, *operator.domain.shape, complex_values=True)
    matrix, adjoint, gap, nonlinear, gram, norm = _examine(operator, x)
    np.testing.assert_allclose(adjoint, matrix.conj().T, atol=1e-12)
    assert gap < 1e-12 and np.abs(nonlinear).max() < 1e-12 and np.abs(gram).max() < 1e-11
    largest = np.linalg.norm(matrix, 2)
    if name in UPPER_BOUNDS:
        assert largest <= norm * (1 + 1e-12) and norm < 2 * largest
    else:
        np.testing.assert_allclose(norm, largest, rtol=1e-4)


@pytest.mark.parametrize("name", ["symmetrised", "fractional", "blur_zero", "dipole", "hankel"])
def test_single_precision_and_the_transforms_of_jax(name):
    operator = CASES[name]()
    gap = jax.jit(op.adjoint_gap)
    assert max(float(gap(operator, jax.random.key(seed))) for seed in range(3)) < 1e-6
    kind = jnp.issubdtype(operator.domain.dtype, jnp.complexfloating)
    x = _draw(2, *operator.domain.shape, complex_values=kind)
    y = _draw(3, *operator.range.shape, complex_values=kind)
    back = jnp.conj(jax.linear_transpose(operator, x)(jnp.conj(y))[0])
    np.testing.assert_allclose(back, operator.adjoint(y), atol=1e-5)
    batched = jax.jit(lambda a, xs: jax.vmap(a)(xs))(operator, jnp.stack([x, 2 * x]))
    np.testing.assert_allclose(batched[1], 2 * operator(x), atol=1e-5)


def test_the_symmetrised_gradient_is_that_of_the_symmetric_derivative(x64):
    """On the field (y^2, x y) of unit spacing the differences are exact: a_yy = 2 y + 1, a_xx = y, 2 a_xy = x."""
    y, x = np.meshgrid(np.arange(5.0), np.arange(6.0), indexing="ij")
    field = jnp.asarray(np.stack([y**2, x * y])[..., None])
    result = np.asarray(SymmetrisedGradient((5, 6, 1))(field))[..., 0]
    np.testing.assert_allclose(result[0][:3], (2 * y + 1)[:3], atol=1e-12)
    np.testing.assert_allclose(result[1][:, :4], y[:, :4], atol=1e-12)
    np.testing.assert_allclose(result[2][:4, :5], (x / np.sqrt(2))[:4, :5], atol=1e-12)
    assert (result[0][3:] == 0).all() and (result[1][:, 4:] == 0).all() and (result[2][4:] == 0).all()


def test_it_vanishes_on_the_gradient_of_an_affine_image_to_the_last_bit():
    y, x = np.meshgrid(np.arange(5), np.arange(6), indexing="ij")
    image = jnp.asarray((2.0 * y - 3.0 * x + 1.0)[..., None], jnp.float32)
    e = SymmetrisedGradient((5, 6, 1))
    gradient = op.FiniteDifference((5, 6, 1))(image)
    np.testing.assert_array_equal(e(gradient), 0)
    # A constant field is read as if it ended with the gradient's own entries.
    constant = jnp.broadcast_to(jnp.asarray([2.0, -3.0])[:, None, None, None], (2, 5, 6, 1))
    np.testing.assert_array_equal(e.keep(constant), gradient)
    np.testing.assert_array_equal(e(constant), 0)


@pytest.mark.parametrize("boundary", ["neumann", "periodic", "zero"])
def test_order_one_is_the_plain_difference(boundary, x64):
    shape, spacing = (5, 4, 1), (1.0, 0.5)
    fractional = FractionalDifference.create(shape, 1, None, spacing, boundary)
    plain = op.FiniteDifference(shape, None, spacing, boundary)
    x = _draw(0, *shape, complex_values=True)
    np.testing.assert_allclose(fractional(x), plain(x), atol=1e-13)
    np.testing.assert_allclose(fractional.norm(), plain.norm(), rtol=1e-12)


def test_orders_add_up_on_the_circle_and_constants_have_none(x64):
    a, b, c = (FractionalDifference.create((9, 1), q, boundary="periodic") for q in (0.6, 1.1, 1.7))
    x = _draw(0, 9, 1)
    np.testing.assert_allclose(a(b(x)[0]), -c(x), atol=1e-12)
    wave = jnp.exp(2j * jnp.pi * 2 * jnp.arange(9) / 9)[:, None]
    np.testing.assert_allclose(c(wave)[0], -((1 - np.exp(4j * np.pi / 9)) ** 1.7) * wave, atol=1e-12)
    for boundary in ("neumann", "periodic"):
        constant = FractionalDifference.create((6, 7, 1), 1.4, boundary=boundary)(jnp.ones((6, 7, 1)))
        np.testing.assert_allclose(constant, 0, atol=1e-13)


def test_the_sum_of_grunwald_and_letnikov(x64):
    """Against `-sum_k (-1)^k binomial(q, k) x[i + k]` with scipy's binomials, the last voxel repeated."""
    special = pytest.importorskip("scipy.special")
    x, far = np.random.default_rng(0).normal(size=8), 20000
    weights = (-1.0) ** np.arange(far) * special.binom(1.5, np.arange(far))
    extended = np.concatenate([x, np.full(far, x[-1])])
    exact = [-weights @ extended[i : i + far] for i in range(8)]
    result = FractionalDifference.create((8, 1), 1.5)(jnp.asarray(x)[:, None])
    # The tail of the sum falls as far^-q.
    np.testing.assert_allclose(result[0, :, 0], exact, atol=1e-6)


def test_directions_along_the_axes_are_the_gradient(x64):
    x = _draw(0, 4, 5, 1)
    plain = op.FiniteDifference((4, 5, 1))(x)
    along = DirectionalDifference.at_angles((4, 5, 1), [0.0, np.pi / 2, np.pi / 4])(x)
    np.testing.assert_allclose(along[0], plain[1], atol=1e-14)
    np.testing.assert_allclose(along[1], plain[0], atol=1e-14)
    np.testing.assert_allclose(along[2], (plain[0] + plain[1]) / np.sqrt(2), atol=1e-14)


@pytest.mark.parametrize("boundary, mode", [("periodic", "wrap"), ("zero", "constant")])
@pytest.mark.parametrize("sizes", [(3, 5), (2, 4)])
def test_blur_is_the_convolution_of_scipy(boundary, mode, sizes, x64):
    ndimage = pytest.importorskip("scipy.ndimage")
    psf, x = np.asarray(_draw(0, *sizes)), np.asarray(_draw(1, 6, 7))
    expected = ndimage.convolve(x, psf, mode=mode)
    result = Blur(jnp.asarray(psf), (6, 7, 1), boundary)(jnp.asarray(x)[..., None])
    np.testing.assert_allclose(result[..., 0], expected, atol=1e-12)


def test_a_blurred_point_is_the_psf_and_its_width_is_right(x64):
    psf = gaussian_psf((4.0, 0.0), (0.5, 1.0), radius=5.0)
    assert psf.shape[1] == 1 and psf.sum() == pytest.approx(1)
    index = np.arange(psf.shape[0]) - psf.shape[0] // 2
    # Half the maximum lies half the width from the centre.
    np.testing.assert_allclose(np.interp(2.0 / 0.5, index, psf[:, 0]), psf.max() / 2, rtol=1e-12)
    point = jnp.zeros((41, 7, 1)).at[20, 3].set(1.0)
    small = gaussian_psf((2.0, 1.0), (1.0, 1.0))
    image = Blur(jnp.asarray(small), (41, 7, 1), "zero")(point)
    half = small.shape[0] // 2
    np.testing.assert_allclose(image[20 - half : 21 + half, 1:6, 0], small, atol=1e-15)
    # A psf without negative entries has the row sums of A 1.
    np.testing.assert_allclose(Blur(jnp.asarray(small), (41, 7, 1)).row_sums(), 1, atol=1e-12)


def test_downsampling_takes_means_or_first_voxels(x64):
    x = _draw(0, 4, 6, 1)
    mean = np.asarray(x)[..., 0].reshape(2, 2, 2, 3).mean((1, 3))
    np.testing.assert_allclose(Downsample((4, 6, 1), (2, 3))(x)[..., 0], mean, atol=1e-14)
    np.testing.assert_array_equal(Downsample((4, 6, 1), (2, 3), "pick")(x), x[::2, ::3])


def test_the_dipole_of_a_wave_and_of_a_sphere(x64):
    d = Dipole((8, 6, 10, 1), (2.0, 1.0, 1.5), (2.0, 1.0, 0.0))
    z, _, x = np.meshgrid(np.arange(8) * 2.0, np.arange(6.0), np.arange(10) * 1.5, indexing="ij")
    k = np.array([1 / 16, 0, 2 / 15])
    wave = jnp.asarray(np.cos(2 * np.pi * (k[0] * z + k[2] * x)))[..., None]
    b = np.array([2.0, 1.0, 0.0]) / np.sqrt(5)
    np.testing.assert_allclose(d(wave), (1 / 3 - (k @ b) ** 2 / (k @ k)) * wave, atol=1e-12)
    np.testing.assert_allclose(d(jnp.ones((8, 6, 10, 1))), 0, atol=1e-15)


@pytest.mark.slow
def test_the_field_of_a_sphere_is_that_of_a_dipole():
    """Inside a sphere the field is 0, outside `chi / 3 (a / r)^3 (3 cos^2 - 1)`."""
    n, radius = 96, 8.0
    axis = np.arange(n) - n // 2
    z, y, x = np.meshgrid(axis, axis, axis, indexing="ij")
    r = np.sqrt(z**2 + y**2 + x**2)
    # A smooth edge stands for the partial volume of the voxels that the surface cuts.
    chi = np.clip(radius + 0.5 - r, 0, 1)
    field = np.asarray(Dipole((n, n, n, 1))(jnp.asarray(chi, jnp.float32)[..., None]))[..., 0]
    assert np.abs(field[r < radius - 3]).max() < 0.02
    shell = (r > radius + 3) & (r < 2.5 * radius)
    exact = (radius / np.maximum(r, 1)) ** 3 / 3 * (3 * (z / np.maximum(r, 1)) ** 2 - 1)
    assert np.sqrt(np.mean((field - exact)[shell] ** 2)) < 0.03 * np.sqrt(np.mean(exact[shell] ** 2)) + 1e-3


def test_the_rank_of_a_hankel_matrix_is_the_number_of_points(x64):
    """The k-space of three points is a sum of three waves, in every coil: rank 3, which the projection keeps."""
    rng = np.random.default_rng(0)
    ky, kx = np.meshgrid(np.arange(10), np.arange(9), indexing="ij")
    clean = np.zeros((2, 10, 9), complex)
    for _ in range(3):
        wave = np.exp(2j * np.pi * (rng.uniform() * ky + rng.uniform() * kx))
        clean += (rng.normal(size=2) + 1j * rng.normal(size=2))[:, None, None] * wave
    values = np.linalg.svd(Hankel((2, 10, 9), (4, 3))(jnp.asarray(clean)), compute_uv=False)
    assert values[2] > 1 and values[3] < 1e-12
    np.testing.assert_allclose(low_rank_hankel(jnp.asarray(clean), (4, 3), 3), clean, atol=1e-7)
    noise = 0.1 * (rng.normal(size=clean.shape) + 1j * rng.normal(size=clean.shape))
    better = low_rank_hankel(jnp.asarray(clean + noise), (4, 3), 3)
    assert np.linalg.norm(better - clean) < 0.6 * np.linalg.norm(noise)
    full = low_rank_hankel(jnp.asarray(clean + noise), (4, 3), 24)
    np.testing.assert_allclose(full, clean + noise, atol=1e-12)


def test_the_low_rank_projection_is_that_of_the_svd(x64):
    k = _draw(0, 2, 6, 5, complex_values=True)
    hankel = Hankel((2, 6, 5), (3, 2))
    left, values, right = np.linalg.svd(hankel(k), full_matrices=False)
    nearest = jnp.asarray((left[:, :4] * values[:4]) @ right[:4])
    np.testing.assert_allclose(
        low_rank_hankel(k, (3, 2), 4), hankel.adjoint(nearest) / hankel.counts(), atol=1e-11
    )
    batched = jax.jit(jax.vmap(lambda k: low_rank_hankel(k, (3, 2), 4)))(jnp.stack([k, 2j * k]))
    np.testing.assert_allclose(batched[1], 2j * batched[0], atol=1e-10)


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda: SymmetrisedGradient((3, 3, 1), boundary="zero").range, "neumann"),
        (lambda: DirectionalDifference((3, 3, 1), ((1.0,),))(jnp.ones((3, 3, 1))), "vectors of 2 numbers"),
        (lambda: FractionalDifference.create((3, 1), 0.0), "above 0"),
        (
            lambda: FractionalDifference.create((3, 1), 1.5, boundary="mirror"),
            "FractionalDifference.*neumann",
        ),
        (lambda: Blur(jnp.ones((5, 1)), (3, 3, 1))(jnp.ones((3, 3, 1))), "no larger than the image"),
        (lambda: Blur(jnp.ones((1, 1)), (3, 3, 1), "mirror")(jnp.ones((3, 3, 1))), "periodic"),
        (lambda: gaussian_psf((1.0,), (1.0, 1.0)), "one width"),
        (lambda: Downsample((3, 4, 1), (2, 2))(jnp.ones((3, 4, 1))), "divides"),
        (lambda: Downsample((4, 4, 1), (2, 2), "max")(jnp.ones((4, 4, 1))), '"mean" or "pick"'),
        (lambda: inpainting(np.zeros((3, 3, 1)), (3, 3, 1)), "keeps no voxel"),
        (lambda: inpainting(np.ones(4), (3, 3, 1)), "broadcast"),
        (lambda: inpainting(np.asarray(np.nan), (3, 3, 1)), "finite"),
        (lambda: Dipole((3, 3, 1)).domain, "volume"),
        (lambda: Dipole((3, 3, 3, 1), direction=(0.0, 0.0, 0.0)).domain, "direction"),
        (lambda: Hankel((1, 3, 3), (4, 1)).range, "fits into"),
        (lambda: low_rank_hankel(jnp.ones((1, 4, 4)), (2, 2), 5), r"\[1, 4\]"),
    ],
)
def test_wrong_use_says_what_is_needed(call, words):
    with pytest.raises(ValueError, match=words):
        call()
