"""Mixing of coils: noise covariance, whitening and compression. Matrices are made on the host."""

import jax
import jax.numpy as jnp
import numpy as np

from pgm_jax.operators.mri.checks import require_finite


def noise_covariance(noise):
    """Estimates `Psi = E n n^H` of a noise scan, with its mean taken as zero.

    Args:
        noise: samples (coils, ...) measured without excitation.

    Returns:
        complex128 array (coils, coils), Hermitian.

    Raises:
        ValueError: if there are fewer samples than coils, or entries that are not finite.
    """
    noise = np.asarray(noise, np.complex128)
    require_finite(noise, "the noise scan")
    flat = noise.reshape(len(noise), -1)
    if flat.shape[1] < len(flat):
        raise ValueError(
            f"{flat.shape[1]} noise samples do not determine the covariance of {len(flat)} coils: "
            "measure at least as many as coils, better a hundred times that"
        )
    return flat @ flat.conj().T / flat.shape[1]


def whitening_matrix(covariance):
    """Computes `sqrt(2) L^-1` with `Psi = L L^H`, which makes the noise of every coil independent.

    Apply it with `mix_coils` to the k-space and to the maps. Whitened noise has standard deviation 1 per REAL
    component, so its likelihood is `GaussianLikelihood(operator, y, noise_std=1.0)`.

    Source: K. P. Pruessmann et al., MRM 46 (2001), its virtual channels by Cholesky decomposition.

    Args:
        covariance: Psi = E n n^H, (coils, coils), Hermitian positive definite, such as `noise_covariance`.

    Returns:
        complex128 array (coils, coils).

    Raises:
        ValueError: if the covariance is not square, Hermitian, finite or positive definite.
    """
    covariance = np.asarray(covariance, np.complex128)
    require_finite(covariance, "the noise covariance")
    square = covariance.ndim == 2 and covariance.shape[0] == covariance.shape[1]
    if not square or not np.allclose(covariance, covariance.conj().T, atol=1e-6 * np.abs(covariance).max()):
        raise ValueError(f"a noise covariance is a Hermitian matrix (coils, coils), got {covariance.shape}")
    try:
        lower = np.linalg.cholesky(covariance)
    except np.linalg.LinAlgError:
        raise ValueError(
            "the noise covariance is not positive definite: drop dead coils, or compress to fewer"
        ) from None
    return np.sqrt(2) * np.linalg.inv(lower)


def compression_matrix(k_space, coils: int):
    """Computes the orthonormal combinations of coils that hold the most energy.

    Source: M. Buehrer et al., Array compression for MRI with large coil arrays, MRM 57 (2007), by singular
    values of the data.

    Args:
        k_space: whitened samples (channels, ...), such as the calibration region.
        coils: number of virtual coils, at most the number of channels.

    Returns:
        complex128 array (coils, channels) with orthonormal rows, the strongest first.

    Raises:
        ValueError: if more coils are asked for than there are channels, or entries are not finite.
    """
    flat = np.asarray(k_space, np.complex128).reshape(np.shape(k_space)[0], -1)
    require_finite(flat, "k-space")
    if not 1 <= coils <= len(flat):
        raise ValueError(f"{len(flat)} channels compress to 1 to {len(flat)} coils, got {coils}")
    vectors = np.linalg.eigh(flat @ flat.conj().T)[1]
    return vectors[:, ::-1][:, :coils].conj().T


def mix_coils(matrix, values):
    """Computes `sum_c M_dc v_c`, k-space or maps in virtual coils.

    Args:
        matrix: (virtual coils, coils).
        values: (coils, ...) k-space or maps.

    Returns:
        Array (virtual coils, ...) in the dtype of `values`.
    """
    values = jnp.asarray(values)
    matrix = jnp.asarray(matrix, values.dtype)
    return jnp.tensordot(matrix, values, 1, precision=jax.lax.Precision.HIGHEST)
