"""The adversarial term of few-step models: a discriminator that learns beside the student, inside one objective.

    L = L_few-step + lambda L_G,   L_G = -E D(x'),   L_D = E max(0, 1 - D(x)) + E max(0, 1 + D(x'))

with x the images of the batch and x' the student's own (Kim et al. 2024, Eq. 15 and 16, with the hinge loss). The
discriminator's parameters and its optimiser's state live in the objective's carry, made by `adversarial_carry`;
checkpoints hold it, so that a run goes on where it stopped.
"""

import re
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from pgm_jax.core import Network, Objective, inner, safe_divide, split_complex
from pgm_jax.networks import told
from pgm_jax.training.objectives import levels
from pgm_jax.training.objectives.consistency import draw_gaps, evaluate
from pgm_jax.training.objectives.pairs import at_least_float32, draw_pairs, indices, network_keys
from pgm_jax.training.objectives.residual import split_conditions


class Adaptive(NamedTuple):
    """A weight that keeps the adversarial gradient in proportion: `share |grad L| / |grad L_G|`, at most `most`.

    The norms are those of the named parameters, as published the last layer's. It costs no pass of its own.

    Attributes:
        last: regular expression, searched for in the paths of the parameters, such as "head/conv/kernel".
        share: the adversarial gradient's norm as a multiple of the other's.
        most: largest weight, for a discriminator that hardly pushes.
    """

    last: str
    share: float = 1.0
    most: float = 1e4


def adversarial_carry(carry, params, optimiser):
    """Returns the initial carry of `adversarial`.

    Args:
        carry: initial carry of the objective that it is added to.
        params: the discriminator's parameters.
        optimiser: optax `GradientTransformation` of the discriminator.

    Returns:
        dict with "objective", "step", "discriminator", "optimiser" and "hinge", the discriminator's last loss.
    """
    start = {"step": jnp.int32(0), "hinge": jnp.float32(0)}
    return {"objective": carry, "discriminator": params, "optimiser": optimiser.init(params)} | start


def adversarial(
    objective: Objective,
    generated,
    discriminator: Network,
    optimiser,
    *,
    start: int = 0,
    every: int = 2,
    weight: float | Adaptive = 1.0,
) -> Objective:
    """Adds an adversarial term to a few-step objective, with the hinge loss (Kim et al. 2024, Eq. 15 and 16).

    Student and discriminator each see the other as it was before the step. The means run over the whole batch of
    the program: with `accumulate` the discriminator learns from the last microbatch, and `train_step(axis=...)` is
    not for it, since each device would learn another one.

    With `Adaptive` each loss is differentiated once, inside the objective, and the weighted sum of the gradients is
    handed on as that of a linear function; such a loss has no second derivative.

    Args:
        objective: the few-step objective.
        generated: `(params, carry, batch, key) -> images` of the student, (b, ...) as `batch["x0"]`, with the carry
            of `objective`: `jump_images` or `consistency_images`.
        discriminator: `Network`, called as `apply(params, images, None, cond) -> logits` of any shape; complex
            images and conditions are shown as real channels.
        optimiser: optax `GradientTransformation` of the discriminator.
        start: first step with the term; those before cost nearly as much.
        every: steps between two steps of the discriminator.
        weight: lambda, a number, or `Adaptive`.

    Returns:
        Objective with the carry of `adversarial_carry`. Its metrics are those of `objective` and "few_step",
        "adversarial", "adversarial_weight", "hinge"; "loss" is the sum, NaN where the discriminator breaks.

    Raises:
        ValueError: for `start` or `every` out of range or a weight below 0; while tracing, for a carry without
            discriminator, or with one whose optimiser's state is missing or another's, and for an `Adaptive` that
            names no parameter.
    """
    _check_settings(start, every, weight)
    combine = _adapted if isinstance(weight, Adaptive) else _added

    def whole(params, carry, batch, key):
        _check_carry(carry, optimiser)
        on = carry["step"] >= start
        learns = on & ((carry["step"] - start) % every == 0)
        cond = split_conditions(batch.get("cond"))

        def logits(player, images):
            return at_least_float32(discriminator.apply(player, split_complex(images), None, cond))

        def few_step(params):
            loss, (own, metrics) = objective(params, carry["objective"], batch, key)
            return loss, (loss, own, metrics)

        def fooling(params):
            images = generated(params, carry["objective"], batch, key)
            return _when(on, lambda x: -jnp.mean(logits(carry["discriminator"], x)), images), images

        loss, factor, (plain, own, metrics), (gan, images) = combine(few_step, fooling, params, weight)
        players = at_least_float32(batch["x0"]), jax.lax.stop_gradient(images)
        learnt = _learnt(lambda player: _hinge(logits, player, *players), optimiser, carry, learns)
        # A discriminator that breaks ends the run as any other loss does, before a checkpoint holds it.
        total = jnp.where(jnp.isfinite(learnt["hinge"]), loss, jnp.nan)
        terms = {"few_step": plain, "adversarial": gan, "adversarial_weight": factor}
        carry = carry | learnt | {"objective": own, "step": carry["step"] + 1}
        return total, (carry, metrics | terms | {"loss": total, "hinge": learnt["hinge"]})

    return whole


