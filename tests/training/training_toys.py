"""A small denoising problem whose every draw depends on the sample's index, and batches that know their place."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class Average(NamedTuple):
    """A constant-rate average: the form of every rule of `ema`."""

    name: str
    init: object
    update: object


def average(rate, name="half"):
    return Average(
        name,
        lambda params: params,
        lambda mean, params, step: jax.tree.map(lambda m, p: m + rate * (p - m), mean, params),
    )


def init(key, width=16):
    first, second = jax.random.split(key)
    return {
        "in": {"kernel": jax.random.normal(first, (5, width)) / 2, "bias": jnp.zeros(width)},
        "out": {"kernel": jax.random.normal(second, (width, 4)) / 4, "bias": jnp.zeros(4)},
    }


def network(params, x, level):
    x = jnp.concatenate([x, level[:, None]], axis=1)
    hidden = jnp.tanh(x @ params["in"]["kernel"] + params["in"]["bias"][None])
    return hidden @ params["out"]["kernel"] + params["out"]["bias"][None]


def objective(params, carry, batch, key):
    """Denoises 4-vectors at a random level; row i draws from `fold_in(key, index[i])`."""

    def draw(index, x0):
        level, noise = jax.random.split(jax.random.fold_in(key, index))
        sigma = jnp.exp(jax.random.normal(level))
        return sigma, x0 + sigma * jax.random.normal(noise, x0.shape)

    sigma, noisy = jax.vmap(draw)(batch["index"], batch["x0"])
    errors = jnp.mean((network(params, noisy, jnp.log(sigma)) - batch["x0"]) ** 2, axis=1)
    # An argmax over rows on several devices would gather them; two maxima reduce scalars.
    worst = jnp.isnan(errors) | (errors == errors.max())
    worst_level = jnp.where(worst, sigma, 0.0).max()
    metrics = {"level": sigma.mean(), "worst_error": errors.max(), "worst_level": worst_level}
    return errors.mean(), ({"steps": carry["steps"] + 1}, metrics)


CARRY = {"steps": 0}


class Rows:
    """Batches of 4-vectors: batch n depends on n alone; process p of q gives its share of the rows."""

    def __init__(self, rows=16, process=0, processes=1):
        self.rows, self.process, self.processes, self.next = rows, process, processes, 0

    def __iter__(self):
        return self

    def __next__(self):
        x0 = np.random.default_rng([7, self.next]).normal(size=(self.rows, 4)).astype(np.float32)
        self.next += 1
        share = self.rows // self.processes
        return {"x0": x0[self.process * share : (self.process + 1) * share]}

    def get_state(self):
        return {"next": self.next}

    def set_state(self, state):
        self.next = state["next"]


def stateless(rows=16):
    iterator = Rows(rows)
    while True:
        yield next(iterator)
