"""Consistency objectives against closed forms: Gaussian data, the population's optimum on a grid, finite D."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from pgm_jax.core import Network
from pgm_jax.networks import TARGET_FEATURES
from pgm_jax.processes import EDM, karras, precondition
from pgm_jax.samplers import ddim, heun
from pgm_jax.training import objectives as o
from pgm_jax.training.objectives.consistency import draw_gaps

STD, LOW, HIGH = 0.5, 0.002, 80.0


def levels(count):
    return karras(count, LOW, HIGH)[:-1][::-1]


def linear(count):
    """A network that multiplies by a number for each level of the grid: f = params[level] x."""
    times = jnp.asarray(levels(count), jnp.float32)

    def apply(params, x, t, cond=None, *, key=None, train=False):
        place = jnp.argmin(jnp.abs(times[None] - t[:, None]), axis=1)
        return params[place].reshape(-1, *[1] * (x.ndim - 1)) * x

    return Network(lambda key, x, t, cond=None: jnp.ones(count), apply)


def direct(process, t):
    """f = F(x, t), but the identity at the lowest level."""
    at_end = t <= LOW * 1.0001
    one = jnp.ones_like(t)
    return precondition.Coefficients(jnp.where(at_end, 1.0, 0.0), jnp.where(at_end, 0.0, 1.0), one, t)


def gaussian(key, count=4096):
    return {"x0": STD * jax.random.normal(key, (count, 1))}


def test_one_exact_sweep_reaches_the_population_optimum():
    """1281 levels, from the clean end up, one Newton step each: .997782 of the exact map (foundations O22)."""
    count = 1281
    grid = jnp.asarray(levels(count), jnp.float32)
    here = lambda process, u, step: (grid[step + 1], grid[step])
    objective = o.consistency_training(
        EDM(), linear(count), direct, here, distance=o.distances.squared, weighting=lambda *_: 1.0
    )

    def sweep(params, step):
        key = jax.random.fold_in(jax.random.key(0), step)
        loss = lambda a: objective(params.at[step + 1].set(a), {"step": step}, gaussian(key), key)[0]
        a = params[step + 1]
        return params.at[step + 1].add(-jax.grad(loss)(a) / jax.grad(jax.grad(loss))(a)), None

    params, _ = jax.jit(lambda p: jax.lax.scan(sweep, p, jnp.arange(count - 1)))(jnp.ones(count))
    exact = np.sqrt((STD**2 + LOW**2) / (STD**2 + HIGH**2))
    assert abs(params[-1] / exact / 0.997782 - 1) < 2e-3


@pytest.mark.parametrize("count, ratio", [(11, 0.752777), (18, 0.846086)])
def test_training_a_linear_model_reaches_the_population_optimum(count, ratio):
    """Within 1 % of the product of Euler's factors, by stochastic gradients of the whole objective."""
    objective = o.consistency_training(
        EDM(), linear(count), direct, o.gaps.on_grid(count, LOW, HIGH), distance=o.distances.squared,
        weighting=lambda process, t, s: 1 / (STD**2 + t**2),
    )  # fmt: skip
    steps = 4000
    optimiser = optax.sgd(optax.cosine_decay_schedule(2.0, steps))

    def step(state, n):
        params, opt, carry = state
        key = jax.random.fold_in(jax.random.key(1), n)
        grads, (carry, _) = jax.grad(objective, has_aux=True)(params, carry, gaussian(key, 512), key)
        updates, opt = optimiser.update(grads, opt)
        return (optax.apply_updates(params, updates), opt, carry), None

    params = jnp.sqrt((STD**2) / (STD**2 + jnp.asarray(levels(count)) ** 2))
    state = params, optimiser.init(params), o.carry_of()
    (params, _, carry), _ = jax.jit(lambda s: jax.lax.scan(step, s, jnp.arange(steps)))(state)
    exact = np.sqrt((STD**2 + LOW**2) / (STD**2 + HIGH**2))
    assert carry["step"] == steps and abs(params[-1] / exact / ratio - 1) < 0.01


