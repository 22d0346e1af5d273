"""Volumes: resumed runs are the run, finite D draws a radius a slice, and a kept folder belongs to one run."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pgm_jax.operators import EachSlice, GaussianLikelihood, Matrix
from pgm_jax.priors import GaussianPrior
from pgm_jax.processes import EDM, PFGMpp
from pgm_jax.reconstruction import posterior_volume, volume

DEPTH, SLICE = 3, (2, 2, 1)


class SlicePrior:
    """An exact prior of slices with the process that `posterior_volume` reads."""

    def __init__(self, process, mean=0.0):
        self.process, self.exact = process, GaussianPrior(mean + jnp.zeros(SLICE), 0.5 * jnp.eye(4))

    def denoiser(self, process):
        return self.exact.denoiser(process)


jax.tree_util.register_pytree_node(
    SlicePrior,
    lambda prior: ((prior.exact,), prior.process),
    lambda process, leaves: _made(process, leaves[0]),
)


def _made(process, exact):
    prior = object.__new__(SlicePrior)
    prior.process, prior.exact = process, exact
    return prior


def _annealed(trust):
    return lambda process, t: trust * process.sigma(t) ** 2


def _likelihood(noise_std=0.1):
    matrix = jnp.asarray(np.random.default_rng(0).normal(size=(3, 4)), jnp.float32)
    operator = EachSlice(Matrix(matrix, image_shape=SLICE), DEPTH)
    truth = jnp.ones((DEPTH, *SLICE))
    return GaussianLikelihood.create(operator, operator(truth), noise_std), truth


@pytest.mark.parametrize("method, process", [("dds_3d", PFGMpp(8.0)), ("diffusion_mbir", EDM())])
def test_killed_and_resumed_is_the_run(tmp_path, method, process):
    likelihood, _ = _likelihood()
    settings = {"method": method, "steps": 4, "sigma_max": 5.0, "chunk": 1, "weight": 0.1, "rho": 1.0}
    settings["gamma"] = _annealed(3.0)
    arguments = (jax.random.key(0), SlicePrior(process), likelihood)
    whole = posterior_volume(*arguments, **settings)
    seen = []

    def kill(progress):
        seen.append(progress)
        if progress.done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        posterior_volume(*arguments, **settings, folder=tmp_path, watch=kill)
    assert [p.done for p in seen] == [0, 1, 2] and seen[0].seconds_left > 0 and seen[0].memory_bytes > 0
    seen.clear()
    # Another process holds another function object.
    settings["gamma"] = _annealed(3.0)
    resumed = posterior_volume(*arguments, **settings, folder=tmp_path, watch=seen.append)
    assert [p.done for p in seen] == [2, 3, 4]
    np.testing.assert_array_equal(resumed, whole)
    np.testing.assert_array_equal(posterior_volume(*arguments, **settings, folder=tmp_path), whole)
    with pytest.raises(ValueError, match="holds another run"):
        posterior_volume(jax.random.key(1), *arguments[1:], **settings, folder=tmp_path)
    for other in (_annealed(2.0), lambda process, t: 3.0 * process.sigma(t) ** 2):
        with pytest.raises(ValueError, match="holds another run"):
            posterior_volume(*arguments, **(settings | {"gamma": other}), folder=tmp_path)


def test_functions_are_told_apart_by_what_they_compute():
    told = volume._told
    assert told(_annealed(3.0)) == told(_annealed(3.0)) != told(_annealed(2.0))
    twins = [eval(f"lambda process, t: {trust} * t") for trust in (4.0, 2.0)]
    assert told(twins[0]) != told(twins[1])


def test_the_volume_fits_the_data_and_the_flat_stack():
    likelihood, truth = _likelihood(0.01)
    volume = posterior_volume(
        jax.random.key(2), SlicePrior(EDM(), 1.0), likelihood, steps=20, sigma_max=10.0, rho=50.0, weight=20.0,
        gamma=lambda process, t: process.sigma(t) ** 2,
    )  # fmt: skip
    residual = likelihood.operator(volume - truth)
    assert float(jnp.abs(residual).max()) < 0.1
    # Three measurements a slice leave one direction open, which the prior of mean 1 closes about the truth.
    assert float(jnp.abs(volume - truth).mean()) < 0.5


def test_refusals():
    likelihood, _ = _likelihood()
    with pytest.raises(ValueError, match="no volume method 'dds'"):
        posterior_volume(jax.random.key(0), SlicePrior(EDM()), likelihood, method="dds")
    flat = GaussianLikelihood.create(Matrix(jnp.eye(4), image_shape=SLICE), jnp.ones(4), 0.1)
    with pytest.raises(ValueError, match="use EachSlice"):
        posterior_volume(jax.random.key(0), SlicePrior(EDM()), flat)
