"""Objectives whose target is a mean over a large reference batch: PFGM's field and the stable target."""

import jax
import jax.numpy as jnp

from pgm_jax.core import Network, Objective, join_complex, safe_divide, sample_key, split_complex
from pgm_jax.processes import (
    PFGM,
    field_target,
    pfgm_perturb,
    stable_target as posterior_mean,
    x0_from_poisson_field,
)
from pgm_jax.training.objectives.pairs import draw_pairs, indices, network_keys, summary
from pgm_jax.training.objectives.residual import (
    mean_square,
    split_conditions,
    weighted_error,
)


def pfgm_field(
    network: Network,
    parameterisation,
    perturbed: int,
    *,
    M=291,
    tau=0.03,
    sigma=0.01,
    gamma=5.0,
    restrict_M=False,
    chunk=16,
) -> Objective:
    """Makes PFGM's own objective: regress the normalised Poisson field (Xu et al. 2022, Eq. 5-7, Algorithm 1).

        L = E |f(x, z) - sqrt(N) e / (|e| + gamma)|^2 / (N + 1),   e the field of the whole batch at (x, z).

    The first `perturbed` images are perturbed and the whole batch makes the field, so the target of a finite
    batch is biased; `denoising(PFGM(), ...)` has the same optimum without the bias. The reference sums over
    components and halves: its loss is (N + 1) / 2 times this one.

    Args:
        network: takes (b, ..., c) and returns (b, ..., c + 1) channels (2c + 1 for a complex image): the field
            along the image, and one more whose mean is the field along z.
        parameterisation: its c_in and c_noise at (PFGM(), z) scale the network's input and tell it z.
        perturbed: number of images, from the first, that are perturbed; smaller than the batch.
        M: largest exponent of the perturbation; see `pfgm_hyperparameters`.
        tau: growth per unit of the exponent.
        sigma: smallest perturbation, in units of the data.
        gamma: softening of the norm.
        restrict_M: see `pfgm_perturb`.
        chunk: images weighed at once: memory is perturbed x chunk images.

    Returns:
        Objective; see `denoising`. "worst_level" is z.
    """

    def objective(params, carry, batch, key):
        index = indices(batch)[:perturbed]
        reference = jnp.asarray(batch["x0"])
        _check_perturbed(perturbed, reference.shape[0])

        def one(index, y):
            x, z = pfgm_perturb(sample_key(key, index), y, M, tau, sigma, restrict_M)
            return x, z, *field_target(x, z, reference, gamma, chunk)

        x, z, target, target_z = jax.vmap(one)(index, reference[:perturbed])
        cond = jax.tree.map(lambda leaf: leaf[:perturbed], batch.get("cond"))
        v_x, v_z = _field(network, parameterisation, params, x, z, cond, network_keys(key, index))
        size = x[0].size * (2 if jnp.iscomplexobj(x) else 1)
        losses = (size * mean_square(v_x - target) + (v_z - target_z) ** 2) / (size + 1)
        loss, metrics = summary(losses, z)
        return loss, (carry, metrics)

    return objective


def field_denoiser(network: Network, params, parameterisation, gamma=5.0):
    """Makes the denoiser of a network that `pfgm_field` trained, for use with `PFGM()`.

    Args:
        network: see `pfgm_field`.
        params: its parameters.
        parameterisation: that of training.
        gamma: that of training.

    Returns:
        `denoise(x_t, z, cond=None) -> x0` for one image; see `x0_from_poisson_field`.
    """

    def denoise(x_t, t, cond=None):
        cond = jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], cond)
        v_x, v_z = _field(network, parameterisation, params, x_t[None], jnp.asarray(t)[None], cond)
        return x0_from_poisson_field(x_t, t, v_x[0], v_z[0], gamma).astype(x_t.dtype)

    return denoise


def stable_target(
    process, network: Network, parameterisation, levels, perturbed: int, weighting=None, *, chunk=16
) -> Objective:
    """Makes the denoising objective with the stable target (Xu et al. 2023, Stable Target Field).

    The clean image as target is replaced by the posterior mean over the whole batch: less variance, and a bias
    that vanishes as the batch grows to the whole data set. Any process and noise law.

    Args:
        process: affine process without an end point.
        network: see `denoising`.
        parameterisation: see `denoising`.
        levels: see `denoising`.
        perturbed: number of images, from the first, that are noised; the rest are reference.
        weighting: see `denoising`.
        chunk: images weighed at once: memory is perturbed x chunk images.

    Returns:
        Objective; see `denoising`. It raises a ValueError for a batch with "cond" or "x1": the reference images
        belong to other conditions, so their mean is not the target.
    """

    def objective(params, carry, batch, key):
        if batch.get("cond") is not None or batch.get("x1") is not None:
            raise ValueError(
                "stable_target averages images over the batch, whatever their condition: for a conditional model "
                "or a bridge use denoising()."
            )
        reference = jnp.asarray(batch["x0"])
        _check_perturbed(perturbed, reference.shape[0])
        index = indices(batch)[:perturbed]
        pairs = draw_pairs(process, levels, {"x0": reference[:perturbed], "index": index}, key)
        pairs = jax.vmap(lambda pair: _stable(process, pair, reference, chunk))(pairs)
        error, level = weighted_error(
            process, network, parameterisation, weighting, params, pairs, key=network_keys(key, index)
        )
        loss, metrics = summary(mean_square(error), level)
        return loss, (carry, metrics)

    return objective


def _stable(process, pair, reference, chunk):
    x0 = posterior_mean(process, pair.x_t, pair.t, reference, chunk=chunk)
    # The noise that keeps x_t in place; the difference is exactly 0 where one image takes all the weight.
    ratio = safe_divide(process.alpha(pair.t), process.sigma(pair.t))
    return pair._replace(x0=x0, noise=pair.noise + ratio * (pair.x0 - x0))


def _field(network, parameterisation, params, x, z, cond, key=None):
    c = jax.vmap(lambda z: parameterisation(PFGM(), z))(z)
    seen = split_complex(jax.vmap(jnp.multiply)(c.c_in, x))
    train = {} if key is None else {"key": key, "train": True}
    output = network.apply(params, seen, c.c_noise, split_conditions(cond), **train)
    expected = (*seen.shape[:-1], seen.shape[-1] + 1)
    if output.shape != expected:
        raise ValueError(
            f"the network returned {output.shape}: PFGM's field needs {expected}, one channel more than its input."
        )
    output = output.astype(jnp.finfo(x.dtype).dtype)
    v_x = join_complex(output[..., :-1]) if jnp.iscomplexobj(x) else output[..., :-1]
    return v_x, jnp.mean(output[..., -1], axis=tuple(range(1, output.ndim - 1)))


def _check_perturbed(perturbed, size):
    if not 0 < perturbed <= size:
        raise ValueError(
            f"perturbed = {perturbed} images of a batch of {size}: give a number from 1 to {size}."
        )
