"""Operators by their singular values, `A = U diag(s) V^H`: what spectral methods such as DDRM need."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from pgm_jax.core import real_size, safe_divide
from pgm_jax.operators.elementary import Diagonal, Identity, Matrix, RealImage
from pgm_jax.operators.sense import Sense

# Up to this many unknowns, or data, a dense decomposition is computed.
_DENSE = 4096


class Spectral(struct.PyTreeNode):
    """The singular value decomposition of an operator; build it with `spectral`, or by hand.

    V has orthonormal columns, `V^H V = I`, and need not be complete: what it leaves out, A does not see.

    Attributes:
        values: s >= 0, real, of the shape of the coordinates; 0 where A sees nothing.
        basis: linear operator `x -> V^H x`, from an image to the coordinates.
        left: linear operator `y -> U^H y`, from a measurement to the coordinates.
    """

    values: Any
    basis: Any
    left: Any

    def apply(self, x):
        """Computes `A x = U s V^H x`, a measurement."""
        return self.left.adjoint(self.values * self.basis(x))

    def pseudo_inverse(self, y):
        """Computes the coordinates `s^+ U^H y`, 0 where s is 0."""
        return safe_divide(self.left(y), self.values)


def spectral(operator) -> Spectral:
    """Builds the singular value decomposition of an operator.

    Closed for `Diagonal` (inpainting) and for `Sense` with one coil of modulus 1 (masked Fourier transform of a
    complex image); dense, in O(n^3), for any other operator of at most 4096 unknowns and data.

    Args:
        operator: linear operator with one array as its measurement. A real image seen by a complex operator is
            a `RealImage` of it.

    Returns:
        `Spectral`.

    Raises:
        ValueError: for a larger operator without a closed form.
    """
    if isinstance(operator, Diagonal):
        size = jnp.abs(operator.values)
        phase = safe_divide(operator.values, size, 1.0)
        return Spectral(size, Identity(tuple(size.shape)), Diagonal(jnp.conj(phase)))
    if isinstance(operator, Sense) and _is_one_flat_coil(operator):
        space = operator.range
        whole = operator.replace(mask=jnp.ones((1, 1)))
        mask = jnp.broadcast_to(
            jnp.asarray(operator.mask, jnp.zeros((), space.dtype).real.dtype), space.shape
        )
        return Spectral(mask, whole, Identity(space.shape))
    return _dense(operator)


def _is_one_flat_coil(operator):
    if operator.maps.shape[0] != 1 or isinstance(operator.maps, jax.core.Tracer):
        return False
    return bool(np.allclose(np.abs(np.asarray(operator.maps)), 1.0, rtol=1e-5))


def _dense(operator):
    domain, data = operator.domain, operator.range
    if isinstance(data, tuple) or max(real_size(domain), real_size(data)) > _DENSE:
        raise ValueError(
            f"spectral: {type(operator).__name__} from {domain.shape} has no closed decomposition and is too "
            f"large for a dense one ({_DENSE} numbers, one measurement): build Spectral by hand, or use dds."
        )
    matrix = operator.matrix()
    rows, columns = matrix.shape
    # A complex measurement of a real image is a real one of twice the size.
    real_image = jnp.iscomplexobj(matrix) and not jnp.issubdtype(domain.dtype, jnp.complexfloating)
    if real_image:
        matrix = jnp.concatenate([jnp.real(matrix), jnp.imag(matrix)])
    left, values, right = jnp.linalg.svd(matrix, full_matrices=False)
    values = jnp.where(values > max(rows, columns) * jnp.finfo(values.dtype).eps * values[0], values, 0.0)
    basis = Matrix(right, image_shape=domain.shape)
    if real_image:
        left = jax.lax.complex(left[:rows], left[rows:])
        return Spectral(values, basis, RealImage(Matrix(left, data_shape=data.shape)).H)
    return Spectral(values, basis, Matrix(left, data_shape=data.shape).H)
