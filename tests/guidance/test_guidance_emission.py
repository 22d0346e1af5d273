"""Guidance by emission counts: EM steps in closed form, by-hand gradients, matched likelihoods, a small brain."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles.row_subsets import RowSubsets, positive_system
from scipy.special import kl_div

from pgm_jax.core import lift
from pgm_jax.data import Volume
from pgm_jax.data.pet_phantom import pet_phantom
from pgm_jax.guidance import dps, mlem_matching, pet_dds, pet_dps, pet_naive
from pgm_jax.operators import (
    PET,
    GaussianLikelihood,
    GaussianPSF,
    ImageGrid,
    ListModeEmission,
    Matrix,
    Parallel,
    ParallelBeam,
    PoissonEmission,
    RelativeDifference,
    simulate_scan,
)
from pgm_jax.priors import StationaryGaussianPrior
from pgm_jax.processes import EDM, VP, PFGMpp, karras
from pgm_jax.reconstruction import bsrem, mlem
from pgm_jax.samplers import ddim, sample, sample_one

SIZE, BACKGROUND = 6, 0.7
TRUTH = np.array([3.0, 0.0, 9.0, 5.0, 1.0, 12.0])
IMAGE = np.array([2.0, 1.0, 6.0, 7.0, 3.0, 8.0])
PROCESSES = pytest.mark.parametrize("process", [EDM(), VP(), PFGMpp(6.0)], ids=["edm", "vp", "pfgmpp"])


def _likelihood(count=1, background=BACKGROUND, shape=None):
    system = positive_system()
    y = np.random.default_rng(1).poisson(system @ TRUTH + background).astype(float)
    return PoissonEmission.create(RowSubsets(jnp.asarray(system), shape, None, count), y, background)


def _apply(guidance, denoise, process, x_t, t, state=None):
    estimator = guidance(lift(process, denoise))
    state = estimator.init(x_t) if state is None else state
    time = jnp.asarray(t, jnp.finfo(x_t.dtype).dtype)
    return jax.jit(lambda x, t, state: estimator.apply(jax.random.key(0), x, t, state))(x_t, time, state)


def _constant(image):
    return lambda x, t, cond=None: jnp.broadcast_to(image, x.shape).astype(x.dtype) + 0.0 * x


def _nonlinear(x, t, cond=None):
    return 2.0 + 3.0 * jnp.tanh(x + 0.3 * jnp.roll(x, 1))


@PROCESSES
def test_without_penalties_the_steps_are_those_of_em(x64, process):
    """A denoiser that knows one image: K steps from it are K steps of ML-EM, in the units of the network."""
    likelihood, scale, x_t = _likelihood(), 2.5, jnp.linspace(-1, 1, SIZE)
    guidance = pet_dds(likelihood, scale, steps=7, weight=0.0)
    found, _ = _apply(guidance, _constant(IMAGE / scale), process, x_t, 0.5)
    expected, _ = mlem(likelihood.operator, likelihood.y, 7, background=BACKGROUND, x_init=IMAGE)
    np.testing.assert_allclose(scale * found.x0, expected, rtol=1e-12)
    # As published the noise stays; else the state does.
    plain = process.estimate(x_t, 0.5, jnp.asarray(IMAGE / scale))
    np.testing.assert_allclose(found.noise, plain.noise, rtol=1e-12)
    kept, _ = _apply(
        pet_dds(likelihood, scale, 7, weight=0.0, keep_noise=False),
        _constant(IMAGE / scale),
        process,
        x_t,
        0.5,
    )
    np.testing.assert_allclose(process.mix(kept, 0.5), x_t, rtol=1e-12)


def test_subsets_and_the_penalty_are_those_of_bsrem(x64):
    """One pass over 4 carried subsets, two at each of two levels, with the relative difference prior."""
    likelihood, penalty = _likelihood(4, shape=(3, 2, 1)), RelativeDifference()
    start = jnp.asarray(IMAGE.reshape(3, 2, 1))
    guidance = pet_dds(likelihood, 1.0, 4, weight=0.0, penalty=penalty, penalty_weight=0.8)
    found, state = _apply(guidance, _constant(start), EDM(), start, 0.5)
    options = {"background": BACKGROUND, "x_init": start}
    expected, _ = bsrem(likelihood.operator, likelihood.y, penalty, 0.8, 1, **options)
    np.testing.assert_allclose(found.x0, expected, rtol=1e-12)
    twice = pet_dds(likelihood, 1.0, 2, weight=0.0, penalty=penalty, penalty_weight=0.8)
    half, state = _apply(twice, _constant(start), EDM(), start, 0.5)
    whole, state = _apply(twice, _constant(half.x0), EDM(), start, 0.4, state)
    np.testing.assert_allclose(whole.x0, expected, rtol=1e-12)
    assert int(state[1]) == 4


@pytest.mark.parametrize("weight", [None, 0.4, lambda process, t: 0.2 / process.sigma(t)])
def test_many_steps_end_at_the_penalised_maximum(x64, weight):
    """`grad L(v) + lambda (m - v) = 0` where v > 0; lambda `1 / (c r)^2` by default."""
    likelihood, scale, t = _likelihood(), np.array([2.5, 2.0, 1.5, 1.0, 2.0, 3.0]), 0.5
    guidance = pet_dds(likelihood, scale, steps=4000, weight=weight)
    found, _ = _apply(guidance, _constant(IMAGE / scale), EDM(), jnp.zeros(SIZE), t)
    v = scale * found.x0
    by_default = 1 / (scale**2 * t**2 / (1 + t**2))
    trust = by_default if weight is None else weight(EDM(), t) if callable(weight) else weight
    slope = likelihood.grad(v) + trust * (IMAGE - v)
    assert float(jnp.abs(slope).max()) < 1e-8 and float(v.min()) > 1e-3


def test_the_default_trusts_a_clean_image(x64):
    """At sigma 0 the image is known: only its negative values go."""
    image = IMAGE - 4
    found, _ = _apply(pet_dds(_likelihood(), 2.0), _constant(image), EDM(), jnp.asarray(image), 0.0)
    np.testing.assert_allclose(found.x0, np.maximum(image, 0), rtol=1e-14)


@PROCESSES
def test_dps_divides_by_the_divergence(x64, process):
    """`-weight d ln KL / dx_t` with KL from scipy, moved by sigma^2 / alpha; negative images push nothing."""
    likelihood, scale, weight, t, x_t = _likelihood(), 1.5, 0.3, 0.4, jnp.linspace(-1, 1, SIZE)
    found, _ = _apply(pet_dps(likelihood, scale, weight), _nonlinear, process, x_t, t)
    x0, jacobian = _nonlinear(x_t, t), jax.jacfwd(lambda x: _nonlinear(x, t))(x_t)
    image = np.maximum(scale * x0, 0)
    assert (image == 0).any() and (image > 0).any()
    system = np.asarray(likelihood.operator.values)
    mean = system @ image + BACKGROUND
    divergence = kl_div(np.asarray(likelihood.y), mean).sum()
    slope = scale * (image > 0) * (system.T @ (np.asarray(likelihood.y) / mean - 1))
    gain = weight * process.sigma(t) ** 2 / process.alpha(t)
    np.testing.assert_allclose(found.x0, x0 + gain * jacobian.T @ slope / divergence, rtol=1e-10)
    np.testing.assert_allclose(process.mix(found, t), x_t, rtol=1e-12)


@PROCESSES
def test_naive_reads_the_likelihood_on_the_noisy_state(x64, process):
    """Weight (N - k) / N at evaluation k, from 1 at the first to 0 after the last; no derivative of the network."""
    likelihood, scale, t, x_t = _likelihood(), 1.5, 0.4, jnp.linspace(-1, 4, SIZE)
    guidance, state, x0 = pet_naive(likelihood, 4, scale, 0.01), None, _nonlinear(x_t, t)
    alpha = process.alpha(t)
    noisy = jnp.maximum(x_t / alpha, 0)
    push = scale / alpha * jnp.where(x_t > 0, likelihood.grad(scale * noisy), 0)
    for k in range(6):
        found, state = _apply(guidance, _nonlinear, process, x_t, t, state)
        step = 0.01 * max(4 - k, 0) / 4 * process.sigma(t) ** 2 / alpha
        np.testing.assert_allclose(found.x0, x0 + step * push, rtol=1e-10)


@pytest.mark.parametrize("listed", [False, True])
def test_matching_reaches_the_likelihood_of_each_iterate(x64, listed):
    """ln p of the clean image equals the target of its level; none is needed above it, all is used below."""
    likelihood, scale = _likelihood(), 2.0
    if listed:
        events = np.repeat(np.arange(12), np.asarray(likelihood.y).astype(int))
        rows = likelihood.operator.values[events]
        likelihood = ListModeEmission.create(Matrix(rows), likelihood.sensitivity, BACKGROUND)
    log_prob = lambda x: float(likelihood.log_prob(scale * x))
    low, high = log_prob(IMAGE / scale), None
    em = IMAGE
    for _ in range(3):
        em = likelihood.expectation(em) / likelihood.sensitivities()
    high = log_prob(em / scale)
    targets = [low - 5.0, low + 0.25 * (high - low), low + 0.9 * (high - low), high + 1.0]
    guidance, state, found = mlem_matching(likelihood, targets, scale, steps=3), None, []
    for _ in range(5):
        estimate, state = _apply(guidance, _constant(IMAGE / scale), EDM(), jnp.zeros(SIZE), 0.5, state)
        found.append(estimate.x0)
    np.testing.assert_allclose(found[0], IMAGE / scale, rtol=1e-14)
    for image, target in zip(found[1:3], targets[1:3], strict=True):
        assert log_prob(image) == pytest.approx(target, abs=1e-6 * (high - low))
        # On the straight way to the iterate of ML-EM.
        share = (scale * image - IMAGE) / (em - IMAGE)
        np.testing.assert_allclose(share, share[0], rtol=1e-9)
    np.testing.assert_allclose(scale * found[3], em, rtol=1e-12)
    np.testing.assert_allclose(found[4], found[3], rtol=1e-14)


GUIDANCE = {
    "dds": lambda l: pet_dds(l, 2.0, 3, penalty=RelativeDifference(), penalty_weight=0.1),
    "dps": lambda l: pet_dps(l, 2.0, 0.1),
    "naive": lambda l: pet_naive(l, 6, 2.0, 0.01),
    "matching": lambda l: mlem_matching(l, jnp.linspace(-40, -20, 6), 2.0, 2),
}


@pytest.mark.parametrize("name", GUIDANCE)
def test_no_counts_new_counts_and_several_samples(name):
    """Finite in float32 without a count or a background; y is traced; a sample does not see the others."""
    traces, given = [], _likelihood(4, shape=(3, 2, 1))

    @jax.jit
    def run(key, y, x_init):
        traces.append(1)
        guidance = GUIDANCE[name](given.replace(y=y, background=0.0))
        # The posterior mean of N(3, 1), so that the samples stay apart.
        denoise = lambda x, t, cond: (x + 3 * t**2) / (1 + t**2)
        return sample(key, ddim(), denoise, EDM(), karras(6), x_init=x_init, guidance=guidance)

    key, y = jax.random.key(0), given.y.astype(jnp.float32)
    start = 80 * jax.random.normal(key, (3, 3, 2, 1))
    empty, counted = run(key, jnp.zeros_like(y), start), run(key, y, start)
    assert len(traces) == 1 and np.isfinite(empty).all() and np.isfinite(counted).all()
    assert not np.allclose(empty, counted, rtol=1e-3)
    other = run(key, y, start.at[0].set(7.0))
    np.testing.assert_allclose(other[1:], counted[1:], rtol=1e-5, atol=1e-6)
    assert not np.allclose(other[0], counted[0])


# A brain.


@functools.cache
def _brain():
    """A 32 x 32 slice of the PET phantom at 4 mm: grey shell, white core; 4e4 trues, simulated with strips."""
    axis = (np.arange(32) - 15.5) * 4.0
    radius = np.hypot(axis[:, None] * 0.9, axis[None, :])[None] * np.ones((3, 1, 1))
    grey, white = (radius >= 30) & (radius < 45), radius < 30
    make = lambda mask: Volume(1.0 * mask[..., None], (4.0, 4.0, 4.0), np.eye(4), "probability", "map")
    phantom = pet_phantom(make(grey), make(white))
    activity, mu = (volume.array[1] for volume in phantom)
    grid, geometry = ImageGrid((32, 32), 4.0), Parallel(np.arange(24) * np.pi / 24, 47, 4.0)
    blur = GaussianPSF.create((32, 32, 1), 4.5, 4.0)
    truth = PET.create(ParallelBeam(grid, geometry, "strip"), attenuation=mu, psf=blur)
    y, background, scale = jax.jit(lambda k, x: simulate_scan(k, truth, x, 4e4))(jax.random.key(1), activity)
    model = PET.create(ParallelBeam(grid, geometry, subsets=4), attenuation=mu, psf=blur)
    return activity, PoissonEmission.create(model, y, background), float(scale)


def _prior():
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(32), np.fft.fftfreq(32)))
    power = 1 / (frequency + 0.03) ** 2
    power = power / power.mean() * np.var(_brain()[0])
    return StationaryGaussianPrior(float(_brain()[0].mean()), jnp.asarray(power[..., None], jnp.float32))


BRAIN = {
    "none": lambda l, c: None,
    "dds": lambda l, c: pet_dds(l, c, 8),
    "dps": lambda l, c: pet_dps(l, c, 20.0),
    "matching": lambda l, c: mlem_matching(
        l, mlem(l.operator, l.y, 24, background=l.background)[1].objective, c, 4
    ),
}


@functools.partial(jax.jit, static_argnames="name")
def _reconstruct(key, likelihood, scale, name):
    process = EDM()
    guidance = BRAIN[name](likelihood, scale)
    denoise, grid = _prior().denoiser(process), karras(24, 0.01, 20.0)
    x = sample_one(key, ddim(), denoise, process, grid, shape=(32, 32, 1), guidance=guidance)
    return scale * jnp.maximum(x, 0.0)


@pytest.mark.parametrize("name, left, near", [("dds", 0.01, 0.5), ("dps", 0.3, 0.9), ("matching", 0.01, 0.5)])
def test_a_small_brain(key, name, left, near):
    """ln p rises from the prior's draw towards that of the truth, and the image comes nearer to it."""
    activity, likelihood, scale = _brain()
    misfit = jax.jit(lambda x: likelihood.log_prob(scale * activity) - likelihood.log_prob(x))
    error = lambda x: float(np.linalg.norm(x / scale - activity) / np.linalg.norm(activity))
    free, found = (_reconstruct(key, likelihood, scale, n) for n in ("none", name))
    assert misfit(found) < left * misfit(free) and error(free) > 0.95 and error(found) < near


