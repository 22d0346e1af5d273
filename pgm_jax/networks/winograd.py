"""3 by 3 convolutions by Winograd's minimal filtering, F(4 x 4, 3 x 3), for many channels on one CPU device.

A tile of 4 by 4 results takes 36 products a pair of channels instead of 144. Along each axis, with 6 values d of
the input, 3 taps g and 4 results y (Lavin and Gray 2016, Eq. 8; Winograd 1980),

    y = A^T [(G g) * (B^T d)]

and, the sum over y d g being the same from all three sides, the derivative along the taps is
`G^T [(B^T d) * (A y)]`. What remains are 36 matrix products over channels or over tiles.

The convolution and that derivative are two bilinear JAX primitives, closed under transposition: all derivatives of
any order are the two again. (The automatic transpose of the transforms, sums of padded slices, takes several times
as long.)
"""

import math
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np

from pgm_jax.networks.bilinear import bilinear, images_together, turned

# Besides infinity. In float32 they lose 2e-6 of the largest result, the usual 0, +-1, +-2 four times as much.
_POINTS = (0, Fraction(3, 4), -Fraction(3, 4), Fraction(3, 2), -Fraction(3, 2))
_TILE, _TAPS = 4, 3
# Numbers of each transformed position that a convolution takes at a time, 9 MB of all, and tiles that the gradient
# of the kernel takes, which contracts them. Several chunks are a loop, behind which the gradient transforms x again
# instead of keeping it at twice its size from the forward pass.
_NUMBERS, _TILES = 1 << 16, 256


def winograd(x, kernel):
    """Convolves with zeros beyond the border, at stride 1: `y[p] = sum_q x[p + q - centre] kernel[q]`.

    Args:
        x: (b, height, width, inputs), floating.
        kernel: (3, 3, inputs, outputs), in the dtype of x.

    Returns:
        (b, height, width, outputs).
    """
    return _conv.bind(x, kernel)


def winograd_kernel(x, y):
    """The transpose of `winograd` along the kernel: `kernel[q] = sum_p x[p + q - centre] y[p]`.

    Args:
        x: (b, height, width, inputs).
        y: (b, height, width, outputs), in the dtype of x.

    Returns:
        (3, 3, inputs, outputs).
    """
    return _kernel.bind(x, y)


def minimal_filter(points=_POINTS, results=_TILE, taps=_TAPS):
    """Returns the matrices of F(results, taps), by interpolation at some points and at infinity.

    Args:
        points: results + taps - 2 different rational numbers.
        results: number of results of a tile.
        taps: number of taps.

    Returns:
        `(B^T, G, A^T)`, (n, n), (n, taps) and (results, n) float64, n = results + taps - 1.
    """
    points = [Fraction(point) for point in points]
    others = [[q for q in points if q != p] for p in points]
    scales = [math.prod(p - q for q in rest) for p, rest in zip(points, others, strict=True)]
    # Row of a point: the polynomial with roots at all others; of infinity: with roots at all.
    into = np.zeros((len(points) + 1, len(points) + 1))
    for row, roots in enumerate([*others, points]):
        coefficients = np.poly([float(root) for root in roots])[::-1]
        into[row, : len(coefficients)] = coefficients
    last = lambda size: [[0.0] * (size - 1) + [1.0]]
    powers = lambda size, by: [
        [float(p**j / s) for j in range(size)] for p, s in zip(points, by, strict=True)
    ]
    taps_in = np.array(powers(taps, scales) + last(taps))
    out = np.array(powers(results, [1] * len(points)) + last(results)).T
    return into, taps_in, out


_INTO, _TAPS_IN, _OUT = minimal_filter()


