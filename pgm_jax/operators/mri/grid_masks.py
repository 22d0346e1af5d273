"""Cartesian masks in two phase-encoding directions. Host functions, reproducible by a seed.

Each measures exactly `round(height * width / acceleration)` points, the full centre among them.
"""

import numpy as np


def random_mask_2d(seed, shape, acceleration, centre: int = 16):
    """Draws single points of k-space at random, with a fully sampled centre.

    Args:
        seed: integer seed; equal seeds give equal masks.
        shape: (height, width) of the phase-encoding plane.
        acceleration: full scan over measured points.
        centre: width of the fully sampled square around DC (index N // 2).

    Returns:
        float32 array (height, width) of zeros and ones with exactly round(height * width / acceleration) ones.

    Raises:
        ValueError: if the centre alone needs more points than the acceleration allows.
    """
    count, inside = _plan(shape, acceleration, centre)
    mask = inside.astype(np.float32)
    rest = np.flatnonzero(~inside)
    chosen = np.random.default_rng(seed).choice(rest, count - int(inside.sum()), replace=False)
    mask.flat[chosen] = 1
    return mask


def poisson_disk_mask(seed, shape, acceleration, centre: int = 16, density=1.0):
    """Draws points that keep a distance from each other, which grows with their distance from DC.

    Outside the centre no two points p, q lie nearer than `s (1 + density |p|)`, p the earlier drawn, |p| its
    distance from DC in half widths of k-space; s is found by bisection so that the count is exact.

    Source: R. L. Cook, Stochastic sampling in computer graphics (1986); M. Lustig et al., L1-SPIRiT, MRM 64
    (2010), for its use in MRI.

    Args:
        seed: integer seed.
        shape: (height, width) of the phase-encoding plane.
        acceleration: full scan over measured points.
        centre: width of the fully sampled square around DC.
        density: growth of the distance towards the edge; 0 is a uniform density.

    Returns:
        float32 array (height, width) with exactly round(height * width / acceleration) ones.

    Raises:
        ValueError: as for `random_mask_2d`, or if density is negative.
    """
    count, inside = _plan(shape, acceleration, centre)
    if density < 0:
        raise ValueError(f"density must be >= 0, got {density}")
    wanted = count - int(inside.sum())
    order = np.random.default_rng(seed).permutation(np.flatnonzero(~inside))
    rows, columns = np.indices(shape)
    radius = np.hypot((rows - shape[0] // 2) * 2 / shape[0], (columns - shape[1] // 2) * 2 / shape[1])
    growth = 1 + density * radius
    low, high = 0.0, 2.0 * np.sqrt(np.prod(shape) / max(wanted, 1))
    # At s = 0 every point is kept. The last s that keeps enough points is thinned to the exact count.
    kept = order
    for _ in range(12):
        if len(kept) <= 1.01 * wanted:
            break
        middle = (low + high) / 2
        trial = _darts(order, middle * growth, shape)
        if len(trial) < wanted:
            high = middle
        else:
            low, kept = middle, trial
    mask = inside.astype(np.float32)
    mask.flat[kept[:wanted]] = 1
    return mask


def radial_grid_mask(shape, acceleration, centre: int = 16):
    """Measures the grid points next to golden-angle spokes through DC.

    Spokes of half the diagonal are added, each turned by 111.25 degrees, until the count is reached; the last
    one is cut short from the outside.

    Args:
        shape: (height, width) of the phase-encoding plane.
        acceleration: full scan over measured points.
        centre: width of the fully sampled square around DC.

    Returns:
        float32 array (height, width) with exactly round(height * width / acceleration) ones.

    Raises:
        ValueError: as for `random_mask_2d`.
    """
    count, inside = _plan(shape, acceleration, centre)
    mask, missing, spoke = inside.copy(), count - int(inside.sum()), 0
    reach = int(np.ceil(np.hypot(*shape) / 2))
    # From DC outwards, both sides at once.
    steps = np.arange(0, reach + 1, 0.5)
    radius = np.stack([steps, -steps], axis=1).ravel()
    while missing > 0:
        angle = np.pi * (np.sqrt(5) - 1) / 2 * spoke
        rows = np.rint(radius * np.sin(angle)).astype(int) + shape[0] // 2
        columns = np.rint(radius * np.cos(angle)).astype(int) + shape[1] // 2
        held = (rows >= 0) & (rows < shape[0]) & (columns >= 0) & (columns < shape[1])
        points = np.ravel_multi_index((rows[held], columns[held]), shape)
        points = points[np.sort(np.unique(points, return_index=True)[1])]
        new = points[~mask.flat[points]][:missing]
        mask.flat[new] = True
        missing, spoke = missing - len(new), spoke + 1
    return mask.astype(np.float32)


def _plan(shape, acceleration, centre):
    """Returns (number of points, boolean array of the full centre)."""
    height, width = shape
    if not 1 <= acceleration <= height * width:
        raise ValueError(f"acceleration must lie in [1, {height * width}] for {shape}, got {acceleration}")
    if not 0 <= centre <= min(shape):
        raise ValueError(f"centre must lie in [0, {min(shape)}] for {shape}, got {centre}")
    count = round(height * width / acceleration)
    if centre**2 > count:
        raise ValueError(
            f"a centre of {centre} x {centre} points exceeds the {count} that acceleration {acceleration} of "
            f"{shape} allows: lower centre or acceleration"
        )
    inside = np.zeros(shape, bool)
    top, left = height // 2 - centre // 2, width // 2 - centre // 2
    inside[top : top + centre, left : left + centre] = True
    return count, inside


def _darts(order, distance, shape):
    """Keeps points, in the given order, that lie outside the disc of every point kept before."""
    free, kept = np.ones(shape, bool), []
    for point in order:
        y, x = divmod(int(point), shape[1])
        if not free[y, x]:
            continue
        kept.append(point)
        r = distance[y, x]
        reach = int(r)
        top, left = max(y - reach, 0), max(x - reach, 0)
        block = free[top : y + reach + 1, left : x + reach + 1]
        dy = np.arange(top, top + block.shape[0]) - y
        dx = np.arange(left, left + block.shape[1]) - x
        block &= dy[:, None] ** 2 + dx[None] ** 2 >= r**2
    return np.asarray(kept, int)
