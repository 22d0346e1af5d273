"""Small inverse problems whose exact posterior is known: the ground of the exactness table."""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from pgm_jax.operators import GaussianLikelihood, Matrix, RealImage, Sense
from pgm_jax.priors import GaussianPrior, MixturePrior

PRIORS = ("gaussian", "mixture")
OPERATORS = ("dense", "fourier", "mask")
_SIDE = 4
_NOISE = {"dense": 0.3, "fourier": 0.3, "mask": 0.01}


class Problem(NamedTuple):
    """One inverse problem with its answer.

    Attributes:
        prior: exact prior over images of one shape.
        likelihood: `GaussianLikelihood` of a measurement drawn from the prior.
        posterior: the exact posterior, a prior of the same kind.
        known: `(mask, image)` of the measured entries for the "mask" operator, else None.
    """

    prior: Any
    likelihood: Any
    posterior: Any
    known: Any = None


def problem(prior, operator, seed=0):
    """Builds one problem, the same for the same names and seed.

    Args:
        prior: "gaussian" (one component) or "mixture" (three components).
        operator: "dense" (4 random projections of 8 numbers), "fourier" (masked centred Fourier transform
            of a 4 x 4 image) or "mask" (half of 8 numbers, nearly noise-free).
        seed: seed of the instance.

    Returns:
        `Problem`.

    Raises:
        ValueError: for another name.
    """
    if prior not in PRIORS or operator not in OPERATORS:
        raise ValueError(
            f"No problem ({prior!r}, {operator!r}): priors are {', '.join(PRIORS)}, "
            f"operators {', '.join(OPERATORS)}."
        )
    rng = np.random.default_rng(seed)
    shape = (_SIDE, _SIDE, 1) if operator == "fourier" else (2 * _SIDE,)
    law = _prior(prior, rng, shape)
    measure, mask = _operator(operator, rng, shape)
    truth = _draw(law, rng)
    clean = np.asarray(measure(jnp.asarray(truth, jnp.float32)))
    noise = rng.normal(size=(*clean.shape, 2))
    noise = noise[..., 0] + 1j * noise[..., 1] if np.iscomplexobj(clean) else noise[..., 0]
    std = _NOISE[operator]
    y = jnp.asarray((clean + std * noise).astype(clean.dtype))
    if operator == "fourier":
        y = jnp.where(mask, y, 0)
    likelihood = GaussianLikelihood.create(measure, y, std)
    posterior = law.posterior(measure, y, std)
    known = (jnp.asarray(mask), _placed(mask, y)) if operator == "mask" else None
    return Problem(law, likelihood, posterior, known)


def _covariance(rng, size):
    root = rng.normal(size=(size, size))
    return root @ root.T / size + 0.1 * np.eye(size)


def _prior(name, rng, shape):
    size = int(np.prod(shape))
    if name == "gaussian":
        mean, cov = rng.normal(size=shape), _covariance(rng, size)
        return GaussianPrior(jnp.asarray(mean, jnp.float32), jnp.asarray(cov, jnp.float32))
    means = 2 * rng.normal(size=(3, *shape))
    covs = np.stack([0.3 * _covariance(rng, size) for _ in range(3)])
    return MixturePrior(*(jnp.asarray(a, jnp.float32) for a in (np.array([0.5, 0.3, 0.2]), means, covs)))


def _draw(law, rng):
    if isinstance(law, GaussianPrior):
        mean, cov = np.asarray(law.mean), np.asarray(law.cov)
    else:
        mean, cov = np.asarray(law.means[0]), np.asarray(law.covs[0])
    return rng.multivariate_normal(mean.ravel(), cov).reshape(mean.shape)


def _operator(name, rng, shape):
    if name == "dense":
        return Matrix(jnp.asarray(rng.normal(size=(4, shape[0])), jnp.float32)), None
    if name == "fourier":
        mask = np.zeros((_SIDE, _SIDE), bool)
        mask[_SIDE // 2 - 1 : _SIDE // 2 + 1] = True
        return RealImage(Sense.single(_SIDE, _SIDE, jnp.asarray(mask, jnp.float32))), mask[None]
    mask = np.arange(shape[0]) % 2 == 0
    return Matrix(jnp.asarray(np.eye(shape[0])[mask], jnp.float32)), mask


def _placed(mask, y):
    image = np.zeros(mask.shape, np.float32)
    image[mask] = np.asarray(y)
    return jnp.asarray(image)
