"""Dense linear algebra of small problems, over the real components of images and measurements.

A complex array is its real embedding `[Re; Im]`, so real images with complex operators and complex images
with improper covariances need no cases.
"""

import jax
import jax.numpy as jnp
import numpy as np

from pgm_jax.core import join_complex, split_complex

HIGHEST = jax.lax.Precision.HIGHEST


def to_real(x):
    """Returns the real components of an array as a vector.

    Args:
        x: array of n entries.

    Returns:
        (n,) for a real array, `[Re; Im]` (2 n,) for a complex one.
    """
    return split_complex(jnp.reshape(x, (-1,)))


def from_real(vector, shape, is_complex):
    """Inverts `to_real`.

    Args:
        vector: (n,) or (2 n,) real components.
        shape: shape of the array.
        is_complex: whether it is complex.

    Returns:
        Array of the given shape.
    """
    return jnp.reshape(join_complex(vector) if is_complex else vector, shape)


def spread(value, shape, is_complex, dtype):
    """Returns a real scalar or array as one number for each real component of an array of `shape`.

    Args:
        value: real array that broadcasts against the shape.
        shape: shape of the array.
        is_complex: whether its entries have two real components.
        dtype: real dtype of the result.

    Returns:
        (n,) or (2 n,) vector.
    """
    flat = jnp.reshape(jnp.broadcast_to(jnp.asarray(value, dtype), shape), (-1,))
    return jnp.concatenate([flat, flat]) if is_complex else flat


def measured(y):
    """Returns the real components of a measurement, an array or a tuple of arrays, as one vector.

    Args:
        y: array or pytree of arrays, real or complex.

    Returns:
        (M,) vector.
    """
    return jnp.concatenate([to_real(jnp.asarray(leaf)) for leaf in jax.tree.leaves(y)])


def noise_variances(noise_std, y, dtype):
    """Returns the noise variance of every entry of a measurement.

    Args:
        noise_std: standard deviation per real component: a number, an array that broadcasts against y, or a
            pytree of them like y.
        y: measurement.
        dtype: real dtype.

    Returns:
        Pytree of real arrays like y.
    """
    leaves, tree = jax.tree.flatten(y)
    given = jax.tree.leaves(noise_std)
    given = given if len(given) == len(leaves) else given * len(leaves)
    square = lambda s, leaf: jnp.broadcast_to(jnp.asarray(s, dtype) ** 2, leaf.shape)
    return jax.tree.unflatten(tree, [square(s, leaf) for s, leaf in zip(given, leaves, strict=True)])


def real_matrix(operator, shape, is_complex, dtype):
    """Builds the matrix of an operator between real components, column by column.

    Args:
        operator: linear map of an image.
        shape: shape of the image.
        is_complex: whether the image is complex.
        dtype: real dtype.

    Returns:
        (M, N) real matrix.
    """
    size = int(np.prod(shape)) * (2 if is_complex else 1)
    column = lambda e: measured(operator(from_real(e, shape, is_complex)))
    return jax.vmap(column, out_axes=1)(jnp.eye(size, dtype=dtype)).astype(dtype)


def condition(mean, cov, matrix, data, noise_variance):
    """Conditions a Gaussian on `data = matrix x + n`, with Joseph's form of the covariance.

    `K = S A^T (A S A^T + R)^-1`, mean `m + K (y - A m)`, covariance
    `(I - K A) S (I - K A)^T + K R K^T`, evidence `N(y; A m, A S A^T + R)`.

    Args:
        mean: (N,).
        cov: (N, N).
        matrix: (M, N).
        data: (M,).
        noise_variance: (M,) diagonal of R.

    Returns:
        `(mean, cov, log_evidence)`.
    """
    dot = lambda a, b: jnp.matmul(a, b, precision=HIGHEST)
    crossed = dot(cov, matrix.T)
    lower = jnp.linalg.cholesky(dot(matrix, crossed) + jnp.diag(noise_variance))
    gain = jax.scipy.linalg.cho_solve((lower, True), crossed.T).T
    residual = data - dot(matrix, mean)
    white = jax.scipy.linalg.solve_triangular(lower, residual, lower=True)
    kept = jnp.eye(mean.size, dtype=cov.dtype) - dot(gain, matrix)
    new_cov = dot(dot(kept, cov), kept.T) + dot(gain * noise_variance[None, :], gain.T)
    log_det = 2 * jnp.sum(jnp.log(jnp.diagonal(lower)))
    log_evidence = -0.5 * (jnp.sum(white**2) + log_det + data.size * jnp.log(2 * jnp.pi))
    return mean + dot(gain, residual), 0.5 * (new_cov + new_cov.T), log_evidence


def measurement(operator, y, noise_std, shape, is_complex, dtype):
    """Writes a Gaussian measurement over real components.

    Args:
        operator: linear map A of an image.
        y: measurement, of the shape of A(x).
        noise_std: standard deviation per real component of y: a scalar, or an array that broadcasts.
        shape: shape of the image.
        is_complex: whether the image is complex.
        dtype: real dtype.

    Returns:
        `(matrix, data, noise_variance)` of shapes (M, N), (M,), (M,).

    Raises:
        ValueError: if y has another number of real components than A(x).
    """
    matrix = real_matrix(operator, shape, is_complex, dtype)
    y = jax.tree.map(jnp.asarray, y)
    data = measured(y).astype(dtype)
    if data.size != matrix.shape[0]:
        raise ValueError(
            f"posterior: y has {data.size} real components, the operator gives {matrix.shape[0]} for an "
            f"image of shape {shape}: is y real where A(x) is complex, or from another operator?"
        )
    # A complex entry has the same variance in both of its components.
    doubled = jax.tree.map(
        lambda v, leaf: v + 1j * v if jnp.iscomplexobj(leaf) else v, noise_variances(noise_std, y, dtype), y
    )
    return matrix, data, measured(doubled)