def consistency_images(process, network: Network, parameterisation, gaps):
    """Makes the images of a consistency model, `f(x_t, t)` of the very states that its objective draws.

    The compiler evaluates f once for both losses; each has its own backward pass.

    Args:
        process: affine process of any noise law.
        network: `Network`.
        parameterisation: `(process, t) -> Coefficients`.
        gaps: those of the objective, see `gaps`.

    Returns:
        `(params, carry, batch, key) -> images`, the carry of `carry_of`.
    """

    def generated(params, carry, batch, key):
        pairs, _ = draw_gaps(process, gaps, batch, key, carry["step"])
        keys = network_keys(key, indices(batch))
        return evaluate(
            process, network, parameterisation, params, pairs.x_t, pairs.t, batch.get("cond"), keys
        )

    return generated


def jump_images(process, network: Network, parameterisation, trajectory):
    """Makes the images of CTM, one jump `G(x_t, t, e)` from a time of the grid to its boundary e.

    Args:
        process: affine process of any noise law.
        network: `Network` built for the target (`networks.jump`).
        parameterisation: `(process, t) -> Coefficients`.
        trajectory: that of the objective, see `ctm`.

    Returns:
        `(params, carry, batch, key) -> images`.
    """
    times = np.asarray(trajectory.times, np.float64)
    law = levels.discrete(times[1:])

    def generated(params, carry, batch, key):
        pairs = draw_pairs(process, law, batch, key)
        end = jnp.full_like(pairs.t, times[0])
        cond = told(batch.get("cond"), jax.vmap(lambda s: parameterisation(process, s).c_noise)(end))
        keys = network_keys(key, indices(batch))
        x0 = evaluate(process, network, parameterisation, params, pairs.x_t, pairs.t, cond, keys)
        jump = lambda x, t, x0, s: process.mix(process.estimate(x, t, x0), s)
        return jax.vmap(jump)(pairs.x_t, pairs.t, x0, end)

    return generated


def _added(few_step, fooling, params, weight):
    (loss, rest), (gan, images) = few_step(params), fooling(params)
    return loss + weight * gan, weight, rest, (gan, images)


def _adapted(few_step, fooling, params, weight):
    held = jax.lax.stop_gradient(params)
    (loss, rest), slope = jax.value_and_grad(few_step, has_aux=True)(held)
    (gan, images), push = jax.value_and_grad(fooling, has_aux=True)(held)
    ratio = safe_divide(_norm_of(slope, weight.last), _norm_of(push, weight.last))
    factor = weight.share * jnp.minimum(ratio, weight.most)
    joined = jax.tree.map(lambda a, b: a + factor.astype(jnp.real(b).dtype) * b, slope, push)
    # 0, with the gradient that was computed above.
    linear = jax.tree.map(lambda g, p, at: inner(jnp.conj(g), p - at), joined, params, held)
    return loss + factor * gan + sum(jax.tree.leaves(linear)), factor, rest, (gan, images)


def _norm_of(gradient, pattern):
    leaves = jax.tree_util.tree_leaves_with_path(gradient)
    paths = [jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in leaves]
    named = [leaf for path, (_, leaf) in zip(paths, leaves, strict=True) if re.search(pattern, path)]
    if not named:
        raise ValueError(
            f"adversarial: no parameter's path matches {pattern!r}; there are {', '.join(paths)}."
        )
    return optax.tree.norm([at_least_float32(leaf) for leaf in named])


def _hinge(logits, player, real, fake):
    return jnp.mean(jax.nn.relu(1 - logits(player, real))) + jnp.mean(jax.nn.relu(1 + logits(player, fake)))


def _learnt(loss, optimiser, carry, learns):
    """The discriminator's part of the carry, after one step of its optimiser where it `learns`."""

    def step(old):
        hinge, slope = jax.value_and_grad(loss)(old["discriminator"])
        updates, state = optimiser.update(slope, old["optimiser"], old["discriminator"])
        player = optax.apply_updates(old["discriminator"], updates)
        hinge = jnp.where(jnp.isfinite(optax.tree.norm(updates)), hinge, jnp.nan)
        return {"discriminator": player, "optimiser": state, "hinge": hinge.astype(jnp.float32)}

    old = {name: carry[name] for name in ("discriminator", "optimiser", "hinge")}
    return jax.lax.cond(learns, step, lambda old: old, old)


def _when(on, function, x):
    """`function(x)` where on; else zero, and none of its work."""
    shape = jax.eval_shape(function, x)
    return jax.lax.cond(on, function, lambda x: jnp.zeros(shape.shape, shape.dtype), x)


def _check_settings(start, every, weight):
    if start < 0 or every < 1 or not (isinstance(weight, Adaptive) or weight >= 0):
        raise ValueError(
            f"adversarial needs start >= 0, every >= 1 and weight >= 0, got {start}, {every} and {weight}."
        )


def _check_carry(carry, optimiser):
    if not isinstance(carry, dict) or "discriminator" not in carry:
        raise ValueError(
            "adversarial: the carry has no discriminator: make it by adversarial_carry(carry, params, optimiser)."
        )
    described = lambda tree: jax.tree.map(lambda leaf: (jnp.shape(leaf), jnp.result_type(leaf)), tree)
    needed = jax.eval_shape(optimiser.init, carry["discriminator"])
    if "optimiser" not in carry or described(carry["optimiser"]) != described(needed):
        raise ValueError(
            "adversarial: the carry has a discriminator without the state of its optimiser: make both by "
            "adversarial_carry(carry, params, optimiser), or restore both from one checkpoint."
        )