def test_distillation_follows_the_teachers_solver():
    """From the clean end up, f at each level is that below times one Heun step of the exact denoiser, exactly."""
    count = 9
    grid = jnp.asarray(levels(count), jnp.float32)
    exact = Network(None, lambda params, x, t, cond=None, **_: params / (params + t[:, None] ** 2) * x)
    plain = lambda process, t: precondition.Coefficients(0 * t, t**0, t**0, t)
    objective = o.consistency_distillation(
        EDM(), linear(count), direct, lambda process, u, step: (grid[step + 1], grid[step]),
        o.Teacher(exact, plain, heun()), distance=o.distances.squared,
    )  # fmt: skip
    carry = o.carry_of(teacher=jnp.float32(STD**2))

    def one(params, step):
        key = jax.random.key(step)
        loss = lambda a: objective(
            params.at[step + 1].set(a), carry | {"step": step}, gaussian(key, 64), key
        )[0]
        a = params[step + 1]
        return params.at[step + 1].add(-jax.grad(loss)(a) / jax.grad(jax.grad(loss))(a)), None

    params, _ = jax.jit(lambda p: jax.lax.scan(one, p, jnp.arange(count - 1)))(jnp.ones(count))
    t, s = np.asarray(grid[1:], np.float64), np.asarray(grid[:-1], np.float64)
    slope = lambda level: level / (STD**2 + level**2)
    trial = 1 + (s - t) * slope(t)
    factor = 1 + (s - t) * (slope(t) + slope(s) * trial) / 2
    np.testing.assert_allclose(params[1:], np.cumprod(factor), rtol=1e-4)


def test_latent_distillation_follows_the_guided_teacher_and_tells_the_scale():
    """One DDIM step of x0_null + scale (x0 - x0_null), by hand; the student reads ln(scale) off its vector."""
    process, shift = EDM(), 1.5

    def teach(params, x, t, cond=None, **_):
        mean = shift * cond["vector"][:, :1]
        return mean + params / (params + t[:, None] ** 2) * (x - mean)

    seen = []

    def study(params, x, t, cond=None, *, key=None, train=False):
        vector = cond["vector"][:, -TARGET_FEATURES:]
        seen.append(jnp.exp(jnp.arctan2(vector[:, 0], vector[:, TARGET_FEATURES // 2]) * 4 / jnp.pi))
        # Zero at t and the state itself at s: the loss is |x_s|^2.
        return jnp.where(t[:, None] > 1.5, 0.0, x) * params

    plain = lambda process, t: precondition.Coefficients(0 * t, t**0, t**0, t)
    t, s = jnp.float32(2.0), jnp.float32(1.0)
    teacher = o.Teacher(Network(None, teach), plain, ddim(), (3.0, 3.0), {"vector": jnp.zeros(1)})
    objective = o.consistency_distillation(
        process, Network(None, study), plain, lambda process, u, step: (t, s), teacher,
        distance=o.distances.squared,
    )  # fmt: skip
    batch = gaussian(jax.random.key(0), 64) | {"cond": {"vector": jnp.ones((64, 1))}}
    key, variance = jax.random.key(1), STD**2
    loss = objective(jnp.float32(1.0), o.carry_of(teacher=jnp.float32(variance)), batch, key)[0]
    pairs, _ = draw_gaps(process, lambda process, u, step: (t, s), batch, key, 0)
    gain = variance / (variance + 4)
    free, given = gain * pairs.x_t, shift + gain * (pairs.x_t - shift)
    guided = free + 3 * (given - free)
    x_s = guided + (pairs.x_t - guided) / 2
    assert float(loss) == pytest.approx(float(jnp.mean(x_s**2)), rel=1e-5)
    np.testing.assert_allclose(jnp.concatenate(seen), 3.0, rtol=1e-5)
