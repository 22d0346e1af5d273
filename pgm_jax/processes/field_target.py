"""Targets from a reference batch: PFGM's normalised field and the stable target of any noise law.

Both are weighted means over reference images with softmax weights, accumulated chunk by chunk, so that memory
does not grow with the batch.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from pgm_jax.core import inner, real_size
from pgm_jax.processes.conversions import poisson_field
from pgm_jax.processes.normal import unit_normal


def field_target(x, z, reference, gamma=5.0, chunk=64):
    """Returns PFGM's regression target at one perturbed point (Xu et al. 2022, Eq. 5 and 7).

    `w_i ~ |(x, z) - (y_i, 0)|^-(N + 1)`, `e = sum_i w_i (y_i - x, -z)`, `sqrt(N) e / (|e| + gamma)`: the
    field points to the data. For a finite batch the estimate is biased; with the whole data set it is exact.
    Put the image that was perturbed into the batch.

    Args:
        x: perturbed image.
        z: its augmented coordinate, a positive scalar.
        reference: (B, *image) images, all of the batch.
        gamma: softening of the norm, in units of the data.
        chunk: images weighed at once.

    Returns:
        `(v_x, v_z)`: an array of the shape of x and a scalar.
    """
    size = real_size(x)

    def log_weight(y):
        offset = x - y
        return -0.5 * (size + 1) * jnp.log(inner(offset, offset) + z**2)

    return poisson_field(x, z, _weighted_mean(log_weight, reference, chunk), gamma)


def stable_target(process, x_t, t, reference, x1=None, chunk=64):
    """Returns the posterior mean of x0 given x_t over a reference batch (Xu et al. 2023, STF).

    `w_i ~ p(x_t | x0 = y_i)` by the process's own noise law. It replaces the single clean image as the
    regression target: less variance, and a bias that vanishes as the batch grows to the whole data set.

    Args:
        process: affine process with any law.
        x_t: state; sigma(t) is positive or the voxel is clean.
        t: its time.
        reference: (B, *image) clean images.
        x1: given end point of a bridge.
        chunk: images weighed at once.

    Returns:
        Array of the shape of x_t.
    """

    def log_weight(y):
        return process.law.log_prob(process.estimate(x_t, t, y, x1).noise)

    return process.estimate(x_t, t, _weighted_mean(log_weight, reference, chunk), x1).x0


def pfgm_perturb(key, y, M=291, tau=0.03, sigma=0.01, restrict_M=False):
    """Draws a training point of PFGM in the augmented space (Xu et al. 2022, Eq. 6 and App. B.1.1).

    `x = y + |e_x| (1 + tau)^m u`, `z = |e_z| (1 + tau)^m`, m uniform in [0, M], e_x and e_z Normal of scale
    sigma in N and 1 dimensions, u uniform on the sphere.

    Args:
        key: PRNG key.
        y: clean image.
        M: largest exponent; see `pfgm_hyperparameters`.
        tau: growth of the perturbation per unit of m.
        sigma: smallest perturbation, in units of the data.
        restrict_M: draw m from [0, 0.7 M] where |e_z| < sigma / 2, so that no point has a large radius and a
            vanishing z.

    Returns:
        `(x, z)`: an array of the shape of y and a positive scalar.
    """
    key_m, key_norm, key_z, key_u = jax.random.split(key, 4)
    e_z = jnp.abs(sigma * jax.random.normal(key_z))
    limit = jnp.where((e_z < 0.5 * sigma) & restrict_M, 0.7 * M, M)
    growth = jnp.exp(limit * jax.random.uniform(key_m) * math.log1p(tau))
    e_x, direction = unit_normal(key_norm, y.shape, y.dtype), unit_normal(key_u, y.shape, y.dtype)
    radius = sigma * jnp.sqrt(inner(e_x, e_x)) * growth
    return y + (radius / jnp.sqrt(inner(direction, direction))) * direction, e_z * growth


class PFGMHyperparameters(NamedTuple):
    """PFGM's hyper-parameters from `pfgm_hyperparameters`.

    Attributes:
        M: largest exponent of `pfgm_perturb`.
        z_max: augmented coordinate at which sampling starts.
        upper_norm: norm to which the reference clips its prior.
    """

    M: int
    z_max: float
    upper_norm: float


def pfgm_hyperparameters(data, sigma=0.01, tau=0.03):
    """Returns PFGM's hyper-parameters for a data set (Xu et al. 2022, App. B.1.1 and B.2.1).

    `M = floor(0.75 ln(E|y|^2 / (2 sqrt(N) sigma^2)) / ln(1 + tau)) + 1`,
    `z_max = sqrt(2 / pi) sigma (1 + tau)^M`, `upper_norm = sqrt(N) sigma (1 + tau)^M`.

    Args:
        data: (n, ...) real or complex images.
        sigma: smallest perturbation, in units of the data.
        tau: growth of the perturbation per unit of the exponent.

    Returns:
        `PFGMHyperparameters`.

    Raises:
        ValueError: for data that are not finite, or too close to 0 for this sigma.
    """
    data = np.asarray(data)
    size = data[0].size * (2 if np.iscomplexobj(data) else 1)
    energy = float(np.sum(np.abs(data).astype(np.float64) ** 2) / len(data))
    ratio = energy / (2 * math.sqrt(size) * sigma**2)
    if not (math.isfinite(ratio) and ratio > 1):
        raise ValueError(
            f"pfgm_hyperparameters: the images' mean squared norm {energy:.3g} must be finite and above "
            f"2 sqrt(N) sigma^2 = {energy / ratio if ratio > 0 else 0:.3g}; choose a smaller sigma."
        )
    exponent = math.floor(0.75 * math.log(ratio) / math.log1p(tau)) + 1
    growth = sigma * (1 + tau) ** exponent
    return PFGMHyperparameters(exponent, math.sqrt(2 / math.pi) * growth, math.sqrt(size) * growth)


def _weighted_mean(log_weight, reference, chunk):
    """Softmax-weighted mean over the leading axis, with a running maximum: `sum_i softmax(l)_i y_i`."""
    count = reference.shape[0]
    chunk = min(chunk, count)
    padding = -count % chunk
    # Padding repeats the last image, whose weight is then set to zero.
    index = np.minimum(np.arange(count + padding), count - 1).reshape(-1, chunk)
    valid = (np.arange(count + padding) < count).reshape(-1, chunk)

    def add(carry, rows):
        top, total, mean = carry
        images = reference[rows[0]]
        log_weights = jnp.where(rows[1], jax.vmap(log_weight)(images), -jnp.inf)
        new_top = jnp.maximum(top, jnp.max(log_weights))
        weights, shrink = jnp.exp(log_weights - new_top), jnp.exp(top - new_top)
        mean = shrink * mean + jnp.tensordot(weights.astype(images.dtype), images, axes=1)
        return (new_top, shrink * total + jnp.sum(weights), mean), None

    first = log_weight(reference[0])
    start = (first, jnp.zeros_like(first), jnp.zeros_like(reference[0]))
    (_, total, mean), _ = jax.lax.scan(add, start, (jnp.asarray(index), jnp.asarray(valid)))
    return mean / total
