"""Continuous time and jumps on Gaussian data, where all maps are multiplications (foundations O23 to O25)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pgm_jax.core import Network
from pgm_jax.networks import TARGET_FEATURES, as_jump_denoiser
from pgm_jax.networks.jump import told
from pgm_jax.processes import EDM, VP, FlowMatching, PFGMpp, karras, precondition
from pgm_jax.samplers import ctm as ctm_sampler, heun, sample
from pgm_jax.training import objectives as o

STD = 0.5


def plain(process, t):
    """The network is shown x and t and returns x0."""
    return precondition.Coefficients(0 * t, t**0, t**0, t)


def target_of(cond):
    """The target that was told, below 4: the angle of the slowest wave."""
    vector = cond["vector"][:, -TARGET_FEATURES:]
    return jnp.arctan2(vector[:, 0], vector[:, TARGET_FEATURES // 2]) * 4 / jnp.pi


def network_of(function):
    """A network without parameters but a factor, `function(x, t, s)` on batches of numbers."""

    def apply(params, x, t, cond=None, *, key=None, train=False):
        s = target_of(cond) if cond else t
        return params * jax.vmap(function)(x, t, s)

    return Network(None, apply)


def data(count=20_000, std=STD):
    return {"x0": std * jax.random.normal(jax.random.key(0), (count, 1))}


def test_a_target_is_told_after_the_vector():
    assert target_of(told(None, jnp.array([0.3]))) == pytest.approx(0.3, rel=1e-6)
    both = told({"vector": jnp.ones((2, 3)), "class": 1}, jnp.array([0.1, 0.9]))
    assert both["vector"].shape == (2, 3 + TARGET_FEATURES) and both["class"] == 1
    np.testing.assert_allclose(target_of(both), [0.1, 0.9], rtol=1e-6)
    assert told(None, jnp.float32(0.2))["vector"].shape == (TARGET_FEATURES,)


def spread(t):
    return jnp.sqrt((1 - t) ** 2 * STD**2 + t**2)


def mean_velocity(x, t, s):
    velocity = x * (t - (1 - t) * STD**2) / spread(t) ** 2
    gap = jnp.where(t - s > 1e-3, t - s, 1.0)
    return jnp.where(t - s > 1e-3, x * (1 - spread(s) / spread(t)) / gap, velocity)


def test_meanflows_identity_number():
    """Both sides of u = v - (t - s) du/dt at s = .2, t = .7, x = 1.3: 1.5853658537."""
    x, t, s = 1.3, 0.7, 0.2
    velocity = x * (t - (1 - t) * STD**2) / spread(t) ** 2
    u, rate = jax.jvp(lambda x, t: mean_velocity(x, t, s), (x, t), (velocity, 1.0))
    assert u + (t - s) * rate == pytest.approx(1.5853658537, rel=1e-5)
    assert velocity == pytest.approx(1.5853658537, rel=1e-5)


def test_meanflow_is_at_rest_at_the_exact_mean_velocity():
    """The gradient along a factor of u vanishes at 1, within the error of 20,000 samples, and not at 1.1."""
    # x0_hat = x - t u: a factor on F = -u alone.
    velocity = lambda process, t: precondition.Coefficients(t**0, -t, t**0, t)
    network = network_of(mean_velocity)
    objective = o.meanflow(FlowMatching(), network, velocity, equal=0.25)
    square = lambda a: objective(a, (), data(), jax.random.key(1))[1][1]["square"]
    slope = jax.jit(jax.grad(square))
    rest, off = float(slope(jnp.float32(1.0))), float(slope(jnp.float32(1.1)))
    assert abs(rest) < 0.1 * abs(off) and off > 0


def exact_f(x, angle, std, sigma_data):
    at = jnp.sqrt(jnp.cos(angle) ** 2 * std**2 + jnp.sin(angle) ** 2 * sigma_data**2)
    return x * std / at


def trig_network(std, sigma_data):
    """F of the exact consistency function; its argument is x / d."""

    def function(x, angle, _):
        x = x * sigma_data
        return (jnp.cos(angle) * x - exact_f(x, angle, std, sigma_data)) / (sigma_data * jnp.sin(angle))

    return network_of(function)


def test_the_exact_consistency_function_has_no_tangent():
    """sCD with the exact teacher, data of deviation .3 and d = .5; numbers of O25."""
    sigma_data, std = 0.5, 0.3
    student = trig_network(std, sigma_data)
    one = jnp.ones((1, 1))
    assert float(student.apply(1.0, one / sigma_data, jnp.ones(1))[0, 0]) == pytest.approx(
        -0.29725299, rel=1e-5
    )
    assert float(exact_f(1.0, 1.0, std, sigma_data)) == pytest.approx(0.66536719, rel=1e-5)
    exact = network_of(lambda x, t, _: std**2 / (std**2 + t**2) * x)
    objective = o.scm(
        EDM(),
        student,
        o.levels.lognormal(-1.0, 1.0),
        sigma_data,
        teacher=o.Teacher(exact, plain, None),
        warmup=1,
    )
    carry = o.carry_of(teacher=jnp.float32(1.0))
    tangent = lambda factor: float(
        jax.jit(objective)(jnp.float32(factor), carry, data(256, std), jax.random.key(1))[1][1]["tangent"]
    )
    assert tangent(1.0) < 2e-4 < 1e-2 < tangent(1.2)


def test_continuous_training_rests_at_the_exact_function_in_the_mean():
    """sCT: g is random, and the mean of g F vanishes at the exact F; also the gradient keeps its sign around it."""
    sigma_data, std = 0.5, 0.3
    student = trig_network(std, sigma_data)
    objective = o.scm(EDM(), student, o.levels.lognormal(-1.0, 0.5), sigma_data, warmup=1)
    slope = jax.jit(jax.grad(lambda a: objective(a, o.carry_of(), data(20_000, std), jax.random.key(2))[0]))
    below, rest, above = (float(slope(jnp.float32(a))) for a in (0.8, 1.0, 1.2))
    assert below * above < 0 and abs(rest) < 0.35 * min(abs(below), abs(above))


TIMES = karras(18, 0.002, 80.0)[:-1][::-1]


def exact_jump(x, t, s):
    """g of the exact G, and the denoiser at s = t."""
    share = s / t
    jump = x * jnp.sqrt((STD**2 + s**2) / (STD**2 + t**2))
    near = share > 0.9999
    return jnp.where(near, x * STD**2 / (STD**2 + t**2), (jump - share * x) / jnp.where(near, 1.0, 1 - share))


def logged(process, t):
    """As EDM, the network is told ln(t) / 4."""
    return precondition.Coefficients(0 * t, t**0, t**0, 0.25 * jnp.log(t))


def jump_network():
    return network_of(lambda x, t, s: exact_jump(x, jnp.exp(4 * t), jnp.exp(4 * s)))


def test_the_exact_jump():
    """Numbers of O23, and gamma-sampling keeps the data's variance at every gamma."""
    for s, expected in ((0.002, 0.24177935), (1.0, 0.08465229)):
        assert float(exact_jump(1.0, 2.0, s)) == pytest.approx(expected, rel=1e-5)
    process = EDM()
    denoise = as_jump_denoiser(jump_network(), jnp.float32(1.0), process, logged)
    x = jnp.full((1,), 0.7)
    estimate = process.estimate(x, 2.0, denoise(x, jnp.float32(2.0), None, jnp.float32(0.5)))
    assert float(process.mix(estimate, 0.5)[0]) == pytest.approx(0.7 * np.sqrt(0.5 / 4.25), rel=1e-4)
    assert float(denoise(x, jnp.float32(2.0))[0]) == pytest.approx(0.7 * 0.25 / 4.25, rel=1e-4)
    for gamma in (0.0, 0.6):
        # The state that is handed over below the boundary is not told to the network: the grid ends above 0.
        drawn = sample(
            jax.random.key(3),
            ctm_sampler(gamma),
            denoise,
            process,
            np.array([80.0, 5.0, 0.5, 0.002]),
            shape=(8000, 1),
        )
        assert float(jnp.var(drawn)) == pytest.approx(0.25, rel=0.06)


