"""Fan-beam CT, with a flat detector or one on an arc about the source."""

from pgm_jax.operators.ct import fan_adjoint, fan_strip, joseph
from pgm_jax.operators.ct.beam import PlanarBeam
from pgm_jax.operators.ct.geometry import Fan
from pgm_jax.operators.ct.turns import turned
from pgm_jax.operators.linear_pair import linear_pair


class FanBeam(PlanarBeam):
    """Fans of rays: `FanBeam(grid, geometry, footprint="joseph", subsets=1, channels=1)`.

    The footprints are those of `ParallelBeam`; the driving axis is chosen ray by ray, and the mean of "strip" is
    over the bin on the detector (flat) or over the fan angle (arc).

    Attributes are those of `PlanarBeam`, with a `Fan` geometry.

    Raises:
        ValueError: for an unknown footprint, more subsets than views, or a source inside the image.
    """

    @property
    def _pair(self):
        return _PAIRS[self.footprint]

    def _host_tables(self, geometry, used, sizes):
        _require_fan(self.grid, geometry)
        if self.footprint == "joseph":
            forward, setting = joseph.forward_tables(self.grid, geometry, used, sizes), {}
        else:
            forward, reach = fan_strip.forward_tables(self.grid, geometry, used, sizes)
            setting = {"reach": reach}
        # A subset shares the support of all views, and with it the shapes.
        support = fan_adjoint.support(self.grid, self.geometry, self.footprint)
        adjoint = fan_adjoint.adjoint_tables(self.grid, geometry, used, self.footprint, support)
        setting |= {"split": len(forward), "candidates": support[1]}
        return (*forward, *adjoint), tuple(sorted(setting.items()))


def _require_fan(grid, geometry):
    if not isinstance(geometry, Fan):
        raise ValueError(f"FanBeam needs a Fan geometry, got {type(geometry).__name__}")
    if geometry.source_to_axis <= grid.radius():
        raise ValueError(
            f"FanBeam: the source, {geometry.source_to_axis:g} mm from the axis, lies inside the image of radius "
            f"{grid.radius():g} mm: is the spacing of the grid in mm?"
        )


def _pair(footprint, module):
    def forward(tables, x, *, split, candidates, **setting):
        return module.forward(tables[:split], x, **setting)

    def adjoint(tables, y, *, split, candidates, **setting):
        strips = footprint == "strip"
        return fan_adjoint.adjoint(tables[split:], y, candidates=candidates, strips=strips)

    return linear_pair(f"fan_beam_{footprint}", *turned(forward, adjoint))


_PAIRS = {
    "joseph": _pair("joseph", joseph),
    "strip": _pair("strip", fan_strip),
}
