"""Denoisers of large images made of denoisers of patches or sub-volumes, joined by a partition of unity."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from pgm_jax.processes import Normal


def tiles(denoiser, size, overlap=0, *, process, cut_cond=False, chunk=1):
    """Makes a denoiser of an image of any size by denoising overlapping tiles of one size.

        x0(p) = sum_k w_k(p) D(tile k of x_t)(p),   sum_k w_k(p) = 1,   w_k a ramp across each overlap

    Apply it before `lift`, as the `denoise` of a sampler: the tiles are joined at every level, so that no seam
    is sampled on its own. A tile knows nothing beyond its border; what the prior of whole images says of
    farther voxels is lost, however large the overlap.

    Source: W. Xia, W. Cong and G. Wang, Patch-based denoising diffusion probabilistic model for sparse-view CT
    (2022), and the sub-volumes of W. Xia et al. (2023). The weights are ours.

    Args:
        denoiser: `(tile, t, cond) -> tile` for tiles (*size, channel).
        size: voxels of a tile along each axis of space, or one number for all.
        overlap: least number of voxels that neighbouring tiles share, likewise.
        process: the process of the image, whose noise law is checked.
        cut_cond: True takes the leaves of the condition as images on the same grid and cuts them like x_t;
            False hands it to every tile as it is.
        chunk: tiles at a time, which bounds the memory of the denoiser, in reverse mode too.

    Returns:
        A denoiser `(x_t, t, cond) -> x0`, t one number.

    Raises:
        ValueError: at the first use, for tiles that do not fit, a time for every voxel, or a law that is not
            Normal: tiles share voxels, so no radius belongs to one of them.
    """

    def denoise(x_t, t, cond=None, *target):
        if not isinstance(getattr(process, "law", Normal()), Normal):
            raise ValueError(
                f"tiles: no radius of {type(process.law).__name__} noise is shared by tiles that overlap: "
                "denoise the whole image, or use the Normal law (D = inf)."
            )
        if jnp.ndim(t) != 0:
            raise ValueError(f"tiles needs one time for the image, got times of shape {jnp.shape(t)}.")
        conditions = jax.tree.map(lambda leaf: tile(leaf, size, overlap), cond) if cut_cond else None

        # Without the checkpoint reverse mode would keep the activations of all tiles.
        @jax.checkpoint
        def one(item):
            part, own = item
            return denoiser(part, t, own if cut_cond else cond, *target)

        found = jax.lax.map(one, (tile(x_t, size, overlap), conditions), batch_size=chunk)
        return untile(found, x_t.shape, size, overlap).astype(x_t.dtype)

    return denoise


def tile(x, size, overlap=0):
    """Cuts an image into overlapping tiles of one size; the last along an axis ends with the image.

    Args:
        x: image (*space, channel).
        size: voxels of a tile along each axis of space, or one number for all.
        overlap: least number of voxels that neighbouring tiles share, likewise.

    Returns:
        Array (tiles, *size, channel), the last axis of space fastest.

    Raises:
        ValueError: if size is not within the image, or overlap not below size.
    """
    axes = _axes(x.shape, size, overlap)
    for place, axis in enumerate(axes):
        # Each axis becomes a pair, number of the tile and voxel within.
        x = jnp.take(x, axis.inside, axis=2 * place, mode="clip")
    space = range(len(axes))
    x = jnp.transpose(x, [2 * i for i in space] + [2 * i + 1 for i in space] + [x.ndim - 1])
    return x.reshape(-1, *x.shape[len(axes) :])


def untile(parts, shape, size, overlap=0):
    """Joins tiles into an image by a partition of unity; `untile(tile(x)) = x`.

    Args:
        parts: array (tiles, *size, channel), as from `tile`.
        shape: shape (*space, channel) of the image.
        size: see `tile`.
        overlap: see `tile`.

    Returns:
        Image of that shape.

    Raises:
        ValueError: as `tile`.
    """
    axes = _axes(shape, size, overlap)
    x = parts.reshape(*(len(axis.inside) for axis in axes), *parts.shape[1:])
    for place, axis in enumerate(axes):
        # In front of the tiles not yet joined and the voxels within them lie the joined axes.
        x = jnp.moveaxis(x, len(axes), place + 1)
        x = x.reshape(*x.shape[:place], -1, *x.shape[place + 2 :])
        spread = (1,) * place + (-1,) + (1,) * (x.ndim - place - 1)
        weights = jnp.asarray(axis.weights, jnp.real(x).dtype)
        x = sum(
            weights[:, j].reshape(spread) * jnp.take(x, axis.covering[:, j], axis=place, mode="clip")
            for j in range(weights.shape[1])
        )
    return x


class _Axis(NamedTuple):
    """Tables of one axis of n voxels with k tiles, of which at most m cover a voxel.

    `inside` (k, size): voxel of each place in each tile; `covering` and `weights` (n, m): the places in the
    flattened tiles that show a voxel, and their weights, 0 where there are fewer than m.
    """

    inside: np.ndarray
    covering: np.ndarray
    weights: np.ndarray


def _axes(shape, size, overlap):
    count = len(shape) - 1
    sizes, overlaps = (tuple(v) if isinstance(v, (tuple, list)) else (v,) * count for v in (size, overlap))
    fits = len(sizes) == len(overlaps) == count and all(
        0 <= shared < width <= n for shared, width, n in zip(overlaps, sizes, shape, strict=False)
    )
    if not fits:
        raise ValueError(
            f"tiles of size {sizes} and overlap {overlaps} do not fit an image of shape {tuple(shape)}: give one "
            "of each an axis of space, with 0 <= overlap < size <= the image."
        )
    return [_axis(n, width, shared) for n, width, shared in zip(shape, sizes, overlaps, strict=False)]


def _axis(n, size, overlap):
    starts = np.append(np.arange(0, n - size, size - overlap), n - size)
    inside = starts[:, None] + np.arange(size)
    place = np.arange(size)
    ramp = np.minimum(np.minimum(place, place[::-1]), overlap) + 1.0
    shown = [np.flatnonzero(inside.ravel() == voxel) for voxel in range(n)]
    most = max(len(places) for places in shown)
    covering, weights = np.zeros((n, most), np.int32), np.zeros((n, most))
    for voxel, places in enumerate(shown):
        heights = ramp[places % size]
        covering[voxel, : len(places)], weights[voxel, : len(places)] = places, heights / heights.sum()
    return _Axis(inside.astype(np.int32), covering, weights)
