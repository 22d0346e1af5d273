"""Denoising score matching for every affine process, parameterisation and weighting."""

import jax

from pgm_jax.core import Network, Objective
from pgm_jax.training.objectives.conditions import drop_conditions
from pgm_jax.training.objectives.pairs import draw_pairs, drop_key, indices, network_keys, summary
from pgm_jax.training.objectives.residual import mean_square, weighted_error


def denoising(
    process,
    network: Network,
    parameterisation,
    levels,
    weighting=None,
    *,
    condition_dropout=0.0,
    null=None,
    stratified: bool = False,
) -> Objective:
    """Makes the denoising objective, whose optimum is the posterior mean:

        L = E w(t) |x0_hat(x_t, t) - x0|^2 / N,   x_t = alpha x0 + beta x1 + sigma noise,

    N the number of real components of an image, the mean taken over the batch. It is DDPM's simple loss, EDM's,
    PFGM++'s (Student-t noise), flow matching's and I2SB's by the choice of its arguments (Ho et al. 2020,
    Eq. 14; Karras et al. 2022, Eq. 8; Xu et al. 2023; Lipman et al. 2023, Eq. 9; Liu et al. 2023,
    Eq. 12).

    The error is computed in float32 from coefficients that stay bounded as t -> 0 and as alpha -> 0 (see
    `residual`), so the loss is finite over the whole range; a weight that itself has no bound under the chosen
    parameterisation (`simple` on a network that predicts x0) makes it large there, not infinite.

    Args:
        process: affine process; a bridge reads `batch["x1"]`.
        network: `Network(init, apply)`, called once a batch with `train=True` and `key` (b,), one for each
            sample; see `as_denoiser` for what it sees of complex images.
        parameterisation: `(process, t) -> Coefficients`, such as `precondition.edm(sigma_data)`.
        levels: distribution of t, such as `levels.lognormal()`.
        weighting: `(process, t) -> w` on the loss of x0, such as `weighting.min_snr()`. None is unit weight on
            the network's own output: the simple loss under `predict_noise`, EDM's under `precondition.edm`,
            flow matching's under `predict_velocity`, I2SB's under `predict_residual`.
        condition_dropout: probability with which a sample loses all its conditions.
        null: what stands for no condition, `{"class": classes}`; see `drop_conditions`.
        stratified: spread the times evenly over the batch instead of drawing them independently.

    Returns:
        `(params, carry, batch, key) -> (loss, (carry, metrics))` with a batch `{"x0", "x1"?, "cond"?, "index"?}`
        of leading axis b. Sample i draws from `fold_in(key, index[i])`, index 0, 1, ... if absent. The metrics
        are "loss" and "worst_level", the sigma / alpha of the sample with the largest or a non-finite loss.

    Raises:
        ValueError: if condition_dropout is not in [0, 1).
    """
    losses = sample_losses(
        process,
        network,
        parameterisation,
        levels,
        weighting,
        condition_dropout=condition_dropout,
        null=null,
        stratified=stratified,
    )

    def objective(params, carry, batch, key):
        loss, metrics = summary(*losses(params, batch, key))
        return loss, (carry, metrics)

    return objective


def sample_losses(
    process,
    network: Network,
    parameterisation,
    levels,
    weighting=None,
    *,
    condition_dropout=0.0,
    null=None,
    stratified=False,
):
    """Makes the loss of each sample, of which `denoising` is the mean.

    Args:
        process: see `denoising`.
        network: see `denoising`.
        parameterisation: see `denoising`.
        levels: see `denoising`.
        weighting: see `denoising`.
        condition_dropout: see `denoising`.
        null: see `denoising`.
        stratified: see `denoising`.

    Returns:
        `(params, batch, key) -> (losses (b,), levels (b,))`.

    Raises:
        ValueError: if condition_dropout is not in [0, 1).
    """
    if not 0 <= condition_dropout < 1:
        raise ValueError(f"condition_dropout is a probability in [0, 1), got {condition_dropout}.")

    def losses(params, batch, key):
        index, cond = indices(batch), batch.get("cond")
        pairs = draw_pairs(process, levels, batch, key, stratified=stratified)
        if condition_dropout:
            chance = lambda i: jax.random.bernoulli(drop_key(key, i), condition_dropout)
            cond = drop_conditions(cond, jax.vmap(chance)(index), null)
        error, level = weighted_error(
            process,
            network,
            parameterisation,
            weighting,
            params,
            pairs,
            cond,
            key=network_keys(key, index),
        )
        return mean_square(error), level

    return losses
