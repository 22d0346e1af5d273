"""Cartesian k-space masks: which lines of a scan are measured. Host functions, reproducible by a seed."""

import numpy as np


def _centre(size, acceleration, centre_fraction):
    """Returns (number of lines, indices of the fully sampled centre around DC at size // 2)."""
    if not 1 <= acceleration <= size:
        raise ValueError(f"acceleration must lie in [1, {size}] for {size} lines, got {acceleration}")
    if not 0 <= centre_fraction <= 1:
        raise ValueError(f"centre_fraction must lie in [0, 1], got {centre_fraction}")
    lines, centre = round(size / acceleration), round(size * centre_fraction)
    if centre > lines:
        raise ValueError(
            f"{centre} centre lines ({centre_fraction:.0%} of {size}) exceed the {lines} lines that "
            f"acceleration {acceleration} allows: lower centre_fraction or acceleration"
        )
    start = size // 2 - centre // 2
    return lines, np.arange(start, start + centre)


def _as_mask(size, *lines):
    mask = np.zeros(size, np.float32)
    mask[np.concatenate(lines).astype(int)] = 1.0
    return mask


def random_mask(seed, size: int, acceleration, centre_fraction=0.08):
    """Draws Cartesian lines at random, with a fully sampled centre.

    Exactly `round(size / acceleration)` lines are measured: `round(size * centre_fraction)` of them around
    DC (index size // 2), the others drawn uniformly without replacement from the rest.

    Args:
        seed: integer seed; equal seeds give equal masks.
        size: number of phase-encoding lines.
        acceleration: full scan lines over measured lines.
        centre_fraction: part of the full scan that forms the measured centre (ACS).

    Returns:
        float32 array (size,) of zeros and ones; as a mask of `Sense` it runs along the width.

    Raises:
        ValueError: if the centre alone needs more lines than the acceleration allows.
    """
    lines, centre = _centre(size, acceleration, centre_fraction)
    rest = np.setdiff1d(np.arange(size), centre)
    chosen = np.random.default_rng(seed).choice(rest, lines - len(centre), replace=False)
    return _as_mask(size, centre, chosen)


def equispaced_mask(seed, size: int, acceleration, centre_fraction=0.08):
    """Spaces Cartesian lines evenly outside a fully sampled centre.

    Exactly `round(size / acceleration)` lines are measured. The lines outside the centre, numbered as if the
    centre were cut out, are taken every (rest / number) lines from an offset that the seed draws, each
    rounded down; so neighbouring gaps differ by at most one line, and the gap across the centre is wider.

    Args:
        seed: integer seed of the offset.
        size: number of phase-encoding lines.
        acceleration: full scan lines over measured lines.
        centre_fraction: part of the full scan that forms the measured centre (ACS).

    Returns:
        float32 array (size,) of zeros and ones; as a mask of `Sense` it runs along the width.

    Raises:
        ValueError: if the centre alone needs more lines than the acceleration allows.
    """
    lines, centre = _centre(size, acceleration, centre_fraction)
    rest = np.setdiff1d(np.arange(size), centre)
    count = lines - len(centre)
    if count == 0:
        return _as_mask(size, centre)
    spacing = len(rest) / count
    offset = np.random.default_rng(seed).uniform(0, spacing)
    index = np.minimum(np.floor(offset + spacing * np.arange(count)), len(rest) - 1).astype(int)
    return _as_mask(size, centre, rest[index])