def test_ctm_rests_at_the_exact_jump():
    """With the exact teacher what is left of the jumps is Heun's error; the denoising term is its closed form."""
    exact = network_of(lambda x, t, _: STD**2 / (STD**2 + t**2) * x)
    objective = o.ctm(
        EDM(), jump_network(), logged, o.Trajectory(TIMES), o.Teacher(exact, plain, heun()),
        distance=o.distances.squared, rate=o.curricula.constant(0.999),
    )  # fmt: skip
    one = jnp.float32(1.0)
    carry = o.carry_of(one, one)
    terms = lambda a: jax.jit(objective)(jnp.float32(a), carry, data(4000), jax.random.key(1))[1]
    new, metrics = terms(1.0)
    floor = np.mean(STD**2 * TIMES[1:] ** 2 / (STD**2 + TIMES[1:] ** 2))
    assert float(metrics["denoise"]) == pytest.approx(floor, rel=0.05)
    assert float(metrics["jump"]) < 1e-3 < 5e-3 < float(terms(1.3)[1]["jump"])
    assert int(new["step"]) == 1 and float(terms(1.3)[0]["target"]) == pytest.approx(1.0003, rel=1e-6)


def test_every_objective_takes_student_t_noise_and_has_a_gradient():
    process = PFGMpp(64)
    made = [
        o.meanflow(process, network_of(lambda x, t, s: x * jnp.tanh(t - s)), precondition.edm(0.5)),
        o.scm(process, trig_network(STD, 0.5), o.levels.lognormal(-1.0, 1.0)),
        o.ctm(process, jump_network(), logged, o.Trajectory(TIMES, 2)),
    ]
    for objective in made:
        loss = lambda a, objective=objective: objective(a, o.carry_of(), data(64), jax.random.key(4))[0]
        value, slope = jax.value_and_grad(loss)(jnp.float32(1.1))
        assert np.isfinite(value) and np.isfinite(slope) and slope != 0


