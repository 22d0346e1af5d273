"""SENSE by unaliasing: the direct reconstruction of a regularly undersampled Cartesian scan, and its noise."""

import jax
import jax.numpy as jnp
import numpy as np

from pgm_jax.core import safe_divide
from pgm_jax.operators import centred_ifft


def unalias(y, maps, acceleration, *, offset=None, covariance=None, weight=0.0):
    """Solves the small system of every group of voxels that fold onto each other.

    With every R-th line measured, voxel j of a group of R adds `S_cj x_j exp(2 pi i j (N // 2 - offset) / R) / R`
    to the folded image z_c of coil c. For noise covariance Psi the answer is

        x = (R E^H Psi^-1 E + weight)^-1 R E^H Psi^-1 z,

    the minimiser of `||y - A x||^2_(Psi^-1) + weight ||x||^2` with A = `Sense`, which CG-SENSE approaches. A voxel
    where no coil has sensitivity is 0; a group that the coils cannot separate needs weight > 0.

    Source: K. P. Pruessmann et al., SENSE: sensitivity encoding for fast MRI, MRM 42 (1999), Eq. 4-6.

    Args:
        y: k-space (coils, *shape), 0 where it was not measured; for NaN in it the result is NaN.
        maps: sensitivities (coils, *shape).
        acceleration: R of each axis, such as (1, 3); each divides the size.
        offset: first measured line of each axis, 0 <= offset < R; by default the one that holds DC (N // 2).
        covariance: Psi, (coils, coils), Hermitian positive definite; the identity by default.
        weight: Tikhonov weight >= 0, in units of `A^H Psi^-1 A`.

    Returns:
        Image (*shape, 1).

    Raises:
        ValueError: if an acceleration does not divide its size, or shapes do not fit.
    """
    shape, factors = _check(maps, acceleration)
    if jnp.shape(y) != jnp.shape(maps):
        raise ValueError(
            f"unalias needs k-space of the shape of the maps {jnp.shape(maps)}, got {jnp.shape(y)}"
        )
    folded = centred_ifft(y, tuple(range(1, len(shape) + 1)))
    folded = folded[(slice(None), *(slice(n // r) for n, r in zip(shape, factors, strict=True)))]
    encoding = _group(maps * jnp.asarray(_phases(shape, factors, offset), folded.dtype)[None], factors)
    encoding, folded = _whiten(covariance, encoding / np.prod(factors), folded.reshape(len(maps), -1))
    count = np.prod(factors).astype(jnp.real(folded).dtype)
    normal, seen = _normal(encoding)
    right = count * jnp.einsum("cgj,cg->gj", jnp.conj(encoding), folded, precision=jax.lax.Precision.HIGHEST)
    system = count * normal + weight * jnp.eye(normal.shape[-1])[None] + _unseen(seen)
    image = jnp.linalg.solve(system, right[..., None])[..., 0]
    return _ungroup(jnp.where(seen, image, 0.0), shape, factors)[..., None]


def g_factor(maps, acceleration, *, covariance=None):
    """Computes the geometry factor: the noise that unaliasing adds beyond that of measuring less.

    `g_j = sqrt([(E^H Psi^-1 E)^-1]_jj [E^H Psi^-1 E]_jj) >= 1`. The noise of `unalias` is g sqrt(R) times that
    of the full scan, R the total acceleration.

    Source: K. P. Pruessmann et al., MRM 42 (1999), Eq. 23.

    Args:
        maps: sensitivities (coils, *shape).
        acceleration: R of each axis, such as (1, 3); each divides the size.
        covariance: Psi, (coils, coils); the identity by default.

    Returns:
        Real array (*shape,); 0 where no coil has sensitivity, huge or not finite where a group cannot be
        separated.

    Raises:
        ValueError: if an acceleration does not divide its size.
    """
    shape, factors = _check(maps, acceleration)
    encoding, _ = _whiten(covariance, _group(maps, factors), None)
    normal, seen = _normal(encoding)
    # In units of its diagonal, where an inverse keeps most digits.
    size = jnp.sqrt(jnp.where(seen, jnp.real(jnp.diagonal(normal, axis1=-2, axis2=-1)), 1.0))
    inverse = jnp.linalg.inv(normal / (size[..., None] * size[..., None, :]) + _unseen(seen))
    square = jnp.real(jnp.diagonal(inverse, axis1=-2, axis2=-1))
    return _ungroup(jnp.where(seen, jnp.sqrt(square), 0.0), shape, factors)


def gridding(operator, y, density):
    """Computes the density-compensated adjoint, `sum_c conj(S_c) F^H D y_c / sum_c |S_c|^2`: a start, not a fit.

    It is about the image where the samples cover k-space, and free of the blur of the plain adjoint.

    Source: J. I. Jackson et al., Selection of a convolution function for Fourier inversion using gridding, IEEE
    TMI 10 (1991).

    Args:
        operator: `NonCartesian` without weights.
        y: samples (coils, ...); for NaN in it the result is NaN.
        density: area of k-space of each sample, of the shape of one coil's samples; see `Trajectory`.

    Returns:
        Image of the shape of `operator.domain`; 0 where no coil has sensitivity.

    Raises:
        ValueError: if the operator has weights, which would count the density twice.
    """
    if operator.weights is not None:
        raise ValueError("gridding got a weighted operator: build one without weights, or use cg_sense")
    density = jnp.asarray(density, jnp.real(jnp.zeros((), operator.range.dtype)).dtype)
    power = jnp.sum(jnp.abs(operator.maps) ** 2, axis=0)[..., None]
    return safe_divide(operator.adjoint(density[None] * y), power)


def _check(maps, acceleration):
    shape, factors = jnp.shape(maps)[1:], tuple(acceleration)
    fits = len(factors) == len(shape) and all(
        isinstance(r, (int, np.integer)) and r >= 1 and n % r == 0
        for n, r in zip(shape, factors, strict=False)
    )
    if not fits:
        raise ValueError(
            f"unaliasing an image {shape} needs one whole acceleration an axis that divides its size, got "
            f"{factors}: pad the image, or use cg_sense"
        )
    return shape, factors


def _phases(shape, factors, offset):
    """Returns `exp(2 pi i j (N // 2 - offset) / R)` for the alias number j of every voxel, in float64."""
    phase = np.ones(shape, complex)
    for axis, (n, r) in enumerate(zip(shape, factors, strict=True)):
        first = (n // 2) % r if offset is None else offset[axis]
        alias = np.arange(n) // (n // r)
        turn = np.exp(2j * np.pi * alias * ((n // 2 - first) % r) / r)
        phase = phase * turn.reshape([-1 if a == axis else 1 for a in range(len(shape))])
    return phase


def _group(maps, factors):
    """Sorts maps (coils, *shape) into groups that fold: (coils, groups, aliases)."""
    d = len(factors)
    split = [s for n, r in zip(maps.shape[1:], factors, strict=True) for s in (r, n // r)]
    order = (0, *range(2, 2 * d + 1, 2), *range(1, 2 * d + 1, 2))
    grouped = maps.reshape(len(maps), *split).transpose(order)
    return grouped.reshape(len(maps), -1, int(np.prod(factors)))


def _ungroup(values, shape, factors):
    """Puts (groups, aliases) back into an image (*shape,)."""
    d = len(factors)
    parts = [n // r for n, r in zip(shape, factors, strict=True)]
    order = [a for axis in range(d) for a in (d + axis, axis)]
    return values.reshape(*parts, *factors).transpose(order).reshape(shape)


def _whiten(covariance, encoding, folded):
    if covariance is None:
        return encoding, folded
    lower = jnp.linalg.cholesky(jnp.asarray(covariance, encoding.dtype))

    def apply(values):
        flat = values.reshape(len(values), -1)
        return jax.scipy.linalg.solve_triangular(lower, flat, lower=True).reshape(values.shape)

    return apply(encoding), None if folded is None else apply(folded)


def _normal(encoding):
    """Returns `E^H E` (groups, aliases, aliases) and whether any coil sees a voxel (groups, aliases)."""
    normal = jnp.einsum("cgi,cgj->gij", jnp.conj(encoding), encoding, precision=jax.lax.Precision.HIGHEST)
    return normal, jnp.real(jnp.diagonal(normal, axis1=-2, axis2=-1)) > 0


def _unseen(seen):
    """Returns a unit diagonal entry for each unseen voxel, whose row and column are zero."""
    return jnp.eye(seen.shape[-1])[None] * ~seen[..., None, :]
