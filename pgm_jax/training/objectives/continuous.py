"""Consistency in continuous time: TrigFlow's sCT and sCD, by one forward-mode derivative of the network."""

import jax
import jax.numpy as jnp

from pgm_jax.core import Network, Objective, safe_divide
from pgm_jax.networks import as_denoiser
from pgm_jax.training.objectives.consistency import Teacher
from pgm_jax.training.objectives.pairs import draw_pairs, indices, network_keys, summary
from pgm_jax.training.objectives.residual import call, mean_square, noise_level

# Added to the tangent's norm before dividing by it (Lu and Song 2025, Sec. 4.2).
_TANGENT = 0.1


def scm(
    process,
    network: Network,
    levels,
    sigma_data=0.5,
    *,
    teacher: Teacher | None = None,
    warmup: int = 10_000,
    weighting=None,
) -> Objective:
    """Makes simplified continuous-time consistency training, or distillation with a teacher (Lu and Song 2025):

        f = cos(a) x - sin(a) d F(x / d, a),   x = cos(a) x0 + sin(a) d noise,   a = arctan(level / d),
        g = -cos^2(a) (d F- - x') - w cos(a) sin(a) (x + d dF-/da),   L = E |F - sg(F- + g / (|g| + .1))|^2 / N,

    x' = cos(a) d noise - sin(a) x0 in training (sCT) and `d F_teacher` in distillation (sCD), w rising to 1 over
    the warm-up. For Student-t noise x is the same with that noise. `cos(a) sin(a) dF/da` along the path is one
    `jvp`, which the attention of `networks` allows. Start from a denoiser's parameters under
    `precondition.trigonometric(d)`, and sample with it as a consistency function.

    Args:
        process: affine process of any noise law; its states are brought to the circle.
        network: `Network` under `precondition.trigonometric(sigma_data)`.
        levels: distribution of t; `levels.lognormal(-1.0, 1.4)` of sigma / d for images of 32 pixels.
        sigma_data: d, standard deviation of the data.
        teacher: `Teacher`, whose solver is not used; its parameters are `carry["teacher"]`. None trains from data.
        warmup: steps until w is 1.
        weighting: `(process, t) -> weight` on L; 1 by default.

    Returns:
        Objective with the carry of `carry_of`; its metrics also have "tangent", the root mean square of g.

    Raises:
        ValueError: for a warm-up below one step.
    """
    if warmup < 1:
        raise ValueError(f"scm needs a warm-up of at least 1 step, got {warmup}.")
    each = jax.vmap(jnp.multiply)

    def objective(params, carry, batch, key):
        index, cond = indices(batch), batch.get("cond")
        pairs, keys = draw_pairs(process, levels, batch, key), network_keys(key, index)
        level = jax.vmap(lambda t: noise_level(process, t))(pairs.t)
        angle = jnp.arctan(level / sigma_data)
        cosine, sine = jnp.cos(angle), jnp.sin(angle)
        x = each(cosine, pairs.x0) + each(sigma_data * sine, pairs.noise)
        if teacher is None:
            slope = each(sigma_data * cosine, pairs.noise) - each(sine, pairs.x0)
        else:
            clean = _taught(process, teacher, carry["teacher"], pairs, cond)
            slope = each(safe_divide(1.0, sine), each(cosine, x) - clean)
        function = lambda x, angle: call(network, params, x, angle, cond, keys)
        both = each(cosine * sine / sigma_data, slope), cosine * sine
        output, rate = jax.jvp(function, (x / sigma_data, angle), both)
        fixed, rate = jax.lax.stop_gradient((output, rate))
        share = jnp.minimum(1.0, (carry["step"] + 1) / warmup)
        tangent = -each(cosine**2, sigma_data * fixed - slope)
        tangent -= share * (each(cosine * sine, x) + sigma_data * rate)
        square = mean_square(tangent)
        norm = jnp.sqrt(square * (tangent.size / len(square)))
        losses = mean_square(output - fixed - each(1 / (norm + _TANGENT), tangent))
        if weighting is not None:
            losses = losses * jax.vmap(lambda t: weighting(process, t))(pairs.t)
        loss, metrics = summary(losses, level)
        metrics["tangent"] = jnp.sqrt(jnp.mean(square))
        return loss, (carry | {"step": carry["step"] + 1}, metrics)

    return objective


def _taught(process, teacher, params, pairs, cond):
    """The teacher's clean image of each state."""
    denoise = as_denoiser(teacher.network, params, process, teacher.parameterisation)
    return jax.vmap(denoise)(pairs.x_t, pairs.t, cond)
