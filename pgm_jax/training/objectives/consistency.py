"""Consistency objectives: the function of a state shall be that of a less noisy state of the same path.

    L = E w(t, s) d( f(x_t, t), sg f_target(x_s, s) ),   s < t,

with f the network under a parameterisation that is the identity at the boundary. In training, x_s is made of the
clean image and the same noise as x_t, for Normal and Student-t noise alike: the path of given ends is straight, and
its mean slope is that of the flow (Song et al. 2023, Theorem 2; PFCM: Hein et al. 2024). In distillation, x_s is
where a teacher's solver goes from x_t.

The objectives' carry is `{"step"}`, with "target" for an averaged target and "teacher" for its parameters, made by
`carry_of`; checkpoints hold it, so curricula go on where they stopped.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from pgm_jax.core import Estimate, Network, Objective, State, lift, safe_divide
from pgm_jax.guidance import cfg
from pgm_jax.networks import as_denoiser, told
from pgm_jax.training.objectives import distances
from pgm_jax.training.objectives.gaps import relative
from pgm_jax.training.objectives.pairs import draw_pairs, indices, network_keys, summary, uniforms
from pgm_jax.training.objectives.residual import call, noise_level

# Folds of a sample's key for a teacher's solver and for its guidance scale.
_SOLVER, _SCALE = 4, 6


class Teacher(NamedTuple):
    """Who is distilled; its parameters are `carry["teacher"]`.

    Attributes:
        network: `Network`.
        parameterisation: `(process, t) -> Coefficients`, with which it was trained.
        solver: `Sampler` that goes from x_t to x_s, such as `heun()`.
        scales: lowest and highest scale of classifier-free guidance, one drawn for each sample; None is without.
        null: condition that stands for none, of one sample, where there are scales.
    """

    network: Network
    parameterisation: Any
    solver: Any
    scales: tuple[float, float] | None = None
    null: Any = None


def carry_of(params=None, teacher=None):
    """Returns the initial carry of a consistency objective.

    Args:
        params: the student's initial parameters where the target is averaged (`rate`), else None.
        teacher: the teacher's parameters for distillation, else None.

    Returns:
        dict with "step" and what was given.
    """
    given = {"target": params, "teacher": teacher}
    return {"step": jnp.int32(0)} | {name: value for name, value in given.items() if value is not None}


def consistency_training(
    process, network: Network, parameterisation, gaps, *, distance=None, weighting=None, rate=None
) -> Objective:
    """Makes consistency training from data alone (Song et al. 2023, Algorithm 3; review Eq. 21 and 22, corrected).

    Improved training (Song and Dhariwal 2024) is `gaps.on_grid(curricula.doubling(steps), emphasis=(-1.1, 2.0))`
    with the defaults: no averaged target, pseudo-Huber distance, weight `1 / (t - s)`. PFCT is the same on a
    `PFGMpp` of finite D.

    Args:
        process: affine process of any noise law.
        network: `Network`, called with the same dropout keys for both states.
        parameterisation: the identity at the lowest level of `gaps`: `precondition.consistency(sigma_data,
            sigma_min)` for a grid that ends at sigma_min, `precondition.edm(sigma_data)` for one that ends at 0.
        gaps: `(process, u, step) -> (t, s)`, see `gaps`.
        distance: `(a, b) -> (batch,)`; `distances.pseudo_huber()` by default.
        weighting: `(process, t, s) -> w`; `inverse_gap` by default.
        rate: `step -> mu`: the target is an average of the parameters, as first published; None uses them as they
            are, their gradient stopped.

    Returns:
        `(params, carry, batch, key) -> (loss, (carry, metrics))`, the carry of `carry_of`; batch and metrics as of
        `denoising`.
    """

    def mixed_down(carry, pairs, s, cond, key):
        return jax.vmap(lambda x0, noise, x1, s: process.mix(Estimate(x0, noise, x1), s))(
            pairs.x0, pairs.noise, pairs.x1, s
        )

    return _objective(process, network, parameterisation, gaps, mixed_down, distance, weighting, rate)


def ect(
    process, network: Network, parameterisation, stage=None, *, levels=None, q=2.0, c=None, floor=0.0
) -> Objective:
    """Makes easy consistency tuning: start from the parameters of a denoiser (Geng et al. 2025).

    `consistency_training` on pairs whose distance shrinks by stages (`gaps.relative`), at stage 0 nearly the
    denoiser's own objective. The recommended way to few steps.

    Args:
        process: affine process of any noise law.
        network: `Network` of the denoiser.
        parameterisation: that of the denoiser, exact at level 0, such as `precondition.edm(sigma_data)`.
        stage: stage by the step, such as `curricula.stages(every)`.
        levels: distribution of t, see `gaps.relative`; keep it within what the denoiser was trained for.
        q: base of the shrinking.
        c: bend of the pseudo-Huber distance; see `distances.pseudo_huber`.
        floor: level below which the function stays the denoiser, see `gaps.relative`.

    Returns:
        Objective, see `consistency_training`.
    """
    pairs = relative(levels, stage, q, floor=floor)
    return consistency_training(process, network, parameterisation, pairs, distance=distances.pseudo_huber(c))


def consistency_distillation(
    process,
    network: Network,
    parameterisation,
    gaps,
    teacher: Teacher,
    *,
    distance=None,
    weighting=None,
    rate=None,
) -> Objective:
    """Makes consistency distillation (Song et al. 2023, Algorithm 2; review Eq. 19, corrected; PFCM at finite D).

    With the teacher's `scales` it is latent consistency distillation (LCD; Luo et al. 2023, Algorithm 1), of
    latents or of pixels: the solver follows the guided teacher, `x0_null + scale (x0 - x0_null)`, and the student
    is told the scale at the end of its vector, `networks.told(cond, ln(scale))`, in training as in sampling.
    Published: `gaps.on_chain` of 50 times, `ddim()`, `precondition.latent_consistency`, scales (3, 15), rate .95.

    Args:
        process: process of the teacher and of the student, noise law included.
        network: see `consistency_training`; start it from the teacher's parameters.
        parameterisation: see `consistency_training`.
        gaps: see `consistency_training`.
        teacher: `Teacher`.
        distance: see `consistency_training`.
        weighting: `(process, t, s) -> w`; 1 by default, as published.
        rate: see `consistency_training`; `curricula.constant(.95)` as published.

    Returns:
        Objective, see `consistency_training`.
    """

    def solved(carry, pairs, s, cond, key):
        denoise = as_denoiser(teacher.network, carry["teacher"], process, teacher.parameterisation)

        def one(key, x_t, x1, t, s, cond, scale):
            estimator = lift(process, denoise, x1)
            if teacher.scales is not None:
                estimator = cfg(scale, teacher.null)(estimator)
            estimate = lambda key, x, t, state: estimator.apply(key, x, t, state, cond=cond)
            state = State(x_t, estimator.init(x_t), teacher.solver.init(x_t))
            return teacher.solver.step(key, process, estimate, state, t, s).x

        keys = jax.vmap(lambda key: jax.random.fold_in(key, _SOLVER))(key)
        return jax.vmap(one)(keys, pairs.x_t, pairs.x1, pairs.t, s, cond, _scales(teacher, key))

    def with_scale(cond, key):
        return cond if teacher.scales is None else told(cond, jnp.log(_scales(teacher, key)))

    weighting = weighting or (lambda process, t, s: jnp.ones_like(t))
    return _objective(process, network, parameterisation, gaps, solved, distance, weighting, rate, with_scale)


def inverse_gap(process, t, s):
    """Returns `1 / (r_t - r_s)`, r the level sigma / alpha: every pair's slope counts alike.

    Args:
        process: affine process.
        t: time of the noisier state.
        s: time of the other.

    Returns:
        Real scalar.
    """
    return safe_divide(1.0, noise_level(process, t) - noise_level(process, s))


def evaluate(process, network, parameterisation, params, x_t, t, cond=None, key=None):
    """Evaluates the consistency function of a batch, `f = c_skip x_t + c_out F(c_in x_t, c_noise)`.

    Args:
        process: affine process.
        network: `Network`.
        parameterisation: `(process, t) -> Coefficients`.
        params: its parameters.
        x_t: (b, ...) states.
        t: (b,) times.
        cond: conditions, or None.
        key: (b,) dropout keys, or None.

    Returns:
        (b, ...) clean images.
    """
    c = jax.vmap(lambda t: parameterisation(process, t))(t)
    scaled = jax.vmap(jnp.multiply)
    output = call(network, params, scaled(c.c_in, x_t), c.c_noise, cond, key)
    return scaled(c.c_skip, x_t) + scaled(c.c_out, output)


def draw_gaps(process, gaps, batch, key, step):
    """Draws pairs of times, and the state at the noisier of the two.

    Args:
        process: affine process.
        gaps: `(process, u, step) -> (t, s)`.
        batch: see `denoising`.
        key: PRNG key of the step.
        step: number of the step.

    Returns:
        `(Pairs, s)`, s (b,).
    """
    pairs = draw_pairs(process, lambda process, u: gaps(process, u, step)[0], batch, key)
    s = jax.vmap(lambda u: gaps(process, u, step)[1])(uniforms(key, indices(batch)))
    return pairs, s.astype(pairs.t.dtype)


def _scales(teacher, key):
    """The guidance scale of each sample, the same whenever it is asked for."""
    low, high = (1.0, 1.0) if teacher.scales is None else teacher.scales
    draw = lambda key: jax.random.uniform(jax.random.fold_in(key, _SCALE), minval=low, maxval=high)
    return jax.vmap(draw)(key)


def _objective(
    process, network, parameterisation, gaps, move, distance, weighting, rate, seen=lambda cond, key: cond
):
    distance = distances.pseudo_huber() if distance is None else distance
    weighting = inverse_gap if weighting is None else weighting

    def objective(params, carry, batch, key):
        index, cond, step = indices(batch), batch.get("cond"), carry["step"]
        pairs, s = draw_gaps(process, gaps, batch, key, step)
        keys = network_keys(key, index)
        carry = followed(carry, params, rate)
        target = jax.lax.stop_gradient(params if rate is None else carry["target"])
        x_s = jax.lax.stop_gradient(move(carry, pairs, s, cond, keys))
        cond = seen(cond, keys)
        f = evaluate(process, network, parameterisation, params, pairs.x_t, pairs.t, cond, keys)
        aim = evaluate(process, network, parameterisation, target, x_s, s, cond, keys)
        weight = jax.vmap(lambda t, s: weighting(process, t, s))(pairs.t, s)
        losses = weight * distance(f, jax.lax.stop_gradient(aim))
        level = jax.vmap(lambda t: noise_level(process, t))(pairs.t)
        loss, metrics = summary(losses, level)
        return loss, (carry | {"step": step + 1}, metrics)

    return objective


def followed(carry, params, rate):
    """Returns the carry with its averaged target moved towards the parameters.

    Args:
        carry: see `carry_of`.
        params: the parameters.
        rate: `step -> mu`, or None for no average.

    Returns:
        The carry.
    """
    # The parameters already hold the update of the step before, so this is the average after that step.
    if rate is None:
        return carry
    mu = rate(carry["step"])
    follow = lambda old, new: (mu * old + (1 - mu) * jax.lax.stop_gradient(new)).astype(old.dtype)
    return carry | {"target": jax.tree.map(follow, carry["target"], params)}
