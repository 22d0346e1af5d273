"""Checks of scan data on the host."""

import jax
import numpy as np


def require_trajectory(trajectory, shape):
    """Checks that a trajectory lies inside the band of an image.

    Args:
        trajectory: (..., d) points in cycles per field of view.
        shape: d sizes of the image.

    Returns:
        float64 numpy array (..., d).

    Raises:
        ValueError: if it is traced, empty, not finite, of another dimension or beyond +-N / 2.
    """
    if isinstance(trajectory, jax.core.Tracer):
        raise ValueError(
            "the trajectory is traced, but NUFFT tables are built on the host: create the operator outside "
            "jit, vmap and grad, or use NUDFT"
        )
    points, d = np.asarray(trajectory, float), len(shape)
    if points.ndim < 2 or points.shape[-1] != d or points.size == 0:
        raise ValueError(
            f"an image {tuple(shape)} needs a trajectory of shape (..., {d}) with at least one point, "
            f"got {points.shape}: one coordinate for each image axis, rows first"
        )
    if not np.all(np.isfinite(points)):
        raise ValueError(f"the trajectory has {np.sum(~np.isfinite(points))} entries that are not finite")
    edge = np.asarray(shape) / 2
    reach = np.max(np.abs(points).reshape(-1, d), axis=0)
    if np.any(reach > edge * (1 + 1e-6)):
        raise ValueError(
            f"the trajectory reaches {reach.round(3).tolist()} but an image {tuple(shape)} holds "
            f"{edge.tolist()} cycles per field of view: check its unit, or enlarge the image"
        )
    return points


def require_finite(value, name: str) -> None:
    """Checks concrete numbers for NaN and infinity; tracers have none to check.

    Args:
        value: array.
        name: what it is, for the message.

    Raises:
        ValueError: with the number of bad entries.
    """
    if isinstance(value, jax.core.Tracer):
        return
    bad = int(np.sum(~np.isfinite(np.asarray(value))))
    if bad:
        raise ValueError(f"{name} has {bad} entries that are not finite: repair them, or set them to 0")
