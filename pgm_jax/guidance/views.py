"""Denoisers of volumes made of denoisers of slices: averaged or alternating views, and slabs.

The unit stays one sample: slices are the batch of the two-dimensional denoiser, and nothing else sees them.
"""

import jax
import jax.numpy as jnp

from pgm_jax.core import Estimator, lift
from pgm_jax.processes import Normal


def views(denoisers, axes=0, *, process, cond_neighbours=None, chunk=None):
    """Makes a denoiser of a volume by denoising its slices along one or several axes; the views are averaged.

        x0 = mean_v untile_v(D_v(slices of x_t along axis v))

    One axis is the slice-by-slice denoiser. Apply it before `lift`, as the `denoise` of a sampler. The mean of
    posterior means that know one slice each is no posterior mean of the volume: a model of its own, not exact.

    Source: T. Chen et al., 2.5D multi-view averaging diffusion model for 3D medical image translation (MADM,
    2024).

    Args:
        denoisers: `(slice, t, cond) -> slice` for slices without the axis, or a sequence of one an axis.
        axes: axis of the volume (depth, height, width, channel), or a sequence of them.
        process: the process of the volume, whose noise law is checked.
        cond_neighbours: None hands the condition to every slice as it is; k >= 0 takes its leaves as volumes
            on the same grid, of which slice i gets slices i - k to i + k as channels, borders repeated.
        chunk: slices at a time, a bound on memory, in reverse mode too; None is all of them at once.

    Returns:
        A denoiser `(x_t, t, cond) -> x0`, t one number.

    Raises:
        ValueError: at the first use, for an axis that is none of space, a time for every voxel, or a noise
            law whose radius is not shared by exactly the voxels of a slice.
    """
    axes = tuple(axes) if isinstance(axes, (tuple, list)) else (axes,)
    given = tuple(denoisers) if isinstance(denoisers, (tuple, list)) else (denoisers,) * len(axes)
    if len(given) != len(axes) or not axes:
        raise ValueError(f"views got {len(given)} denoisers for axes {axes}: give one, or one an axis.")

    def denoise(x_t, t, cond=None, *target):
        _require_slices("views", process, axes, x_t, t)
        total = jnp.zeros_like(x_t)
        for slice_denoiser, axis in zip(given, axes, strict=True):
            call = lambda image, part, d=slice_denoiser: d(image, t, part, *target)
            images = jnp.moveaxis(x_t, axis, 0)
            found = _over_slices(call, images, cond, axis, cond_neighbours, chunk)
            total = total + jnp.moveaxis(found, 0, axis).astype(x_t.dtype)
        return total / len(axes)

    return denoise


def slabs(denoiser, axis=0, neighbours=1, *, process, cond_neighbours=None, chunk=None):
    """Makes a denoiser of a volume of a 2.5-D one, which sees neighbouring noisy slices as channels.

    Slice i is denoised from slices i - k to i + k, borders repeated: channels are those of slice i - k first.

    Args:
        denoiser: `(slab, t, cond) -> slice`, from (height, width, (2 k + 1) channel) to (height, width, channel).
        axis: axis across the slices.
        neighbours: k >= 0, slices on each side.
        process: as for `views`.
        cond_neighbours: as for `views`.
        chunk: as for `views`.

    Returns:
        A denoiser `(x_t, t, cond) -> x0`, t one number.

    Raises:
        ValueError: at the first use, as `views`, and for every law but the Normal one: slabs overlap, so no
            radius belongs to one of them.
    """

    def denoise(x_t, t, cond=None, *target):
        _require_slices("slabs", process, (axis,), x_t, t, overlapping=True)
        images, count = jnp.moveaxis(x_t, axis, 0), x_t.shape[axis]
        padded = _padded(images, neighbours)
        stacked = jnp.concatenate([padded[j : j + count] for j in range(2 * neighbours + 1)], axis=-1)
        call = lambda slab, part: denoiser(slab, t, part, *target)
        found = _over_slices(call, stacked, cond, axis, cond_neighbours, chunk)
        return jnp.moveaxis(found, 0, axis)

    return denoise


def alternate(denoiser, probability=0.5):
    """Makes a guidance that takes another denoiser's estimate with a probability, drawn anew at each evaluation.

    With `views(coronal, 1, ...)` on top of `views(axial, 0, ...)` it is TPDM's alternation of two perpendicular
    priors. A draw needs a key, so this is a transform of estimators, not of denoisers. Only one of the two is
    evaluated; under `vmap` each sample draws its own and both are.

    Source: S. Lee et al., Improving 3D imaging with pre-trained perpendicular 2D diffusion models (TPDM, 2023).

    Args:
        denoiser: `(x_t, t, cond) -> x0` for the whole image.
        probability: of taking it, in [0, 1], may be traced.

    Returns:
        A guidance, valid for every noise law that both denoisers know; it keeps the inner state where the other
        denoiser is taken.
    """

    def guidance(inner):
        other = lift(inner.process, denoiser)

        def apply(key, x_t, t, state, *, cond=None, s=None):
            key_inner, key_own = jax.random.split(key)
            return jax.lax.cond(
                jax.random.bernoulli(key_own, probability),
                lambda: (other.apply(key_inner, x_t, t, (), cond=cond, s=s)[0], state),
                lambda: inner.apply(key_inner, x_t, t, state, cond=cond, s=s),
            )

        return Estimator(inner.process, inner.init, apply)

    return guidance


def _over_slices(call, images, cond, axis, neighbours, chunk):
    """Maps `call(image, cond)` over the leading axis of images, with the slab of the condition of each."""
    if neighbours is not None:
        padded = jax.tree.map(lambda v: _padded(jnp.moveaxis(v, axis, 0), neighbours), cond)

    def one(item):
        index, image = item
        part = cond
        if neighbours is not None:
            part = jax.tree.map(lambda v: _slab(v, index, 2 * neighbours + 1), padded)
        return call(image, part)

    items = (jnp.arange(images.shape[0]), images)
    if chunk is None:
        return jax.vmap(one)(items)
    # Without the checkpoint reverse mode would keep the activations of all chunks.
    return jax.lax.map(jax.checkpoint(one), items, batch_size=chunk)


def _padded(slices, neighbours):
    """Repeats the first and the last slice of the leading axis."""
    return jnp.pad(slices, [(neighbours,) * 2] + [(0, 0)] * (slices.ndim - 1), mode="edge")


def _slab(padded, index, count):
    """Cuts `count` slices from an index on and stacks them as channels, the first slice's first."""
    slab = jnp.moveaxis(jax.lax.dynamic_slice_in_dim(padded, index, count), 0, -2)
    return slab.reshape(*slab.shape[:-2], -1)


def _require_slices(name, process, axes, x, t, overlapping=False):
    if any(not -x.ndim <= axis < x.ndim or axis % x.ndim == x.ndim - 1 for axis in axes):
        raise ValueError(f"{name}: axes {axes} must be among the {x.ndim - 1} axes of space of {x.shape}.")
    if jnp.ndim(t) != 0:
        raise ValueError(f"{name} needs one time for the volume, got times of shape {jnp.shape(t)}.")
    law = getattr(process, "law", Normal())
    if isinstance(law, Normal):
        return
    within = {axis for axis in range(x.ndim) if axis != axes[0] % x.ndim}
    shared = getattr(law, "event_axes", None)
    if overlapping or len(axes) > 1:
        raise ValueError(
            f"{name}: no radius of {type(law).__name__} noise is shared by slices that overlap or cross: use "
            "views along one axis, or the Normal law (D = inf)."
        )
    if shared is None or {axis % x.ndim for axis in shared} != within:
        raise ValueError(
            f"{name}: a denoiser of slices needs one radius a slice, got event_axes={shared}: give the process "
            f"StudentT(D, event_axes={tuple(sorted(within))}), or the Normal law (D = inf)."
        )
