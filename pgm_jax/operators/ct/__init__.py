"""Computed tomography: geometries, and projectors with exact adjoints."""

from pgm_jax.operators.ct.fan import FanBeam as FanBeam
from pgm_jax.operators.ct.geometry import Fan as Fan, ImageGrid as ImageGrid, Parallel as Parallel
from pgm_jax.operators.ct.parallel import ParallelBeam as ParallelBeam
