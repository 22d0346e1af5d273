"""The same projection by ASTRA, scikit-image and MBIRJAX, each on its own copy of the arrays."""

import warnings
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from pgm_jax.core import MissingExtra, require


def projector_peers(case, operator, x, y) -> dict[str, Callable[[], Any]]:
    """Builds a function without arguments for every installed library that has the case.

    ASTRA's `linear` is Joseph's model and `strip` the exact areas; MBIRJAX has trapezoids and scikit-image rotates
    the image, whatever the footprint. The last two have parallel beams alone.

    Args:
        case: `ProjectorCase` with its number of bins.
        operator: the operator, whose geometry is used.
        x: images (size, size, slices), float32.
        y: projections (views, bins, slices), float32.

    Returns:
        Dict from library and version to a function that returns once its result exists.
    """
    # ASTRA's CPU code has no arcs, and no Joseph model of a fan.
    makers = {"parallel": (_astra, _mbirjax, _skimage), "fan": (_astra,) if case.footprint == "strip" else ()}
    found = {}
    for make in makers.get(case.geometry, ()):
        try:
            found |= make(case, operator.geometry, x, y)
        except MissingExtra:
            continue
    return found


def _astra(case, geometry, x, y):
    astra = require("astra", "peers")
    volume = astra.create_vol_geom(case.size, case.size)
    if case.geometry == "parallel":
        detector = astra.create_proj_geom("parallel", 1.0, case.bins, geometry.angles)
        kind = {"joseph": "linear", "strip": "strip"}[case.footprint]
    else:
        distances = geometry.source_to_axis, geometry.source_to_detector - geometry.source_to_axis
        detector = astra.create_proj_geom("fanflat", 2.0, case.bins, geometry.angles, *distances)
        kind = "strip_fanflat"
    projector = astra.create_projector(kind, detector, volume)
    image, sinogram = astra.data2d.create("-vol", volume), astra.data2d.create("-sino", detector)
    configuration = astra.astra_dict("FP" if case.direction == "forward" else "BP")
    configuration |= {"ProjectorId": projector, "ProjectionDataId": sinogram}
    configuration["VolumeDataId" if case.direction == "forward" else "ReconstructionDataId"] = image
    algorithm = astra.algorithm.create(configuration)
    source, target, arrays = (image, sinogram, x) if case.direction == "forward" else (sinogram, image, y)

    def run():
        out = []
        for k in range(case.slices):
            # Row 0 of ASTRA's image is at +y.
            part = arrays[::-1, :, k] if case.direction == "forward" else arrays[:, :, k]
            astra.data2d.store(source, np.ascontiguousarray(part))
            astra.algorithm.run(algorithm)
            out.append(astra.data2d.get(target))
        return out

    return {f"astra {astra.__version__} {kind}": run}


def _skimage(case, geometry, x, y):
    transform = require("skimage.transform", "peers")
    degrees = np.rad2deg(geometry.angles)

    def run():
        if case.direction == "forward":
            return [transform.radon(x[..., k], degrees, circle=False) for k in range(case.slices)]
        options = {"filter_name": None, "circle": False, "output_size": case.size}
        return [transform.iradon(y[..., k].T, degrees, **options) for k in range(case.slices)]

    return {f"skimage {require('skimage', 'peers').__version__}": run}


def _mbirjax(case, geometry, x, y):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mbirjax = require("mbirjax", "peers")
        model = mbirjax.ParallelBeamModel((case.views, case.slices, case.bins), geometry.angles)
    model.set_params(recon_shape=(case.size, case.size, case.slices))
    sinogram = jax.device_put(np.ascontiguousarray(y.transpose(0, 2, 1)))
    image = jax.device_put(x)

    def run():
        result = model.forward_project(image) if case.direction == "forward" else model.back_project(sinogram)
        return jax.block_until_ready(result)

    return {f"mbirjax {require('importlib.metadata', 'peers').version('mbirjax')}": run}
