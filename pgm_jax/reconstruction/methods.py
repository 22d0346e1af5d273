"""The reconstruction methods by name: which kind of problem each is for, and how it is started."""

import difflib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp

from pgm_jax.operators import FiniteDifference, FractionalDifference, RelativeDifference
from pgm_jax.reconstruction.art import art_iteration
from pgm_jax.reconstruction.bsrem import bsrem_iteration
from pgm_jax.reconstruction.cg_sense import cg_sense_iteration, zero_filled
from pgm_jax.reconstruction.cgls import cgls_iteration
from pgm_jax.reconstruction.fbp import fbp
from pgm_jax.reconstruction.fdk import fdk
from pgm_jax.reconstruction.functionals import absolute, length
from pgm_jax.reconstruction.iteration import Iteration
from pgm_jax.reconstruction.lsqr import lsqr_iteration
from pgm_jax.reconstruction.mlem import mlem_iteration
from pgm_jax.reconstruction.mltr import mltr_iteration
from pgm_jax.reconstruction.osem import osem_iteration
from pgm_jax.reconstruction.sart import sart_iteration
from pgm_jax.reconstruction.scans import Problem
from pgm_jax.reconstruction.sense import gridding
from pgm_jax.reconstruction.sirt import sirt_iteration
from pgm_jax.reconstruction.tgv import tgv_iteration
from pgm_jax.reconstruction.tv import natural_balance, regularised_iteration
from pgm_jax.reconstruction.wavelet_cs import wavelet_cs_iteration


class Options(NamedTuple):
    """What methods read of a request.

    Attributes:
        weight: weight of the regulariser over the largest entry of `|A^H y|`, so that it has no unit; for bsrem
            the weight itself.
        relax: relaxation of sart, art and sirt.
        window: window of the ramp filter of fbp and fdk.
        positive: whether the image is kept at or above 0.
    """

    weight: float = 0.01
    relax: float = 0.5
    window: str = "ram-lak"
    positive: bool = False


class Method(NamedTuple):
    """A reconstruction method.

    Attributes:
        kinds: kinds of `Problem` that it is for.
        summary: what it is, in a few words.
        start: `(problem, options) -> Iteration`, or the image itself of a direct method.
        counts: whether it needs the Poisson likelihood.
        steps: usual number of steps; 0 for a direct method.
        subsets: usual number of ordered subsets of some views.
    """

    kinds: tuple[str, ...]
    summary: str
    start: Callable[[Problem, Options], Any]
    counts: bool = False
    steps: int = 0
    subsets: Callable[[int], int] = lambda views: 1


_CT, _LINEAR = ("planar", "volume"), ("planar", "volume", "mri")


def _weight(problem, options):
    return options.weight * jnp.max(jnp.abs(problem.operator.adjoint(problem.y)))


def _first_image(problem):
    """FBP for slices of CT, from which the iterations come to the minimum several times sooner; None elsewhere."""
    return fbp(problem.operator, problem.y) if problem.kind == "planar" else None


def _differences(make: Callable, term: Callable) -> Callable:
    """A penalty of differences, which `make` builds for the shape of the image."""

    def start(problem, options) -> Iteration:
        weight = _weight(problem, options)
        return regularised_iteration(
            problem.operator,
            problem.y,
            make(problem.operator.domain.shape),
            term(weight),
            _first_image(problem),
            balance=natural_balance(problem.operator, problem.y, weight),
            keep_positive=options.positive,
        )

    return start


def _tgv(problem, options) -> Iteration:
    operator, y, weight = problem.operator, problem.y, _weight(problem, options)
    return tgv_iteration(operator, y, weight, _first_image(problem), keep_positive=options.positive)


def _wavelet(problem, options) -> Iteration:
    if options.positive:
        raise ValueError("wavelet has no positive images: leave out --positive, or use tv")
    return wavelet_cs_iteration(problem.operator, problem.y, _weight(problem, options))


def _fractional(shape):
    return FractionalDifference.create(shape, 1.4, None, None, "neumann")


def _relaxed(iteration: Callable) -> Callable:
    return lambda p, o: iteration(p.operator, p.y, o.relax, keep_positive=o.positive)


