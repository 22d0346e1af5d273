"""Draws by diffusers and azula with the exact denoiser of a Gaussian prior, as their users call them."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from pgm_jax.core import require
from pgm_jax.processes import karras


class Target(NamedTuple):
    """A Gaussian problem in PyTorch, float64.

    Attributes:
        denoise: `(x (n, N), sigma) -> x0`, exact under `x = x0 + sigma noise`; sigma is a number or (n, 1).
        matrix: (M, N) the operator.
        y: (M,) measurement.
        noise_std: its noise.
        size: N.
    """

    denoise: Callable
    matrix: Any
    y: Any
    noise_std: float
    size: int


def target_of(torch, given) -> Target:
    """Converts a problem of the table.

    Args:
        torch: the module.
        given: `Problem` with a Gaussian prior of vectors and a `Matrix`.

    Returns:
        `Target`.
    """
    double = lambda array: torch.from_numpy(np.array(array, np.float64))
    mean, matrix = double(given.prior.mean), double(given.likelihood.operator.values)
    variance, vectors = torch.linalg.eigh(double(given.prior.cov))

    def denoise(x, sigma):
        m, v, q = (part.to(x.dtype) for part in (mean, variance, vectors))
        shrunk = v / (v + torch.as_tensor(sigma, dtype=x.dtype) ** 2)
        return m + ((x - m) @ q * shrunk) @ q.T

    return Target(denoise, matrix, double(given.likelihood.y), float(given.likelihood.noise_std), len(mean))


def diffusers_edm(name):
    """Returns the draw of a scheduler of EDM's process, on `karras`.

    Args:
        name: class of `diffusers.schedulers`.

    Returns:
        `draw(torch, library, target, steps, samples)`.
    """

    def draw(torch, library, target, steps, samples):
        scheduler = getattr(library, name)()
        scheduler.set_timesteps(steps)
        x = scheduler.init_noise_sigma * torch.randn(samples, target.size, dtype=torch.float64)
        data = scheduler.config.sigma_data
        for t in scheduler.timesteps:
            scheduler.scale_model_input(x, t)
            sigma = float(scheduler.sigmas[scheduler.step_index])
            total = sigma**2 + data**2
            # What a network with EDM's preconditioning would return.
            output = (target.denoise(x, sigma) - data**2 / total * x) * math.sqrt(total) / (sigma * data)
            x = scheduler.step(output, t, x).prev_sample
        return x

    return draw


def diffusers_heun(torch, library, target, steps, samples):
    """Draws by `HeunDiscreteScheduler`; its betas are chosen so that its Karras grid is ours.

    Args:
        torch: the module.
        library: `diffusers.schedulers`.
        target: `Target`.
        steps: steps of the grid.
        samples: number of draws.

    Returns:
        (samples, N) draws.
    """
    grid = karras(steps)
    kept = 1 / (1 + np.geomspace(grid[-2], grid[0], 1000) ** 2)
    betas = 1 - kept / np.concatenate([[1.0], kept[:-1]])
    scheduler = library.HeunDiscreteScheduler(
        trained_betas=betas, use_karras_sigmas=True, clip_sample=False, prediction_type="epsilon"
    )
    scheduler.set_timesteps(steps)
    x = scheduler.init_noise_sigma * torch.randn(samples, target.size, dtype=torch.float64)
    for t in scheduler.timesteps:
        scheduler.scale_model_input(x, t)
        sigma = float(scheduler.sigmas[scheduler.step_index])
        x = scheduler.step((x - target.denoise(x, sigma)) / sigma, t, x).prev_sample
    return x


def diffusers_vp(name):
    """Returns the draw of a scheduler of DDPM's process with its default betas and trailing times.

    Args:
        name: class of `diffusers.schedulers`.

    Returns:
        `draw(torch, library, target, steps, samples)`.
    """

    def draw(torch, library, target, steps, samples):
        options = {"clip_sample": False, "prediction_type": "sample", "timestep_spacing": "trailing"}
        scheduler = getattr(library, name)(**options)
        scheduler.set_timesteps(steps)
        x = torch.randn(samples, target.size, dtype=torch.float64)
        for t in scheduler.timesteps:
            kept = float(scheduler.alphas_cumprod[t])
            x0 = target.denoise(x / math.sqrt(kept), math.sqrt(1 / kept - 1))
            x = scheduler.step(x0, t, x).prev_sample
        return x

    return draw


def azula_prior(name):
    """Returns the draw of a sampler of azula from the prior.

    Args:
        name: class of `azula.sample`.

    Returns:
        `draw(torch, library, target, steps, samples)`.
    """

    def draw(torch, library, target, steps, samples):
        parts = _azula(torch, target)
        return _azula_run(torch, getattr(parts.sample, name), parts.denoiser, target, steps, samples)

    return draw


def azula_moment_matching(torch, library, target, steps, samples):
    """Draws by `MMPSDenoiser` with as many solver steps as data; arguments and result as `diffusers_heun`."""
    parts = _azula(torch, target)
    noise = parts.covariance.IsotropicCovariance(torch.tensor(target.noise_std**2, dtype=torch.float64))
    measure = lambda x: x @ target.matrix.T
    options = {"solver": "cg", "iterations": len(target.y)}
    guided = parts.guidance.MMPSDenoiser(parts.denoiser, target.y, measure, noise, **options)
    return _azula_run(torch, parts.sample.DDPMSampler, guided, target, steps, samples)


def azula_diffpir(torch, library, target, steps, samples):
    """Draws by `DiffPIRDenoiser` with lambda 1, as our row has it; arguments and result as `diffusers_heun`."""
    parts = _azula(torch, target)
    measure = lambda x: x @ target.matrix.T
    options = {"lmbda": 1.0, "solver": "cg", "iterations": len(target.y)}
    guided = parts.guidance.DiffPIRDenoiser(parts.denoiser, target.y, measure, target.noise_std**2, **options)
    return _azula_run(torch, parts.sample.DDPMSampler, guided, target, steps, samples)


def azula_pigdm(torch, library, target, steps, samples):
    """Draws by `PGDMSampler` with fresh noise (eta 1); arguments and result as `diffusers_heun`."""
    parts = _azula(torch, target)
    inverse = torch.linalg.pinv(target.matrix)
    given = {"y": target.y, "A": lambda x: x @ target.matrix.T, "A_inv": lambda y: y @ inverse.T, "eta": 1.0}
    return _azula_run(torch, parts.guidance.PGDMSampler, parts.denoiser, target, steps, samples, **given)


def azula_dps(torch, library, target, steps, samples):
    """Draws by `DPSSampler` at its default strength; arguments and result as `diffusers_heun`, one draw a call."""
    parts = _azula(torch, target)
    given = {"y": target.y, "A": lambda x: x @ target.matrix.T}
    return _azula_run(torch, parts.guidance.DPSSampler, parts.denoiser, target, steps, samples, **given)


class _Azula(NamedTuple):
    denoiser: Any
    sample: Any
    guidance: Any
    covariance: Any


def _azula(torch, target):
    noise, denoise, *rooms = (
        require(f"azula.{room}", "peers")
        for room in ("noise", "denoise", "sample", "guidance", "linalg.covariance")
    )
    high, low = (level ** (1 / 7) for level in karras(2)[:2])

    class Karras(noise.Schedule):
        """EDM's process on the times of `karras`, whose last level stays above 0."""

        def __call__(self, t):
            return torch.ones_like(t), (low + t * (high - low)) ** 7

    class Exact(denoise.Denoiser):
        schedule = Karras()

        def forward(self, x_t, t, **_):
            return denoise.DiracPosterior(target.denoise(x_t, self.schedule(t)[1]))

    return _Azula(Exact(), *rooms)


def _azula_run(torch, sampler, denoiser, target, steps, samples, **given):
    run = sampler(denoiser, steps=steps, silent=True, dtype=torch.float64, **given)
    return run(run.init((samples, target.size), dtype=torch.float64))
