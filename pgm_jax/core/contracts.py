"""The narrow waist: what crosses the borders between rooms.

The unit is one sample: every function takes one image, slab or volume, without a batch axis, and one key.
Noise levels (`sigma`, `noise_std`) are per real component; a complex unit draw has E|n|^2 = 2.

Pytrees cross a `jit` border (processes, noise laws, operators, likelihoods, parameters, states); functions
(denoisers, guidance, estimators, samplers) do not: build those inside the jitted function.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from jax import Array
from jax.typing import ArrayLike

Grid = np.ndarray
"""Times in visiting order, float64 on the host: (n + 1,), or (n + 1, *image) for voxel-wise time."""


class Estimate(NamedTuple):
    """The coordinates of a state on its path: `x_t = alpha x0 + beta x1 + sigma noise`.

    Attributes:
        x0: estimate of the clean image; the probability of each class for a categorical process.
        noise: estimate of the unit noise.
        x1: given end point of a bridge, else None.
    """

    x0: Array
    noise: Array
    x1: Array | None = None


Denoiser = Callable[..., Array]
"""`(x_t, t, cond) -> x0_hat`, the posterior mean of the clean image."""

JumpDenoiser = Callable[..., Array]
"""`(x_t, t, cond, s) -> x0`, told its target s: `mix(estimate, s)` is the jump to s."""


@runtime_checkable
class NoiseLaw(Protocol):
    """Unit isotropic noise. Only a process calls it; what it cannot do it refuses, with the reason."""

    def sample(self, key, shape, dtype) -> Array: ...

    def log_prob(self, noise) -> Array: ...

    def refresh(self, noise, fresh, r) -> Array: ...

    def widen(self, key, shape, dtype, small, large) -> Array: ...

    def score(self, noise, sigma) -> Array: ...

    def gain(self, sigma, residual_sq, size) -> Array: ...

    def tilt(self, noise, sigma, grad, dsigma, gain) -> Array: ...

    def marginalise(self, conditional, power=0.0) -> tuple[Array, Any]: ...


@runtime_checkable
class Process(Protocol):
    """What every sampler and objective may call; affine and categorical processes both have it."""

    def perturb(self, key, x0, t, x1=None) -> Array: ...

    def prior(self, key, shape, t, x1=None) -> Array: ...

    def log_prior(self, x, t) -> Array: ...

    def estimate(self, x_t, t, x0, x1=None) -> Estimate: ...

    def reverse(self, key, x_t, estimate, t, s, eta, of="posterior") -> Array: ...

    def renoise(self, key, x_t, t, s) -> Array: ...


@runtime_checkable
class Affine(Process, Protocol):
    """A process `x_t = alpha(t) x0 + beta(t) x1 + sigma(t) noise`: what ODE samplers and gradients add."""

    def alpha(self, t: ArrayLike) -> Array: ...

    def beta(self, t: ArrayLike) -> Array: ...

    def sigma(self, t: ArrayLike) -> Array: ...

    def mix(self, estimate, t) -> Array: ...

    def time(self, ratio) -> Array: ...

    def sde(self, t) -> tuple[Array, Array]: ...

    def tilt(self, estimate, x_t, t, grad, dsigma=0.0, gain=None) -> Estimate: ...


class Estimator(NamedTuple):
    """A denoiser with carried state: what guidance transforms and samplers call.

    Attributes:
        process: the process whose states it reads.
        init: `(x_t) -> state`.
        apply: `(key, x_t, t, state, *, cond=None, s=None) -> (Estimate, state)`.
    """

    process: Any
    init: Callable
    apply: Callable


Guidance = Callable[[Estimator], Estimator]


class State(NamedTuple):
    """What a sampler carries: the image, guidance's state, the sampler's own history."""

    x: Array
    guidance: Any
    memory: Any


def accept(process, grid) -> None:
    """Accepts every grid; the default of `Sampler.check`."""


class Sampler(NamedTuple):
    """One step of a sampling method; it knows no network, operator or condition.

    Attributes:
        init: `(x) -> memory`, the method's own history at the start.
        step: `(key, process, estimate, State, t, s) -> State`, where
            `estimate(key, x_t, t, guidance, s=None) -> (Estimate, guidance)`.
        check: `(process, grid) -> None`, raises on the host for a grid that the method cannot follow.
    """

    init: Callable
    step: Callable
    check: Callable = accept


@runtime_checkable
class LinearOperator(Protocol):
    """A linear map with its exact adjoint: one image in, one measurement out; inner products are Hermitian."""

    def __call__(self, x) -> Array: ...

    def adjoint(self, y) -> Array: ...

    def gram(self, x) -> Array: ...

    def norm(self) -> Array: ...

    def subset(self, i) -> "LinearOperator": ...


@runtime_checkable
class Likelihood(Protocol):
    """`p(y | x)` for a clean image x; holds the operator, the data, the noise and what can be cached."""

    def log_prob(self, x) -> Array: ...

    def grad(self, x) -> Array: ...

    def residual(self, x) -> Array: ...

    def prox(self, x, gamma, steps, x_init=None) -> Array: ...

    def solve(self, r, cov, *, rtol, max_steps) -> Array: ...


@runtime_checkable
class Representation(Protocol):
    """A change of coordinates of an image; its parameters are leaves."""

    linear: bool
    exact: bool

    def encode(self, x) -> Array: ...

    def decode(self, z) -> Array: ...


class Network(NamedTuple):
    """A network as two pure functions over a nested dict of arrays; the only place with a batch axis.

    Attributes:
        init: `(key, x, t, cond) -> params`.
        apply: `(params, x, t, cond, *, key=None, train=False) -> output`, x (b, ...), t (b,).
    """

    init: Callable
    apply: Callable


Objective = Callable[..., tuple]
"""`(params, carry, batch, key) -> (loss, (carry, metrics))`."""


class System(NamedTuple):
    """What a recipe returns.

    Attributes:
        process: the corruption process.
        network: `Network`, or None for an exact prior.
        objective: the training objective, or None.
        representation: coordinates in which the process runs, or None.
        draw: `(key, params, inputs) -> one image`; callers vmap it.
    """

    process: Any
    network: Any
    objective: Any
    representation: Any
    draw: Callable
