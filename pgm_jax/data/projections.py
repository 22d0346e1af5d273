"""CT projections and PET sinograms: what their reader returns, and the logarithm."""

from typing import NamedTuple

import numpy as np

from pgm_jax.data.errors import DataError

COUNTS, LINE_INTEGRALS = "counts", "line integrals"


class Projections(NamedTuple):
    """Projections of one scan on the host. They hold no patient field.

    Parallel and fan beams and PET take a row of the detector as a slice, `np.moveaxis(array, 1, -1)`; cone beams
    take `array[..., None]`. None stands for what a file does not hold. The models are

        transmission    counts ~ Poisson(blank exp(-A x) + dark)
        emission        counts ~ Poisson(survival normalisation A x + randoms + scatter)

    Attributes:
        array: float32 (views, rows, bins), and a last axis of time-of-flight bins where there is one; rows is 1 for
            one slice.
        units: "counts", or "line integrals" (of 1/mm times mm, no unit).
        blank: expected counts without an object, without those of `dark`, (rows, bins) or (views, rows, bins).
        dark: expected counts without a beam, (rows, bins) or (views, rows, bins).
        angles: float64 (views,), radians.
        survival: PET, share in [0, 1] of the photon pairs of every line that leave the body unscattered,
            (views, rows, bins); the inverse of attenuation correction factors.
        normalisation: PET, efficiency of every line, times calibration and duration, (views, rows, bins).
        randoms: PET, expected random coincidences, counts, like `array`.
        scatter: PET, expected scattered coincidences, counts, like `array`.
        name: name of the scan.
    """

    array: np.ndarray
    units: str
    blank: np.ndarray | None
    dark: np.ndarray | None
    angles: np.ndarray | None
    survival: np.ndarray | None
    normalisation: np.ndarray | None
    randoms: np.ndarray | None
    scatter: np.ndarray | None
    name: str


def log_transform(projections: Projections, floor: float = 1e-6) -> Projections:
    """Computes the line integrals `-ln((counts - dark) / blank)`, Beer's law without noise.

    Transmissions below `floor` are raised to it, so a bin without a photon gives 13.8 by default and not infinity.

    Args:
        projections: counts with a blank scan; line integrals are returned as they are.
        floor: least transmission, in (0, 1).

    Returns:
        `Projections` of line integrals.

    Raises:
        DataError: if there is no blank scan, some bins of it see no beam, or the floor is out of range.
    """
    if projections.units == LINE_INTEGRALS:
        return projections
    if projections.blank is None:
        raise DataError(
            f"{projections.name}: counts without a blank scan have no line integrals: add 'blank'"
        )
    if not 0 < floor < 1:
        raise DataError(f"log_transform: floor is {floor}: give a transmission between 0 and 1")
    unlit = int(np.count_nonzero(projections.blank <= 0))
    if unlit:
        raise DataError(
            f"{projections.name}: {unlit} of {projections.blank.size} bins of the blank scan see no beam: read the "
            f"rows that do, or repair the blank scan"
        )
    net = projections.array if projections.dark is None else projections.array - projections.dark
    lines = -np.log(np.maximum(net / projections.blank, np.float32(floor)))
    return projections._replace(array=lines.astype(np.float32), units=LINE_INTEGRALS, blank=None, dark=None)
