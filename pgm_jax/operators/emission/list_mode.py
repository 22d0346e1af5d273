"""List-mode PET: one row of the system matrix for each recorded event."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from pgm_jax.operators.emission.joseph_lines import lines_adjoint, lines_forward, trace_lines
from pgm_jax.operators.emission.subsets import interleaved, require_subsets
from pgm_jax.operators.linear_pair import linear_pair
from pgm_jax.operators.operator import LinearOperator, require_shape

_apply, _apply_adjoint = linear_pair("lines", lines_forward, lines_adjoint)


class ListModePET(LinearOperator):
    """Integrates an image along the line of each event, `(A x)_e = w_e int x k_e dl`, k_e its TOF kernel or 1.

    Joseph's method, see `joseph_lines`. Lines are not cut at their end points: the image is 0 outside of the
    ring. With time of flight `k_e` is the share of a normal kernel around the point of emission that falls in
    the bin of the event, so the events of one line in bins side by side add up to the event without it.

    Build it with `create`. A point spread function is composed: `ListModePET.create(...) @ blur`.

    Attributes:
        tables: arrays of `lines_forward`, one row an event.
        kernel: (standard deviation, half the width of a bin) of the time of flight in mm, or ().
        shape: shape of the image, (height, width, 1) or (depth, height, width, 1).
        subsets: number of interleaved subsets of events.
    """

    tables: tuple
    kernel: tuple
    shape: tuple = struct.field(pytree_node=False)
    subsets: int = struct.field(pytree_node=False, default=1)

    @classmethod
    def create(
        cls, starts, ends, shape, spacing, *, efficiency=None, tof=None, fwhm=None, bin_width=None, subsets=1
    ) -> "ListModePET":
        """Traces the lines on the host in float64.

        Args:
            starts: one detector of each event in mm, (events, 2) as (x, y) or (events, 3) as (x, y, z), from
                the centre of the image; y grows with the row, z with the slice.
            ends: the other detector.
            shape: shape of the image, (height, width, 1) or (depth, height, width, 1).
            spacing: pixel size in mm, (dy, dx) or (dz, dy, dx).
            efficiency: attenuation factor times detector efficiency of each event, (events,), or None for 1.
            tof: measured position of each event along its line in mm, from the middle of its detectors towards
                `ends`, (events,); None without time of flight.
            fwhm: resolution of that position in mm, c / 2 times the coincidence time resolution.
            bin_width: width of the bins that the positions are the centres of, in mm.
            subsets: number of interleaved subsets; it must divide the number of events.

        Returns:
            The operator.

        Raises:
            ValueError: for arrays that do not fit each other, or time of flight without resolution or bin.
        """
        if len(shape) not in (3, 4) or shape[-1] != 1 or len(spacing) != len(shape) - 1:
            raise ValueError(
                f"ListModePET needs a shape (height, width, 1) or (depth, height, width, 1) and one spacing an "
                f"axis, got {tuple(shape)} and {tuple(spacing)}"
            )
        lines = trace_lines(starts, ends, shape[:-1], spacing)
        events = len(lines.axis)
        require_subsets("events", events, subsets)
        factor = 1.0 if efficiency is None else _per_event("efficiency", efficiency, events)
        tables = (lines.axis, lines.base, lines.fraction, lines.slope, lines.length * factor)
        kernel = ()
        if tof is not None:
            if fwhm is None or bin_width is None:
                raise ValueError("time of flight needs its resolution fwhm and the bin_width of tof, in mm")
            tables += (lines.direction, lines.midpoint + _per_event("tof", tof, events))
            kernel = (fwhm / np.sqrt(8 * np.log(2)), bin_width / 2)
        return cls(*jax.tree.map(_on_device, (tables, kernel)), tuple(shape), subsets)

    def __call__(self, x):
        require_shape(x, self.domain, self, "image")
        return _apply(self.tables + self.kernel, x.reshape(-1, 1), shape=self.shape[:-1])[:, 0]

    def adjoint(self, y):
        require_shape(y, self.range, self, "measurement")
        return _apply_adjoint(self.tables + self.kernel, y[:, None], shape=self.shape[:-1]).reshape(
            self.shape
        )

    @property
    def domain(self):
        return jax.ShapeDtypeStruct(self.shape, self._dtype)

    @property
    def range(self):
        return jax.ShapeDtypeStruct(self.tables[0].shape, self._dtype)

    @property
    def _dtype(self):
        return self.tables[2].dtype

    def subset(self, i):
        """Returns the operator of events i, i + subsets, i + 2 subsets, ...; i may be traced."""
        return self.replace(tables=interleaved(self.tables, i, self.subsets), subsets=1)

    def restrict(self, y, i):
        """Returns the entries of y that belong to `subset(i)`."""
        return interleaved(y, i, self.subsets)


def _per_event(name, values, events):
    values = np.asarray(values, np.float64)
    if values.shape != (events,) or not np.isfinite(values).all():
        raise ValueError(f"{name} needs one finite number for each of {events} events, got {values.shape}")
    return values


def _on_device(values):
    values = np.asarray(values)
    return jnp.asarray(values, values.dtype if values.dtype == np.int32 else jnp.result_type(float))