# Refusals.


@pytest.mark.parametrize(
    "make", [pet_dds, pet_dps, lambda l: pet_naive(l, 5), lambda l: mlem_matching(l, [0.0])]
)
def test_other_likelihoods_are_refused(make):
    other = GaussianLikelihood.create(Matrix(jnp.ones((2, SIZE))), jnp.ones(2), 1.0)
    with pytest.raises(ValueError, match="emission counts, got GaussianLikelihood"):
        make(other)


def test_refusals():
    listed = ListModeEmission.create(Matrix(jnp.ones((2, SIZE))), jnp.ones(SIZE), 1.0)
    with pytest.raises(ValueError, match="bin it"):
        pet_dps(listed)
    with pytest.raises(ValueError, match="differ in size"):
        pet_dds(_likelihood().replace(operator=RowSubsets(jnp.ones((12, SIZE)), None, None, 5)))
    with pytest.raises(ValueError, match="list of log likelihoods"):
        mlem_matching(_likelihood(), 3.0)
    with pytest.raises(ValueError, match="real image"):
        _apply(pet_dds(_likelihood()), lambda x, t, c: x, EDM(), jnp.ones(SIZE, jnp.complex64), 1.0)


# Latents.


@pytest.mark.parametrize("process", [EDM(), VP()], ids=["edm", "vp"])
def test_counts_through_a_nonlinear_decoder(x64, process):
    """DPS on a latent is the gradient of ln p(y | decode(z0(z_t))), the parameters of the decoder traced."""
    likelihood, z_t, t = _likelihood(), jnp.linspace(-1, 1, SIZE), 0.4
    decode = lambda params, z: jnp.exp(params @ z)
    params = 0.3 * jnp.asarray(positive_system(SIZE, SIZE, 4))

    @jax.jit
    def run(params):
        latent = likelihood.through(jax.tree_util.Partial(decode, params))
        estimator = dps(latent, 0.05, normalise=False)(lift(process, _nonlinear))
        return estimator.apply(jax.random.key(0), z_t, jnp.asarray(t), estimator.init(z_t))[0]

    log_prob = lambda z: likelihood.log_prob(decode(params, _nonlinear(z, t)))
    push = 0.05 * process.sigma(t) ** 2 / process.alpha(t) * jax.grad(log_prob)(z_t)
    found = run(params)
    np.testing.assert_allclose(found.x0, _nonlinear(z_t, t) + push, rtol=1e-10)
    np.testing.assert_allclose(process.mix(found, t), z_t, rtol=1e-12)
    with pytest.raises(ValueError, match="emission counts, got LatentLikelihood"):
        pet_dds(likelihood.through(jnp.exp))
