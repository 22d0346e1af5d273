"""Zero-shot editing with few-step models: what is known of an image replaces what a consistency function made up.

With an orthogonal map Q and a mask m of known coordinates y (Song et al. 2023, Algorithm 4),

    x0 <- Q^T (m y + (1 - m) Q x0)

after every evaluation. `samplers.consistency` then noises the whole image afresh, so that the noise of the next
state is the law's own for every noise law; `known_region`, for samplers that keep noise, renews a part of it, which
would break the radius that Student-t noise shares. The last image has the known coordinates.

Approximate: y enters through the noised state alone, so what is filled in follows what is known the better the more
levels the grid visits. On 16 pixels, neighbours correlated by .9 and every fourth known, the RMS distance of the
others to their conditional mean is 1.34 deviations without editing, 1.10, .75 and .54 on grids of 4, 16 and 64
levels, and .46 for posterior draws.
"""

import jax
import jax.numpy as jnp
import numpy as np

from pgm_jax.core import join_complex, split_complex
from pgm_jax.guidance.makers import correct
from pgm_jax.operators.trees import as_kind

_HIGHEST = jax.lax.Precision.HIGHEST


def replace_known(transform, inverse, mask, y):
    """Makes the replacement of known coordinates of an orthogonal map, `x0 <- Q^T (m y + (1 - m) Q x0)`.

    Such maps are the identity, an orthonormal Fourier or wavelet transform, a rotation of channels. A real image
    takes the real part of the inverse.

    Args:
        transform: Q, from an image to its coordinates.
        inverse: Q^T, its inverse.
        mask: zeros and ones that broadcast against the coordinates, 1 where they are known.
        y: known coordinates, of the shape of `transform(image)`; read where the mask is 1.

    Returns:
        A guidance for a consistency function, valid for every noise law.

    Raises:
        ValueError: when it is applied, if y or the mask has not the shape of the coordinates.
    """

    def update(key, process, x0, t, state):
        coordinates = transform(x0)
        _require_shape("replace_known", "y", jnp.shape(y), coordinates.shape)
        _require_broadcast(jnp.shape(mask), coordinates.shape)
        kept = jnp.broadcast_to(jnp.asarray(mask) > 0, coordinates.shape)
        return as_kind(inverse(jnp.where(kept, y, coordinates)), x0), state

    return correct(update, keep_noise=True)


def inpainting(mask, image):
    """Makes inpainting: voxels where the mask is 1 are the image's, bit for bit in the result.

    Args:
        mask: array of zeros and ones that broadcasts against the image.
        image: known values, of the shape of the image; read where the mask is 1.

    Returns:
        A guidance for a consistency function, valid for every noise law.

    Raises:
        ValueError: when it is applied, if image or mask has not the shape of the sample.
    """
    return replace_known(lambda x: x, lambda y: y, mask, image)


def super_resolution(low, factor):
    """Makes super-resolution: the mean of every block of voxels is the coarse image's.

    Q is any orthogonal map of a block's voxels whose first coordinate is their sum over the root of their number;
    only that one is known, so that `x0 <- low + (x0 - mean)`, each spread over the block.

    Args:
        low: coarse image (*spatial / factor, channel).
        factor: voxels of a block along every spatial axis, a whole number, or one for each.

    Returns:
        A guidance for a consistency function, valid for every noise law.

    Raises:
        ValueError: for factors that are not whole numbers >= 1, one an axis; when it is applied, if the sample has
            not the size of the coarse image times the factors.
    """
    low = jnp.asarray(low)
    factors = (factor,) * (low.ndim - 1) if np.ndim(factor) == 0 else tuple(factor)
    if len(factors) != low.ndim - 1 or any(f < 1 or int(f) != f for f in factors):
        raise ValueError(
            f"super_resolution needs one whole factor >= 1 an axis of {low.shape[:-1]}, got {factor}."
        )
    shape = (*(n * f for n, f in zip(low.shape, factors, strict=False)), low.shape[-1])
    blocks = [n for size, f in zip(low.shape, (*factors, 1), strict=True) for n in (size, f)]
    within = tuple(range(1, len(blocks), 2))

    def update(key, process, x0, t, state):
        _require_shape("super_resolution", "low times factor", shape, x0.shape)
        x = x0.reshape(blocks)
        details = x - jnp.mean(x, axis=within, keepdims=True)
        return (jnp.expand_dims(low, within) + details).reshape(shape), state

    return correct(update, keep_noise=True)


def channel_fill(channels, image, mixing=None):
    """Makes the filling of channels from known ones: colours from luminance, an energy or a contrast from another.

    A complex image of c channels counts as 2c real ones, real parts first, as networks see it: `channel_fill(1, x)`
    of one complex channel fills the real part from the imaginary one.

    Args:
        channels: number of the known channel, or a list of them.
        image: (*spatial, channel), of the shape of the sample; only its known (mixed) channels are read.
        mixing: orthogonal (k, k) matrix on the k real channels, whose rows are what is known or not, such as
            `(1, 1, 1) / sqrt(3)` for a grey image; the identity by default.

    Returns:
        A guidance for a consistency function, valid for every noise law.

    Raises:
        ValueError: for channels that do not exist and for a matrix that is not orthogonal; when it is applied, if
            the image has not the shape of the sample.
    """
    image = jnp.asarray(image)
    count = image.shape[-1] * (2 if jnp.iscomplexobj(image) else 1)
    chosen = np.atleast_1d(np.asarray(channels))
    if chosen.size == 0 or chosen.dtype.kind not in "iu" or chosen.min() < 0 or chosen.max() >= count:
        raise ValueError(f"channel_fill knows the real channels 0 to {count - 1}, got {channels}.")
    matrix = None if mixing is None else _orthogonal(mixing, count)

    def transform(x):
        x = split_complex(x)
        return (
            x
            if matrix is None
            else jnp.einsum("ij,...j->...i", matrix.astype(x.dtype), x, precision=_HIGHEST)
        )

    def inverse(x):
        x = (
            x
            if matrix is None
            else jnp.einsum("ji,...j->...i", matrix.astype(x.dtype), x, precision=_HIGHEST)
        )
        return join_complex(x) if jnp.iscomplexobj(image) else x

    mask = np.isin(np.arange(count), chosen).reshape((1,) * (image.ndim - 1) + (-1,))
    return replace_known(transform, inverse, mask, transform(image))


def _orthogonal(mixing, count):
    matrix = np.asarray(mixing, np.float64)
    if matrix.shape != (count, count) or not np.allclose(matrix @ matrix.T, np.eye(count), atol=1e-5):
        raise ValueError(
            f"channel_fill: mixing must be an orthogonal matrix of shape {(count, count)}, got shape "
            f"{matrix.shape}: divide its rows by their norms and make them perpendicular."
        )
    return jnp.asarray(matrix, jnp.result_type(float))


def _require_shape(name, what, given, needed):
    if tuple(given) != tuple(needed):
        raise ValueError(f"{name}: {what} has shape {tuple(given)}, but the sample's is {tuple(needed)}.")


def _require_broadcast(mask, shape):
    try:
        fits = np.broadcast_shapes(mask, shape) == tuple(shape)
    except ValueError:
        fits = False
    if not fits:
        raise ValueError(f"replace_known: a mask of shape {mask} does not broadcast to {tuple(shape)}.")