def test_images_of_few_bits_get_float32_noise():
    """Images stored in bfloat16 or whole numbers: the loss is that of the same images in float32."""
    stored = data(64)["x0"].astype(jnp.bfloat16)
    for made in (
        o.meanflow(EDM(), network_of(lambda x, t, s: x * jnp.tanh(t - s)), precondition.edm(0.5)),
        o.ctm(EDM(), jump_network(), logged, o.Trajectory(TIMES, 2)),
    ):
        loss = lambda x, made=made: float(
            made(jnp.float32(1.1), o.carry_of(), {"x0": x}, jax.random.key(4))[0]
        )
        assert loss(stored) == loss(stored.astype(jnp.float32))


ANY = network_of(lambda x, t, s: x)


@pytest.mark.parametrize(
    "make, told_line",
    [
        (lambda: o.meanflow(VP(), ANY, None), "straight paths"),
        (lambda: o.meanflow(EDM(), ANY, None, equal=2.0), "share"),
        (lambda: o.scm(EDM(), ANY, None, warmup=0), "warm-up"),
        (lambda: o.ctm(EDM(), ANY, None, o.Trajectory([1.0, 0.5])), "rising times"),
        (lambda: o.ctm(EDM(), ANY, None, o.Trajectory([0.5, 1.0], 2)), "most must lie"),
    ],
)
def test_wrong_settings_are_refused(make, told_line):
    with pytest.raises(ValueError, match=told_line):
        make()