def _bsrem(problem, options) -> Iteration:
    # Relative differences have the unit of the image, as counts have: the weight needs no scale.
    # Slices of a planar scan are neighbours of no one.
    axes = (0, 1) if len(problem.operator.domain.shape) == 3 else None
    return bsrem_iteration(problem.likelihood, RelativeDifference(axes=axes), options.weight)


def _each(views):
    return views


def _balanced(views):
    """The largest number of equal subsets up to 12."""
    return next(count for count in range(12, 0, -1) if views % count == 0)


METHODS = {
    "fbp": Method(("planar",), "filtered back-projection", lambda p, o: fbp(p.operator, p.y, o.window)),
    "fdk": Method(
        ("volume",), "Feldkamp's filtered back-projection", lambda p, o: fdk(p.operator, p.y, o.window)
    ),
    "art": Method(_CT, "Kaczmarz's method, view by view", _relaxed(art_iteration), False, 10, _each),
    "sart": Method(_CT, "simultaneous algebraic reconstruction", _relaxed(sart_iteration), False, 10, _each),
    "sirt": Method(_CT, "simultaneous iterative reconstruction", _relaxed(sirt_iteration), steps=100),
    "cgls": Method(_LINEAR, "least squares", lambda p, o: cgls_iteration(p.operator, p.y), steps=20),
    "lsqr": Method(_LINEAR, "least squares", lambda p, o: lsqr_iteration(p.operator, p.y), steps=20),
    "tv": Method(_LINEAR, "total variation", _differences(FiniteDifference, length), steps=200),
    "anisotropic_tv": Method(
        _LINEAR, "total variation along each axis", _differences(FiniteDifference, absolute), steps=200
    ),
    "tgv": Method(_LINEAR, "total generalised variation", _tgv, steps=300),
    "fractional_tv": Method(
        _LINEAR, "total variation of order 1.4", _differences(_fractional, length), steps=200
    ),
    "wavelet": Method(_LINEAR, "wavelet compressed sensing", _wavelet, steps=100),
    "mlem": Method(
        ("emission",), "maximum likelihood EM", lambda p, o: mlem_iteration(p.likelihood), True, steps=50
    ),
    "osem": Method(
        ("emission",), "ordered subsets EM", lambda p, o: osem_iteration(p.likelihood), True, 4, _balanced
    ),
    "bsrem": Method(("emission",), "relative-difference prior, by subsets", _bsrem, True, 30, _balanced),
    "mltr": Method(
        _CT,
        "maximum likelihood for transmission counts",
        lambda p, o: mltr_iteration(p.likelihood),
        True,
        steps=50,
    ),
    "cg_sense": Method(
        ("mri",), "conjugate gradients", lambda p, o: cg_sense_iteration(p.operator, p.y), steps=15
    ),
    "zero_filled": Method(("mri",), "adjoint", lambda p, o: zero_filled(p.operator, p.y)),
    "gridding": Method(
        ("mri",), "adjoint of weighted samples", lambda p, o: gridding(p.operator, p.y, p.density)
    ),
}
"""Methods by name."""


def method_for(name: str, problem: Problem) -> Method:
    """Looks a method up and checks that it is for the problem.

    Args:
        name: name in `METHODS`.
        problem: the problem.

    Returns:
        `Method`.

    Raises:
        ValueError: for an unknown name, with the nearest, or a method for another kind of data.
    """
    fitting = [known for known, method in METHODS.items() if _fits(method, problem)]
    if name not in METHODS:
        near = difflib.get_close_matches(name, METHODS, 1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ValueError(f"no method {name!r}{hint} for this scan there are {', '.join(fitting)}")
    method = METHODS[name]
    if name not in fitting:
        why = (
            "needs counts and"
            if problem.kind in method.kinds
            else f"is for {' and '.join(method.kinds)} problems and"
        )
        raise ValueError(f"{name} {why} does not fit this scan: use one of {', '.join(fitting)}")
    return method


def _fits(method, problem):
    if method.counts and problem.likelihood is None:
        return False
    return problem.kind in method.kinds and (method is not METHODS["gridding"] or problem.density is not None)
