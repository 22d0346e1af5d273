"""PICCS: its limits, closed forms, what no sample sees, positive images, transformations and bad input."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pgm_jax import operators as op
from pgm_jax.reconstruction import functionals as fn, piccs, tv


def draw(seed, *shape, complex_values=False):
    rng = np.random.default_rng(seed)
    return jnp.asarray(rng.normal(size=shape) + (1j * rng.normal(size=shape) if complex_values else 0))


def sense(height=8, width=8):
    maps = jnp.asarray(op.birdcage_maps(3, height, width, dtype=np.complex128))
    return op.Sense(maps, op.random_mask(0, width, 2, 0.25))


def test_without_a_share_it_is_total_variation(x64):
    operator, image = sense(), draw(0, 8, 8, 1, complex_values=True)
    y = operator(image)
    found, trace = piccs(operator, y, 3 * image, 0.05, 0.0, 3000, balance=1.0)
    expected, reference = tv(operator, y, 0.05, 3000, balance=1.0)
    np.testing.assert_allclose(trace.objective[-1], reference.objective[-1], rtol=1e-6)
    np.testing.assert_allclose(found, expected, atol=1e-3)


def test_with_all_of_it_the_difference_is_the_total_variation_image_of_the_residual(x64):
    operator, reference = sense(), draw(1, 8, 8, 1, complex_values=True)
    y = operator(draw(0, 8, 8, 1, complex_values=True))
    found, trace = piccs(operator, y, reference, 0.05, 1.0, 3000, balance=1.0)
    change, of_change = tv(operator, y - operator(reference), 0.05, 3000, balance=1.0)
    np.testing.assert_allclose(trace.objective[-1], of_change.objective[-1], rtol=1e-6)
    np.testing.assert_allclose(trace.residual[-1], of_change.residual[-1], rtol=1e-4)
    np.testing.assert_allclose(found, reference + change, atol=1e-3)


def test_between_them_it_is_the_minimum_that_subgradients_find(x64):
    """Two pixels: |x - y|^2 / 2 + w (s |d - r| + (1 - s) |d|) for the difference d of the pixels."""
    y, reference = jnp.asarray([[0.0], [2.0]]), jnp.asarray([[0.0], [1.5]])
    for weight, share in ((0.2, 0.7), (0.4, 0.3), (5.0, 0.7), (5.0, 0.3)):
        found, _ = piccs(op.Identity((2, 1)), y, reference, weight, share, 2000, balance=1.0)
        d = np.linspace(-1, 3, 400001)
        least = d[np.argmin((d - 2) ** 2 / 4 + weight * (share * abs(d - 1.5) + (1 - share) * abs(d)))]
        np.testing.assert_allclose(found[:, 0], [1 - least / 2, 1 + least / 2], atol=1e-4)


def test_a_reference_that_fits_stays(x64):
    operator, reference = sense(), draw(1, 8, 8, 1, complex_values=True)
    found, trace = piccs(operator, operator(reference), reference, 0.3, 1.0, 50)
    np.testing.assert_allclose(found, reference, atol=1e-12)
    np.testing.assert_allclose(trace.objective, 0, atol=1e-12)


def test_what_no_sample_sees_moves_with_what_is_seen(x64):
    """Every other pixel is seen, and the truth is the reference and a constant; the nearest image is not it."""
    reference = draw(2, 6, 6, 1)
    gains = jnp.indices((6, 6)).sum(0)[..., None] % 2 * 1.0
    operator = op.Diagonal(gains)
    found, _ = piccs(operator, gains * (reference + 0.7), reference, 1e-3, 1.0, 3000, balance=1.0)
    np.testing.assert_allclose(found, reference + 0.7, atol=2e-3)
    likelihood = op.GaussianLikelihood.create(operator, gains * (reference + 0.7), 1e-3)
    nearest = likelihood.prox(reference, 1.0, 30)
    np.testing.assert_allclose(jnp.where(gains == 0, nearest - reference, 0), 0, atol=1e-6)


def test_positive_images(x64):
    y = draw(3, 6, 6, 1)
    found, _ = piccs(op.Identity(y.shape), y, y, 0.1, 0.5, 500, keep_positive=True)
    free, _ = piccs(op.Identity(y.shape), y, y, 0.1, 0.5, 500)
    assert found.min() >= 0 > free.min()


def test_it_passes_jit_vmap_and_grad_in_single_precision():
    operator = sense()
    operator = op.Sense(operator.maps.astype(jnp.complex64), operator.mask)
    y, reference = operator(draw(0, 8, 8, 1).astype(jnp.complex64)), draw(1, 8, 8, 1).astype(jnp.complex64)
    solve = lambda y, w, share: piccs(operator, y, reference, w, share, 15, norm=1.0, balance=3.0)[0]
    images = jax.jit(jax.vmap(solve, in_axes=(0, None, None)))(jnp.stack([y, 2 * y]), 0.05, 0.7)
    assert images.dtype == jnp.complex64
    np.testing.assert_allclose(images[1], jax.jit(solve)(2 * y, 0.05, 0.7), atol=1e-4)
    total = jax.jit(lambda share: jnp.sum(jnp.abs(solve(y, 0.1, share)) ** 2))
    slope = jax.jit(jax.grad(total))(0.5)
    np.testing.assert_allclose(slope, (total(0.52) - total(0.48)) / 0.04, rtol=0.05)


def test_a_reference_of_another_shape_is_refused():
    with pytest.raises(ValueError, match="reference has shape"):
        piccs(op.Identity((4, 4, 1)), jnp.ones((4, 4, 1)), jnp.ones((4, 4)), 0.1)


@pytest.mark.parametrize("term", [fn.absolute(0.3), fn.length(0.3), fn.squared_distance(0.2), fn.box(-1, 1)])
def test_a_term_around_a_centre(term, x64):
    """Moreau's identity ties both proximal maps; where the conjugate is reached, the values add to <v, z>."""
    v, centre, step = 2 * draw(4, 2, 5), draw(5, 2, 5), 0.6
    moved = fn.around(term, centre)
    near = moved.prox(v, step)
    np.testing.assert_allclose(near, term.prox(v - centre, step) + centre, atol=1e-12)
    slope = moved.dual_prox(v / step, 1 / step)
    np.testing.assert_allclose(near + step * slope, v, atol=1e-12)
    np.testing.assert_allclose(moved.value(near) + moved.conjugate(slope), jnp.sum(near * slope), atol=1e-12)
