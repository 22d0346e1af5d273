"""The exactness table: samplers and guidance against exact posteriors, one row a case."""

import jax
import jax.numpy as jnp
import numpy as np

from pgm_jax.metrics import coverage, energy_distance
from pgm_jax.priors import GaussianPrior
from pgm_jax.processes import Normal, karras
from pgm_jax.samplers import sample
from pgm_jax.verify.cases import GUIDANCE, SAMPLERS, build_process, default_cases
from pgm_jax.verify.moments import gaussian_moments, moment_errors
from pgm_jax.verify.problems import problem

# A few conjugate gradient steps are not affine in the image, so DDS is measured on samples, and so is guidance
# that draws noise of its own beside the sampler's.
_AFFINE = ("none", "exact", "moment_matching", "pigdm", "score_mri", "ddrm")
_ONE_DRAW = ("ancestral", "ddim", "heun", "reverse_diffusion", "ctm")


def verify(cases=None, samples=1024, seed=0, progress=None):
    """Runs cases of the exactness table.

    Each row says how far a sampler with a guidance, run with the exact denoiser, ends from the exact
    posterior: what is left is the method's own error. With a Gaussian prior, Normal noise and an affine
    guidance, mean and covariance are propagated exactly; elsewhere they come from the samples and carry a
    statistical error of about `sqrt(2 N / samples)` in the covariance.

    Args:
        cases: list of `Case`; the default subset if None.
        samples: number of draws a row.
        seed: seed of the problems and draws.
        progress: optional `(done, total, row)`, called after each row.

    Returns:
        List of dicts `{library, process, D, sampler, guidance, prior, operator, steps, mean_err, cov_err,
        energy, cover50, cover90, exact_moments}`: `mean_err` in units of the posterior's root total
        variance, `cov_err` relative in Frobenius norm, `energy` the energy distance to exact draws,
        `cover50` and `cover90` the fraction of exact draws inside the central intervals of the draws.
    """
    cases = default_cases() if cases is None else cases
    rows = []
    for case in cases:
        rows.append(run_case(case, samples, seed))
        if progress is not None:
            progress(len(rows), len(cases), rows[-1])
    return rows


def run_case(case, samples=1024, seed=0):
    """Runs one case; see `verify`.

    Args:
        case: `Case`.
        samples: number of draws.
        seed: seed of the problem and of the draws.

    Returns:
        One row, a dict.
    """
    target = problem(case.prior, "dense" if case.operator == "none" else case.operator, seed)
    truth = target.prior if case.guidance == "none" else target.posterior
    process = build_process(case)
    start = min(80.0, float(process.ratio(0.9999)) if case.process in ("VP", "VE", "FlowMatching") else 80.0)
    grid = karras(case.steps, sigma_max=start, process=process)
    draws = _draws(case, target, process, grid, samples, seed)
    exact = jax.vmap(truth.sample)(jax.random.split(jax.random.key(seed + 1), samples))
    moments = _moments(case, target, process, grid)
    mean_err, cov_err = _errors(draws, exact, truth, moments)
    return {
        "library": "pgm_jax",
        **case._asdict(),
        "D": case.D if np.isfinite(case.D) else None,
        "mean_err": float(mean_err),
        "cov_err": float(cov_err),
        **law_figures(draws, exact),
        "exact_moments": moments is not None,
    }


def law_figures(draws, exact):
    """Compares two sets of draws beyond their moments.

    Args:
        draws: (n, *image) draws of a method.
        exact: (m, *image) exact draws.

    Returns:
        dict `{energy, cover50, cover90}`, see `verify`.
    """
    return {
        "energy": float(energy_distance(draws[:512], exact[:512])),
        "cover50": _covered(draws, exact, 0.5),
        "cover90": _covered(draws, exact, 0.9),
    }


def _draws(case, target, process, grid, samples, seed):
    shape = target.likelihood.operator.domain.shape

    @jax.jit
    def run(key, process):
        return sample(
            key,
            SAMPLERS[case.sampler](),
            target.prior.denoiser(process),
            process,
            grid,
            shape=(samples, *shape),
            guidance=GUIDANCE[case.guidance](target),
        )

    return run(jax.random.key(seed), process)


def _moments(case, target, process, grid):
    affine = case.guidance in _AFFINE and case.sampler in _ONE_DRAW
    flat = isinstance(target.prior, GaussianPrior) and target.prior.mean.ndim == 1
    if not (affine and flat and isinstance(process.law, Normal)):
        return None
    mean, sigma = jnp.zeros_like(target.prior.mean), float(process.sigma(grid[0]))
    guidance = GUIDANCE[case.guidance](target)
    run = jax.jit(
        lambda mean, cov: gaussian_moments(
            SAMPLERS[case.sampler](), target.prior.denoiser(process), process, grid, mean, cov, guidance
        )
    )
    return run(mean, sigma**2 * jnp.eye(mean.size))


def _errors(draws, exact, truth, moments):
    if moments is not None:
        return moment_errors(*moments, truth)
    flat, reference = draws.reshape(len(draws), -1), exact.reshape(len(exact), -1)
    mean, cov = jnp.mean(flat, axis=0), jnp.cov(flat, rowvar=False)
    if isinstance(truth, GaussianPrior):
        return moment_errors(mean, cov, truth.replace(mean=truth.mean.ravel()))
    true_mean, true_cov = jnp.mean(reference, axis=0), jnp.cov(reference, rowvar=False)
    return moment_errors(mean, cov, GaussianPrior(true_mean, true_cov))


def _covered(draws, exact, level):
    """Fraction of exact draws, over every coordinate, inside the central interval of the method's draws."""
    inside = jax.vmap(lambda truth: coverage(draws, truth, level))(exact[:256])
    return float(jnp.mean(inside))
