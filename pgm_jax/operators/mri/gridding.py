"""Interpolation between a periodic grid and scattered samples, and its exact adjoint, both without a scatter.

Forward, each sample gathers the W^d grid points under its window. Backward, samples are sorted on the host into
tiles of T grid points a side; a tile and its W - 1 neighbours get `sum_m w_0[m] x w_1[m] x ... y[m]` as one
matrix product, and tiles are added where they overlap by shifts of whole arrays. Tiles with similar counts of
samples share one padded batch, so the crowded centre of a radial scan costs no more than its samples.
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np

from pgm_jax.operators.linear_pair import linear_pair
from pgm_jax.operators.mri.kaiser_bessel import kaiser_bessel, shape_parameter

TILE = 8
_SMALLEST_BATCH = 4
# Largest intermediate product of a batch of tiles, in numbers: 16 MB in float32.
_BLOCK = 1 << 22


def gridding_tables(position, grid, width: int, oversampling):
    """Builds the tables of `interpolate` and `spread`, in float64 on the host.

    Args:
        position: (samples, d) coordinates in grid points, any real number (periodic).
        grid: d sizes of the grid, multiples of `TILE`.
        width: W, grid points under the window along one axis.
        oversampling: d ratios of grid to image size, for the window's shape.

    Returns:
        Flat tuple of numpy arrays: for each axis the first grid point (samples,) int32 and the weights
        (W, samples) float64; the batch row of each tile (tiles,) int32; then for each batch the samples of its
        tiles (blocks, tiles, K) int32, padded with the number of samples, and for each axis their weights
        (blocks, tiles, K, T + W - 1) float64. Blocks are done one after the other to bound the memory.
    """
    first = np.ceil(position - width / 2).astype(np.int64)
    offsets = np.arange(width)
    weights = [
        kaiser_bessel(first[:, a, None] + offsets - position[:, a, None], width, shape_parameter(width, s))
        for a, s in enumerate(oversampling)
    ]
    sizes = np.asarray(grid)
    tile, inside = np.divmod(first % sizes, TILE)
    number = np.ravel_multi_index(tuple(tile.T), tuple(sizes // TILE))
    wide = []
    for a, weight in enumerate(weights):
        # One row more, of zeros: the sample that pads a tile.
        dense = np.zeros((len(position) + 1, TILE + width - 1))
        np.put_along_axis(dense[:-1], inside[:, a, None] + offsets, weight, axis=1)
        wide.append(dense)
    row, batches = _batches(number, int(np.prod(sizes // TILE)), wide[0].shape[1], len(grid))
    tables = [np.int32(row)]
    for samples in batches:
        tables += [np.int32(samples), *(dense[samples] for dense in wide)]
    axes = [(np.int32(first[:, a] % sizes[a]), np.ascontiguousarray(w.T)) for a, w in enumerate(weights)]
    return (*itertools.chain(*axes), *tables)


def _batches(number, tiles, side, dimensions):
    """Sorts samples by tile and tiles by count; returns (batch row of each tile, samples of each batch).

    A tile without samples points at the row after the last, which is zero.
    """
    order = np.argsort(number, kind="stable")
    count = np.bincount(number, minlength=tiles)
    start = np.concatenate([[0], np.cumsum(count)])
    row, batches, used, below = np.full(tiles, -1), [], 0, 0
    size = _SMALLEST_BATCH
    while below < count.max(initial=0):
        chosen = np.flatnonzero((count > below) & (count <= size))
        if len(chosen):
            slot = np.arange(size)[None]
            held = slot < count[chosen, None]
            place = np.where(held, start[chosen, None] + slot, 0)
            block = max(1, _BLOCK // (2 * size * side ** (dimensions - 1)))
            blocks = -(-len(chosen) // block)
            padded = np.full((blocks * -(-len(chosen) // blocks), size), len(number))
            padded[: len(chosen)] = np.where(held, order[place], len(number))
            row[chosen] = used + np.arange(len(chosen))
            used += len(padded)
            batches.append(padded.reshape(blocks, -1, size))
        below, size = size, 2 * size
    return np.where(row < 0, used, row), batches


def _interpolate(tables, x, *, grid, width):
    """Gathers: x (*grid, slices) -> (samples, slices)."""
    flat = x.reshape(-1, x.shape[-1])
    first, weights = tables[0 : 2 * len(grid) : 2], tables[1 : 2 * len(grid) : 2]
    strides = [int(np.prod(grid[a + 1 :])) for a in range(len(grid))]

    def taps(axis, base):
        if axis == len(grid):
            return flat.at[base].get(mode="promise_in_bounds")
        return sum(tap(axis, base, k, weights[axis][k]) for k in range(width))

    def tap(axis, base, k, weight):
        index = first[axis] + k
        index = jnp.where(index >= grid[axis], index - grid[axis], index)
        return weight[:, None] * taps(axis + 1, base + strides[axis] * index)

    # The loop hands its sum over as stored: XLA would else fuse a change of layout into every gather.
    def body(total, k_weight):
        return total + tap(0, 0, *k_weight), None

    start = jnp.zeros((len(first[0]), x.shape[-1]), x.dtype)
    return jax.lax.scan(body, start, (jnp.arange(width), weights[0]))[0]


def _spread(tables, y, *, grid, width):
    """The adjoint of `_interpolate`: y (samples, slices) -> (*grid, slices)."""
    slices = y.shape[-1]
    # Two slices, the parts of one complex image, at a time: more would leave the cache.
    together = 2 if slices % 2 == 0 else 1
    parts = jnp.moveaxis(y.reshape(len(y), -1, together), 1, 0)
    grids = jax.lax.map(lambda part: _spread_few(tables, part, grid, width), parts)
    return jnp.moveaxis(grids, 0, -2).reshape(*grid, slices)


def _spread_few(tables, y, grid, width):
    d, side = len(grid), TILE + width - 1
    size = side**d * y.shape[-1]
    y = jnp.pad(y, [(0, 1), (0, 0)])
    row, rest = tables[2 * d], tables[2 * d + 1 :]

    def tile_sums(batch):
        samples, *weights = batch
        product = y.at[samples].get(mode="promise_in_bounds")
        for weight in weights[:0:-1]:
            product = (weight[..., None] * product[:, :, None]).reshape(*weight.shape[:2], -1)
        return jnp.einsum("tka,tkb->tab", weights[0], product, precision=jax.lax.Precision.HIGHEST)

    sums = []
    for start in range(0, len(rest), d + 1):
        batch = rest[start : start + d + 1]
        single = batch[0].shape[0] == 1
        done = tile_sums([part[0] for part in batch]) if single else jax.lax.map(tile_sums, batch)
        sums.append(done.reshape(-1, size))
    rows = jnp.concatenate([*sums, jnp.zeros((1, size), y.dtype)])
    tiles = rows.at[row].get(mode="promise_in_bounds")
    return _overlap_add(tiles.reshape(*[n // TILE for n in grid], *[side] * d, y.shape[-1]), grid)


def _overlap_add(tiles, grid):
    """Adds tiles (tiles of each axis, side of each axis, slices) into the periodic grid (*grid, slices)."""
    d, side = len(grid), tiles.shape[len(grid)]
    pieces = -(-side // TILE)
    for axis in range(d):
        local = d + axis
        total = 0
        for p in range(pieces):
            part = jax.lax.slice_in_dim(tiles, p * TILE, min((p + 1) * TILE, side), axis=local)
            lack = TILE - part.shape[local]
            part = jnp.pad(part, [(0, lack if a == local else 0) for a in range(part.ndim)])
            total = total + jnp.roll(part, p, axis)
        tiles = total
    order = [a for axis in range(d) for a in (axis, d + axis)]
    return tiles.transpose(*order, 2 * d).reshape(*grid, tiles.shape[-1])


# `interpolate(tables, x, grid=..., width=...)` and `spread(tables, y, grid=..., width=...)`.
interpolate, spread = linear_pair("grid_interpolation", _interpolate, _spread)
