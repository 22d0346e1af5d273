"""Fast-DDPM: one grid for training and sampling, told apart from the whole chain, exact on a known denoiser."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pgm_jax.core import Network
from pgm_jax.recipes import generation


def test_training_draws_the_times_that_the_sampler_visits():
    for spacing, count in (("nonuniform", 10), ("uniform", 11)):
        grid = generation.fast_ddpm(10, spacing)
        assert grid.evaluations == count and grid.times[-1] == 0 and grid.times[0] == 1000
        seen = []

        def apply(params, x, t, cond=None, *, seen=seen, **_):
            jax.debug.callback(lambda t: seen.extend(np.asarray(t).tolist()), t)
            return params * x

        objective = generation.objective_of(grid, Network(lambda key: jnp.float32(0), apply))
        batch = {"x0": jnp.zeros((64, 4, 4, 1)), "cond": {"image": jnp.zeros((64, 4, 4, 1))}}
        objective(jnp.float32(0), (), batch, jax.random.key(0))
        jax.effects_barrier()
        told = {round(float(generation.told_level(grid.process, t).c_noise), 4) for t in grid.times[:-1]}
        assert {round(t, 4) for t in seen} == told


def test_the_loss_of_a_network_that_says_nothing_is_that_of_the_noise():
    grid = generation.full_ddpm(50)
    network = Network(lambda key: (), lambda params, x, t, cond=None, **_: jnp.zeros_like(x))
    batch = {"x0": jnp.ones((256, 8, 8, 1)), "cond": {"image": jnp.zeros((256, 8, 8, 1))}}
    loss, _ = generation.objective_of(grid, network)((), (), batch, jax.random.key(0))
    assert float(loss) == pytest.approx(1.0, abs=0.03)


@pytest.mark.parametrize("grid", [generation.fast_ddpm(10), generation.full_ddpm(100)])
def test_a_network_that_knows_the_image_draws_the_condition(grid):
    """Data that are a function of the condition: the noise is known, and every path ends there."""

    def apply(params, x, t, cond=None, **_):
        # t is ln(sigma / alpha) / 4.
        ratio = jnp.exp(4 * t).reshape(-1, 1, 1, 1)
        alpha = 1 / jnp.sqrt(1 + ratio**2)
        image = jnp.mean(cond["image"], axis=-1, keepdims=True)
        return (x - alpha * image) / (alpha * ratio)

    images = jax.random.normal(jax.random.key(1), (3, 4, 4, 2))
    network = Network(lambda key: (), apply)
    found = generation.translate(jax.random.key(2), grid, network, (), images)
    np.testing.assert_allclose(found, images.mean(-1, keepdims=True), atol=2e-4, equal_nan=False)


def test_the_whole_chain_has_its_thousand_steps():
    assert generation.full_ddpm().evaluations == 1000
    assert generation.full_ddpm().evaluations == 100 * generation.fast_ddpm(10).evaluations
