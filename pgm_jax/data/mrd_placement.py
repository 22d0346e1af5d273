"""Where the slices of an ISMRMRD scan lie in the scanner."""

import logging

import numpy as np

_log = logging.getLogger("pgm_jax.data")


def slice_order(heads):
    """Sorts the slices by their position along the slice direction, or by their counter if positions do not differ.

    Args:
        heads: headers of the image acquisitions.

    Returns:
        (counters of the slices, their centres (slices, 3) in mm, LPS), in order.
    """
    numbers, first = np.unique(heads["idx"]["slice"], return_index=True)
    positions = heads["position"][first].astype(np.float64)
    heights = positions @ heads["slice_dir"][0].astype(np.float64)
    order = np.argsort(heights)
    if len(numbers) > 1 and np.diff(heights[order]).min() > 1e-3:
        return numbers[order], positions[order]
    return numbers, positions


def placed(head, positions, header):
    """Computes grid, matrix, voxel size and affine of the reconstructed image.

    Its centre, pixel N // 2 of each axis in the plane (and of the slab), lies at the position of the slice; columns
    run along the read direction and rows along the phase direction.

    Args:
        head: header of one acquisition.
        positions: centres of the slices in order, (slices, 3), mm, LPS.
        header: `Header` of the file.

    Returns:
        (encoded, matrix, spacing, affine) as in `KSpace`; the affine is None where directions or positions are not
        stated, or slices are unevenly spaced.
    """
    nx, ny, nz = header.encoded
    spacing, matrix = header.kept((nz, ny, nx), "zyx")
    encoded = (nz, ny, nx)
    if nz == 1:
        encoded, matrix = (len(positions), ny, nx), (len(positions), *matrix[1:])
    if spacing is None:
        return encoded, matrix, None, None
    axes = np.stack([head["slice_dir"], head["phase_dir"], head["read_dir"]]).astype(np.float64)
    if not np.allclose(axes @ axes.T, np.eye(3), atol=1e-3):
        return encoded, matrix, spacing, None
    steps = axes * np.array(spacing)[:, None]
    if len(positions) > 1:
        gaps = np.diff(positions, axis=0)
        steps[0] = gaps.mean(axis=0)
        distance = float(np.linalg.norm(steps[0]))
        if distance < 1e-3 or np.linalg.norm(gaps - steps[0], axis=1).max() > 0.02 * distance + 0.01:
            _log.warning(
                "slices of the scan are not evenly spaced: the image gets no position in the scanner"
            )
            return encoded, matrix, spacing, None
        spacing = (distance, *spacing[1:])
    centre = np.array([matrix[0] // 2 if nz > 1 else 0, matrix[1] // 2, matrix[2] // 2])
    affine = np.eye(4)
    affine[:3, :3] = steps.T
    affine[:3, 3] = positions[0] - steps.T @ centre
    return encoded, matrix, spacing, np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine
