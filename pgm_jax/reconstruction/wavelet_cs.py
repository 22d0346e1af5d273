"""Compressed sensing with wavelets, by FISTA and with random shifts."""

from typing import Any

import jax
import jax.numpy as jnp

from pgm_jax.operators.wavelet import Wavelet
from pgm_jax.reconstruction.fista import fista_iteration
from pgm_jax.reconstruction.functionals import Functional, absolute, zero
from pgm_jax.reconstruction.iteration import Iteration, run


def wavelet_cs(
    operator, y, weight, steps: int = 100, x_init=None, norm=None, wavelet=None, *, key=None, rtol: Any = 0.0
):
    """Computes `argmin_x ||A x - y||^2 / 2 + weight sum |detail coefficients of W x|`.

    W is an orthogonal wavelet transform, so that the proximal map is exact: transform, shrink the magnitudes of
    the details (complex ones keep their phase, the coarse band is left alone), transform back. The steps are
    those of `fista`.

    With a key, every step shifts the image by a random number of voxels along each axis before it transforms it,
    and back, and the image is the average of the iterates, iterate k with weight k. That averages over the grids
    on which the transform may be laid and removes its blocks; for denoising it is cycle spinning.

    The same minimum by other roads: `pdhg(stack(A, W), (squared_distance(y), absolute(weight * W.details())))`,
    or `admm` with W as its transform.

    Sources: M. Lustig, D. Donoho and J. Pauly, Sparse MRI, MRM 58 (2007), Eq. 3; random shifts, M. Figueiredo
    and R. Nowak, An EM algorithm for wavelet-based image restoration, IEEE TIP 12 (2003), section 5; cycle
    spinning, R. Coifman and D. Donoho, Translation-invariant de-noising (1995).

    Args:
        operator: linear operator A with one array as its measurement; in `RealImage` for a real image.
        y: measurement of the shape of `operator.range`.
        weight: weight >= 0, in units of y^2 over those of the image.
        steps: number of iterations, each one A, one A^H, one W and one W^H.
        x_init: start; `A^H y / ||A||^2` by default.
        norm: `operator.norm()`, if known.
        wavelet: `Wavelet` of the image's shape, or another orthogonal operator with `details()`; Daubechies' db4
            with three levels by default, for sizes divisible by 8.
        key: PRNG key of the shifts; None for none.
        rtol: tolerance of the stopping rule of `run`, or 0 for all steps.

    Returns:
        (image, `Trace`): objective as above, of the iterate at the shift of its step; residual the norm of the
        generalised gradient, which tends to 0 without shifts.
    """
    return run(wavelet_cs_iteration(operator, y, weight, x_init, norm, wavelet, key=key), steps, rtol=rtol)


def wavelet_cs_iteration(operator, y, weight, x_init=None, norm=None, wavelet=None, *, key=None) -> Iteration:
    """Builds the iteration of `wavelet_cs`.

    Args:
        operator: as in `wavelet_cs`.
        y: as in `wavelet_cs`.
        weight: as in `wavelet_cs`.
        x_init: as in `wavelet_cs`.
        norm: as in `wavelet_cs`.
        wavelet: as in `wavelet_cs`.
        key: as in `wavelet_cs`.

    Returns:
        `Iteration`.
    """
    wavelet = Wavelet(operator.domain.shape) if wavelet is None else wavelet
    sparse = sparse_in(wavelet, weight)
    # The power iteration's estimate comes from below.
    norm = jnp.sqrt(1.01) * operator.norm() if norm is None else norm
    if key is None:
        return fista_iteration(operator, y, sparse, x_init, norm)
    still = fista_iteration(operator, y, zero(), x_init, norm)
    spatial = jnp.asarray(operator.domain.shape[:-1])

    def step(carry):
        state, mean, count = carry
        shift = jax.random.randint(jax.random.fold_in(key, count), spatial.shape, 0, spatial)
        # What another shift cost says nothing about this one, so the step is taken whatever it costs.
        state = state._replace(objective=jnp.full_like(state.objective, jnp.inf))
        state = fista_iteration(operator, y, shifted(sparse, shift), x_init, norm).step(state)
        part = 2 / (count.astype(jnp.real(mean).dtype) + 2)
        return state, mean + part * (state.x - mean), count + 1

    def init():
        start = still.init()
        return start, start.x, jnp.int32(0)

    return Iteration(init, step, lambda carry: carry[1], lambda carry: still.measure(carry[0]))


def sparse_in(wavelet, weight) -> Functional:
    """Returns `f(x) = weight sum |details of W x|` as a term of the image, for orthogonal W only.

    Args:
        wavelet: orthogonal operator with `details()`, such as `Wavelet`.
        weight: weight >= 0.
    """
    term = absolute(weight * wavelet.details())

    def within(function):
        return lambda v, step: wavelet.adjoint(function(wavelet(v), step))

    return Functional(
        lambda x: term.value(wavelet(x)),
        within(term.prox),
        within(term.dual_prox),
        lambda z: term.conjugate(wavelet(z)),
    )


def shifted(term: Functional, shift) -> Functional:
    """Returns `f(S x)` with the circular shift S, `(S x)[i] = x[i - shift]`, of an image's leading axes.

    Args:
        term: the function f of an image.
        shift: whole number of voxels along each of the leading axes; may be traced.
    """
    axes = tuple(range(len(shift)))

    def within(function):
        return lambda v, step: jnp.roll(function(jnp.roll(v, shift, axes), step), -shift, axes)

    return Functional(
        lambda x: term.value(jnp.roll(x, shift, axes)),
        within(term.prox),
        within(term.dual_prox),
        lambda z: term.conjugate(jnp.roll(z, shift, axes)),
        term.is_coercive,
    )
