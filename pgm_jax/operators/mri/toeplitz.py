"""The normal operator of a non-Cartesian scan as one convolution (a Toeplitz matrix in every axis)."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np

from pgm_jax.operators.mri.nufft import fast_length


def toeplitz_kernel(transform, trajectory, weights=None):
    """Computes the transfer function of `F^H W F` of a non-uniform Fourier transform F.

    `F^H W F` convolves with `h[j] = sum_m w_m exp(2 pi i k_m . j / N) / N` for |j_a| < N_a. Each of the 2^d
    blocks of h is one adjoint transform of size N, of the weights turned by the phase that shifts the block to
    the field of view; one of size 2N would need eight times the memory in a volume.

    Args:
        transform: `NUFFT` or `NUDFT` F.
        trajectory: its (..., d) points in cycles per field of view.
        weights: w >= 0 that broadcast to the samples; 1 by default.

    Returns:
        Real array of the padded shape, at least 2 N_a - 1 along axis a: h is Hermitian, so its FFT is real.
    """
    shape, real = transform.shape, jnp.real(jnp.zeros((), transform.range.dtype)).dtype
    weights = jnp.broadcast_to(jnp.asarray(1.0 if weights is None else weights, real), transform.range.shape)
    shifts = np.asarray(list(itertools.product(*[(n // 2, n // 2 - n) for n in shape])))
    # Phases in float64 on the host: they reach N / 4 cycles an axis.
    cycles = np.einsum("...d,sd->s...", np.asarray(trajectory, float) / np.asarray(shape), shifts)
    turns = jnp.asarray(np.exp(2j * np.pi * (cycles % 1)), transform.range.dtype)
    blocks = jax.lax.map(lambda turn: transform.adjoint(weights * turn)[..., 0], turns)
    kernel = blocks.reshape(*[2] * len(shape), *shape) / np.sqrt(np.prod(shape)).astype(real)
    for n in shape:
        kernel = _join(kernel, len(shape) - 1, n)
    return jnp.real(jnp.fft.fftn(kernel))


def _join(kernel, axis, n):
    """Joins the first axis, (lags 0 ... n - 1, lags -n ... -1), into one of the axes after it."""
    ahead, behind = kernel
    # Lag -n is never used, and would spoil the symmetry.
    behind = jax.lax.slice_in_dim(behind, 1, n, axis=axis)
    gap = fast_length(2 * n - 1) - (2 * n - 1)
    behind = jnp.pad(behind, [(gap, 0) if a == axis else (0, 0) for a in range(behind.ndim)])
    return jnp.concatenate([ahead, behind], axis=axis)


def toeplitz_apply(kernel, x):
    """Convolves an image with a kernel of `toeplitz_kernel`: two FFTs of about twice the size.

    Args:
        kernel: real transfer function of the padded shape.
        x: image (*shape,), without a channel.

    Returns:
        Complex image (*shape,).
    """
    padded = [(0, p - n) for p, n in zip(kernel.shape, x.shape, strict=True)]
    spectrum = kernel * jnp.fft.fftn(jnp.pad(x, padded))
    return jnp.fft.ifftn(spectrum)[tuple(slice(n) for n in x.shape)]