def _convolved(x, kernel):
    b, height, width, inputs = x.shape
    products = _of_taps(kernel)

    def some(band):
        windows = _windows(*band)
        images, rows, columns = windows.shape[0], windows.shape[1] - 1, windows.shape[3] - 1
        spectrum = jnp.einsum("pti,pio->pto", _of_windows(windows), products)
        return _results(spectrum.reshape(6, 6, images, rows, columns, -1))

    bands = _bands(x, _NUMBERS // (inputs + kernel.shape[-1]))
    y = jax.lax.map(lambda pair: jax.tree.map(lambda *of: jnp.stack(of), *_each(some, pair)), _paired(bands))
    return y.reshape(b, -1, *y.shape[-2:])[:, :height, :width]


def _kernel_gradient(x, y):
    def some(band):
        *of_x, tiles = band
        return jnp.einsum("pti,pto->pio", _of_windows(_windows(*of_x)), _of_results(tiles))

    bands = _bands(x, _TILES)
    b, height, width, outputs = y.shape
    y = jnp.pad(y, ((0, 0), (0, -height % _TILE), (0, -width % _TILE), (0, 0)))
    chunks, images, rows = bands[1].shape[:3]
    tiles = y.reshape(chunks, images, rows // _TILE, _TILE, -1, _TILE, outputs)
    add = lambda total, pair: (sum(_each(some, pair), total), None)
    empty = jnp.zeros((36, x.shape[-1], outputs), x.dtype)
    return _to_taps(jax.lax.scan(add, empty, _paired((*bands, tiles)))[0])


def _each(function, pair):
    """Maps the members one by one: independent, so that they run on two threads."""
    members = len(jax.tree.leaves(pair)[0])
    return [function(jax.tree.map(lambda array, m=m: array[m], pair)) for m in range(members)]


def _paired(arrays):
    """Splits the first axis into steps of two where it is even."""
    together = 2 - len(arrays[0]) % 2
    return jax.tree.map(lambda array: array.reshape(-1, together, *array.shape[1:]), arrays)


def _bands(x, most):
    """Cuts x into chunks of up to `most` tiles: whole images or bands of rows of one.

    Returns:
        The row above each chunk (chunks, images, width, c), its own rows (chunks, images, rows, width, c), rows a
        multiple of 4, and the row below.
    """
    b, height, width, c = x.shape
    rows, columns = -(-height // _TILE), -(-width // _TILE)
    x = jnp.pad(x, ((0, 0), (0, -height % _TILE), (0, 0), (0, 0)))
    band = _largest_divisor(rows, max(1, most // columns))
    images = _largest_divisor(b, max(1, most // (rows * columns))) if band == rows else 1
    inside = x.reshape(b, rows // band, _TILE * band, width, c)
    outside = jnp.zeros((b, 1, width, c), x.dtype)
    above = jnp.concatenate([outside, inside[:, :-1, -1]], 1)
    below = jnp.concatenate([inside[:, 1:, 0], outside], 1)
    cut = lambda part: part.reshape(-1, images, *part.shape[2:])
    return cut(above), cut(inside), cut(below)


def _windows(above, inside, below):
    """Joins and pads a chunk to (images, rows + 1, 4, columns + 1, 4, c); a window of 6 is a tile and a half."""
    x = jnp.concatenate([above[:, None], inside, below[:, None]], 1)
    images, rows, width, c = x.shape
    right = _TILE * (-(-width // _TILE) + 1) - width - 1
    x = jnp.pad(x, ((0, 0), (0, -rows % _TILE), (1, right), (0, 0)))
    return x.reshape(images, x.shape[1] // _TILE, _TILE, x.shape[2] // _TILE, _TILE, c)


def _largest_divisor(number, most):
    return next(size for size in range(min(number, most), 0, -1) if number % size == 0)


def _of_windows(windows):
    """B^T along rows, then columns: (images, rows + 1, 4, columns + 1, 4, c) to (36, tiles, c)."""

    def six(x, axis):
        whole = jax.lax.slice_in_dim(x, 0, x.shape[axis] - 1, axis=axis)
        after = jax.lax.slice_in_dim(x, 1, x.shape[axis], axis=axis)
        places = [(whole, place) for place in range(_TILE)] + [(after, 0), (after, 1)]
        return [jax.lax.index_in_dim(part, place, axis + 1, keepdims=False) for part, place in places]

    along_rows = _transformed(_INTO, six(windows, 1))
    return _transformed(_INTO, six(along_rows, 3)).reshape(36, -1, windows.shape[-1])


def _of_results(tiles):
    """A along rows, then columns: (images, rows, 4, columns, 4, c) to (36, tiles, c)."""
    four = lambda x, axis: [jax.lax.index_in_dim(x, place, axis, keepdims=False) for place in range(_TILE)]
    along_rows = _transformed(_OUT.T, four(tiles, 2))
    return _transformed(_OUT.T, four(along_rows, 4)).reshape(36, -1, tiles.shape[-1])


def _results(spectrum):
    """A^T along columns, then rows: (6, 6, images, rows, columns, c) to (images, 4 rows, 4 columns, c)."""
    _, _, images, rows, columns, c = spectrum.shape
    along_columns = _transformed(_OUT, list(spectrum), 4).reshape(6, images, rows, _TILE * columns, c)
    return _transformed(_OUT, list(along_columns), 2).reshape(images, _TILE * rows, _TILE * columns, c)


def _of_taps(kernel):
    """G along both axes: (3, 3, inputs, outputs) to (36, inputs, outputs), columns before rows as elsewhere."""
    both = jnp.asarray(np.kron(_TAPS_IN, _TAPS_IN), kernel.dtype)
    columns_first = kernel.transpose(1, 0, 2, 3).reshape(9, -1)
    return (both @ columns_first).reshape(36, *kernel.shape[2:])


def _to_taps(spectrum):
    both = jnp.asarray(np.kron(_TAPS_IN, _TAPS_IN).T, spectrum.dtype)
    return (both @ spectrum.reshape(36, -1)).reshape(3, 3, *spectrum.shape[1:]).transpose(1, 0, 2, 3)


def _transformed(matrix, parts, axis=0):
    """Stacks the matrix's combinations of some arrays: as sums of slices, which XLA fuses and vectorises."""
    sums = (
        sum(float(number) * part for number, part in zip(row, parts, strict=True) if number) for row in matrix
    )
    return jnp.stack(list(sums), axis)


_conv = bilinear(
    "winograd",
    _convolved,
    (
        lambda y, x, kernel: _conv.bind(y, turned(kernel)),
        lambda y, x, kernel: _kernel.bind(x, y),
    ),
    images_together,
)
_kernel = bilinear(
    "winograd_kernel",
    _kernel_gradient,
    (
        lambda kernel, x, y: _conv.bind(y, turned(kernel)),
        lambda kernel, x, y: _conv.bind(x, kernel),
    ),
)
