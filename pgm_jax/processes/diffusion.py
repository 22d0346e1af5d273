"""The named diffusion and flow processes: each a schedule, with any noise law."""

import numpy as np

from pgm_jax.processes import schedules
from pgm_jax.processes.affine import Affine
from pgm_jax.processes.normal import Normal


def EDM(law=None):
    """Builds EDM's process: `x_t = x0 + t noise`; the time is the noise level (Karras et al. 2022).

    Args:
        law: noise law, Normal by default; `StudentT(D)` makes it PFGM++.

    Returns:
        `Affine` process.
    """
    return Affine(schedules.ExplodingIdentity(), law or Normal())


def VE(sigma_min=0.01, sigma_max=50.0, law=None):
    """Builds the variance-exploding SDE (Song et al. 2021, Eq. 30), from clean data at t = 0.

    `sigma(t)^2 = sigma_min^2 ((sigma_max / sigma_min)^(2 t) - 1)`: the exact kernel of the SDE. References
    use `sigma_min (sigma_max / sigma_min)^t`, which takes the data at t = 0 as already noised by sigma_min.

    Args:
        sigma_min: smallest noise level, the scale at which the geometric growth starts.
        sigma_max: noise level at t = 1.
        law: noise law, Normal by default.

    Returns:
        `Affine` process on t in [0, 1].
    """
    return Affine(schedules.Exploding(float(sigma_min), float(sigma_max)), law or Normal())


def VP(beta_min=0.1, beta_max=20.0, law=None):
    """Builds the variance-preserving SDE with linear rate (Song et al. 2021, Eq. 32).

    `alpha = exp(-B / 2)`, `sigma^2 = 1 - exp(-B)`, `B = beta_min t + (beta_max - beta_min) t^2 / 2`.

    Args:
        beta_min: rate at t = 0.
        beta_max: rate at t = 1.
        law: noise law, Normal by default.

    Returns:
        `Affine` process on t in [0, 1].
    """
    return Affine(schedules.Preserving(float(beta_min), float(beta_max)), law or Normal())


def SubVP(beta_min=0.1, beta_max=20.0, law=None):
    """Builds the sub-VP SDE (Song et al. 2021, Eq. 29): VP's alpha with `sigma = 1 - exp(-B)`.

    Args:
        beta_min: rate at t = 0.
        beta_max: rate at t = 1.
        law: noise law, Normal by default.

    Returns:
        `Affine` process on t in [0, 1].
    """
    return Affine(schedules.SubPreserving(float(beta_min), float(beta_max)), law or Normal())


def Cosine(offset=0.008, law=None):
    """Builds the continuous cosine schedule (Nichol and Dhariwal 2021, Eq. 17); alpha is 0 at t = 1.

    Args:
        offset: small shift that keeps the first step from being too small.
        law: noise law, Normal by default.

    Returns:
        `Affine` process on t in [0, 1].
    """
    return Affine(schedules.CosineSchedule(float(offset)), law or Normal())


def FlowMatching(law=None):
    """Builds the straight path of flow matching: `x_t = (1 - t) x0 + t noise` (Lipman et al. 2023).

    Args:
        law: noise law, Normal by default.

    Returns:
        `Affine` process on t in [0, 1].
    """
    return Affine(schedules.Straight(), law or Normal())


def Trigonometric(sigma_data=1.0, law=None):
    """Builds TrigFlow's path: `x_t = cos(t) x0 + sin(t) sigma_data noise` (Lu and Song 2025).

    Args:
        sigma_data: standard deviation of the data, per real component.
        law: noise law, Normal by default.

    Returns:
        `Affine` process on t in [0, pi / 2].
    """
    return Affine(schedules.Circle(float(sigma_data)), law or Normal())


def DDPM(betas=None, law=None):
    """Builds the discrete chain of DDPM (Ho et al. 2020): t = i after i of T noising steps, 0 is clean.

    `q(x_i | x_{i-1}) = N(sqrt(1 - beta_i) x_{i-1}, beta_i)`, so `alpha_i^2 = prod_{j <= i} (1 - beta_j)`
    (the review's kernel in Sec. 2.1, corrected).

    Args:
        betas: (T,) noise variances of the steps; `linear_betas()` by default.
        law: noise law, Normal by default.

    Returns:
        `Affine` process on t in [0, T].

    Raises:
        ValueError: if a beta lies outside [0, 1], or only the last may be 1 (zero terminal SNR).
    """
    betas = np.asarray(linear_betas() if betas is None else betas, np.float64)
    if betas.ndim != 1 or not np.all((betas >= 0) & (betas <= 1)) or np.any(betas[:-1] == 1):
        raise ValueError(
            f"DDPM needs betas of shape (T,) in [0, 1), the last one at most 1; got shape {betas.shape}, "
            f"range [{betas.min():.3g}, {betas.max():.3g}]."
        )
    with np.errstate(divide="ignore"):
        table = np.concatenate([[0.0], np.cumsum(np.log1p(-betas))])
    return Affine(schedules.Tabulated(table), law or Normal())


def linear_betas(steps=1000):
    """Returns DDPM's linear betas, 1e-4 to 0.02 for 1000 steps, scaled by 1000 / steps otherwise.

    Args:
        steps: number T of steps.

    Returns:
        (T,) float64.
    """
    return np.linspace(1e-4, 0.02, steps) * (1000 / steps)


def scaled_linear_betas(steps=1000, beta_min=8.5e-4, beta_max=1.2e-2):
    """Returns the betas of latent diffusion: linear in their square root (Rombach et al. 2022).

    Args:
        steps: number T of steps.
        beta_min: first beta.
        beta_max: last beta.

    Returns:
        (T,) float64.
    """
    return np.linspace(np.sqrt(beta_min), np.sqrt(beta_max), steps) ** 2


def cosine_betas(steps=1000, offset=0.008, largest=0.999):
    """Returns the cosine betas, clipped (Nichol and Dhariwal 2021, Eq. 17).

    Args:
        steps: number T of steps.
        offset: small shift at the clean end.
        largest: upper clip of beta.

    Returns:
        (T,) float64.
    """
    f = np.cos((np.arange(steps + 1) / steps + offset) / (1 + offset) * np.pi / 2) ** 2
    return np.minimum(1 - f[1:] / f[:-1], largest)


def zero_terminal_snr(betas):
    """Rescales betas so that the last state holds no signal (Lin et al. 2024, Algorithm 1).

    `sqrt(abar)` is shifted and scaled so that its first entry stays and its last is 0. Predict x0 or v then:
    the noise does not determine the image at the last step.

    Args:
        betas: (T,) betas.

    Returns:
        (T,) float64, the last one 1.
    """
    root = np.sqrt(np.cumprod(1 - np.asarray(betas, np.float64)))
    root = (root - root[-1]) * root[0] / (root[0] - root[-1])
    ratio = np.concatenate([root[:1], root[1:] / root[:-1]])
    return 1 - ratio**2
