"""Small array functions that the contracts need: inner products, safe ratios, host or device arithmetic."""

import jax
import jax.numpy as jnp
import numpy as np


def namespace(*values):
    """Returns numpy if every value lives on the host (Python or numpy numbers), else `jax.numpy`.

    Schedules are written once and evaluate in float64 on the host, where grids are built, and in the
    dtype of the traced time inside a compiled sampler.

    Args:
        *values: times and schedule parameters of any shape; pytrees are searched for arrays.

    Returns:
        The module `numpy` or `jax.numpy`.
    """
    leaves = jax.tree.leaves(values)
    return jnp if any(isinstance(leaf, jax.Array) for leaf in leaves) else np


def inner(a, b):
    """Computes the real Hermitian inner product `Re sum(conj(a) b)` over every axis.

    Complex arrays count as two real components, so this is the Euclidean product of the real vectors.

    Args:
        a: real or complex array of any shape.
        b: array of the same shape.

    Returns:
        Real scalar in the real dtype of `a`.
    """
    return jnp.sum(jnp.real(jnp.conj(a) * b))


def squared_norm(a):
    """Computes `sum |a|^2` over every axis; see `inner`.

    Args:
        a: real or complex array of any shape.

    Returns:
        Real scalar.
    """
    return inner(a, a)


def real_size(x) -> int:
    """Counts the real numbers in `x`: its size, twice that for complex arrays.

    Args:
        x: real or complex array of any shape.

    Returns:
        Python integer.
    """
    return int(np.prod(x.shape)) * (2 if jnp.issubdtype(x.dtype, jnp.complexfloating) else 1)


def split_complex(x):
    """Returns a complex array of c last entries as 2c real ones, real parts first; a real one as it is.

    Args:
        x: (..., c) array, such as an image with its channels last.

    Returns:
        (..., 2c) real, or x.
    """
    xp = namespace(x)
    return xp.concatenate([x.real, x.imag], axis=-1) if xp.iscomplexobj(x) else x


def join_complex(x):
    """Returns 2c real last entries as c complex ones; the inverse of `split_complex`.

    Args:
        x: (..., 2c) real array; one of less than 32 bits is widened to float32.

    Returns:
        (..., c) complex.
    """
    return jax.lax.complex(*jnp.split(x.astype(jnp.promote_types(x.dtype, jnp.float32)), 2, axis=-1))


def safe_divide(numerator, denominator, otherwise=0.0):
    """Computes `numerator / denominator`, and `otherwise` where the denominator is zero.

    The denominator is replaced before the division, so that gradients stay finite as well.

    Args:
        numerator: array.
        denominator: array that broadcasts against the numerator.
        otherwise: value taken where the denominator is zero.

    Returns:
        Array of the broadcast shape.
    """
    xp = namespace(numerator, denominator)
    zero = denominator == 0
    return xp.where(zero, otherwise, numerator / xp.where(zero, 1.0, denominator))
