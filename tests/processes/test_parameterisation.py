"""Parameterisations: exact conversions on every process, EDM's table, TrigFlow and MeanFlow closed forms."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pgm_jax.processes import (
    DDPM,
    EDM,
    PFGM,
    VE,
    VP,
    Bridge,
    Cosine,
    FlowMatching,
    Normal,
    PFGMpp,
    SubVP,
    Trigonometric,
    conversions,
    poisson_field,
    precondition,
    predict_noise,
    predict_residual,
    predict_score,
    predict_v,
    predict_velocity,
    predict_x0,
    x0_from_poisson_field,
)

PROCESSES = {
    "EDM": (EDM(), 2.3, (1e-6, 1e3)),
    "VE": (VE(), 0.6, (0.0, 1.0)),
    "VP": (VP(), 0.4, (0.0, 1.0)),
    "SubVP": (SubVP(), 0.4, (0.0, 1.0)),
    "Cosine": (Cosine(), 0.7, (0.0, 1.0)),
    "FlowMatching": (FlowMatching(), 0.3, (0.0, 1.0)),
    "Trigonometric": (Trigonometric(0.5), 1.0, (0.0, math.pi / 2)),
    "PFGMpp": (PFGMpp(8), 1.7, (0.0, 1e3)),
    "DDPM": (DDPM(), 400.0, (0.0, 1000.0)),
}
EACH = pytest.mark.parametrize("process, t, ends", PROCESSES.values(), ids=PROCESSES)
PLAIN = {
    "x0": predict_x0,
    "noise": predict_noise,
    "v": predict_v,
    "velocity": predict_velocity,
    "score": predict_score,
}
PRECONDITIONED = {
    "edm": precondition.edm(0.5),
    "student_t": precondition.student_t(0.5, 8),
    "consistency": precondition.consistency(0.5, 0.002),
    "trigonometric": precondition.trigonometric(0.5),
    "vp": precondition.vp(),
    "ve": precondition.ve(),
    "iddpm": precondition.iddpm([80.0, 3.0, 0.2, 0.0]),
    "latent_consistency": precondition.latent_consistency(predict_v),
}


def _valid(name, process):
    continuous = type(process.schedule).__name__ != "Tabulated"
    return (name != "velocity" or continuous) and (name != "score" or isinstance(process.law, Normal))


def _pairs(names):
    """Every process with every name that it does not refuse; test_refusals has the others."""
    return [
        pytest.param(*row, name, id=f"{label}-{name}")
        for label, row in PROCESSES.items()
        for name in names
        if _valid(name, row[0])
    ]


@pytest.mark.parametrize("process, t, ends, kind", _pairs(["noise", "v", "score", "velocity"]))
def test_conversions_round_trip_to_the_same_estimate(x64, process, t, ends, kind):
    x0, noise = jnp.array([0.3, -1.2]), jnp.array([0.9, 0.1])
    x_t = process.alpha(t) * x0 + process.sigma(t) * noise
    there, back = getattr(conversions, f"{kind}_from_x0"), getattr(conversions, f"x0_from_{kind}")
    value = there(process, x_t, t, x0)
    np.testing.assert_allclose(back(process, x_t, t, value), x0, atol=1e-10)
    exact = {
        "noise": lambda: noise,
        "v": lambda: process.alpha(t) * noise - process.sigma(t) * x0,
        "score": lambda: -noise / process.sigma(t),
        "velocity": lambda: sum(
            jax.jvp(f, (jnp.asarray(t),), (jnp.ones(()),))[1] * c
            for f, c in ((lambda u: process.alpha(u) * 1.0, x0), (lambda u: process.sigma(u) * 1.0, noise))
        ),
    }
    np.testing.assert_allclose(value, exact[kind](), atol=1e-10)


@pytest.mark.parametrize("process, t, ends, name", _pairs([*PLAIN, *PRECONDITIONED]))
def test_coefficients_are_finite_at_both_ends_in_float32(process, t, ends, name):
    coefficients = {**PLAIN, **PRECONDITIONED}[name]
    for time in (*ends, ends[0] + 1e-7 * (ends[1] - ends[0]), t):
        values = coefficients(process, jnp.float32(time))
        assert all(v.dtype == jnp.float32 and jnp.all(jnp.isfinite(v)) for v in values), (time, values)


@EACH
def test_clean_end_returns_the_state(process, t, ends):
    for name in ("noise", "v", "velocity", "score"):
        if _valid(name, process):
            c = PLAIN[name](process, jnp.float32(0.0))
            assert c.c_skip == 1 and c.c_out == 0, name


def test_edm_table_in_edms_frame(x64):
    sigma, sd = 0.7, 0.5
    c = precondition.edm(sd)(EDM(), sigma)
    np.testing.assert_allclose(c.c_skip, sd**2 / (sigma**2 + sd**2), rtol=1e-14)
    np.testing.assert_allclose(c.c_out, sigma * sd / math.sqrt(sigma**2 + sd**2), rtol=1e-14)
    np.testing.assert_allclose(c.c_in, 1 / math.sqrt(sigma**2 + sd**2), rtol=1e-14)
    np.testing.assert_allclose(c.c_noise, math.log(sigma) / 4, rtol=1e-14)
    c = precondition.vp()(EDM(), sigma)
    time = (math.sqrt(0.1**2 + 2 * 19.9 * math.log(1 + sigma**2)) - 0.1) / 19.9
    np.testing.assert_allclose(c, (1, -sigma, 1 / math.sqrt(sigma**2 + 1), 999 * time), rtol=1e-12)
    c = precondition.ve()(EDM(), sigma)
    np.testing.assert_allclose(c, (1, sigma, 1, math.log(sigma / 2)), rtol=1e-12)
    c = precondition.iddpm([80.0, 3.0, 0.6, 0.1, 0.0])(EDM(), sigma)
    np.testing.assert_allclose(c, (1, -sigma, 1 / math.sqrt(sigma**2 + 1), 1), rtol=1e-12)


@EACH
@pytest.mark.parametrize("name", ["edm", "student_t", "consistency", "trigonometric", "vp", "ve", "iddpm"])
def test_preconditioning_is_the_same_denoiser_on_every_process(x64, process, t, ends, name):
    coefficients = PRECONDITIONED[name]
    network = lambda x, c_noise: jnp.tanh(x + 0.3 * c_noise)
    apply = lambda c, x: c.c_skip * x + c.c_out * network(c.c_in * x, c.c_noise)
    x_t = jnp.array([0.4, -0.8])
    here = apply(coefficients(process, t), x_t)
    frame = apply(coefficients(EDM(), float(process.ratio(t))), x_t / process.alpha(t))
    np.testing.assert_allclose(here, frame, rtol=1e-9)


@pytest.mark.parametrize("name, D", [("edm", math.inf), ("student_t", 8)])
def test_network_sees_and_predicts_unit_variance(x64, name, D):
    sd, sigma = 0.5, 1.3
    c = PRECONDITIONED[name](VP(), t := VP().time(sigma))
    alpha = VP().alpha(t)
    widened = sigma**2 * (1.0 if math.isinf(D) else D / (D - 2))
    state = alpha**2 * (sd**2 + widened)
    np.testing.assert_allclose(c.c_in**2 * state, 1, rtol=1e-9)
    # target (x0 - c_skip x_t) / c_out: variance 1, uncorrelated with the state
    covariance = alpha * sd**2
    target = sd**2 - 2 * c.c_skip * covariance + c.c_skip**2 * state
    np.testing.assert_allclose(target / c.c_out**2, 1, rtol=1e-9)
    np.testing.assert_allclose(covariance - c.c_skip * state, 0, atol=1e-12)


def test_student_t_at_infinity_is_edm():
    a, b = precondition.student_t(0.5, math.inf)(EDM(), 2.0), precondition.edm(0.5)(EDM(), 2.0)
    np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("sigma_min", [0.002, 0.05])
def test_consistency_boundary_is_exact(sigma_min):
    c = precondition.consistency(0.5, sigma_min)(EDM(), jnp.float32(sigma_min))
    assert c.c_skip == 1 and c.c_out == 0
    c = precondition.consistency(0.5, sigma_min)(EDM(), 3.0)
    np.testing.assert_allclose(c.c_skip, 0.25 / ((3 - sigma_min) ** 2 + 0.25), rtol=1e-6)
    np.testing.assert_allclose(c.c_out, 0.5 * (3 - sigma_min) / math.sqrt(9.25), rtol=1e-6)


def test_latent_consistency_boundary_oracle_26():
    boundary = precondition.latent_consistency(predict_x0)
    c = boundary(DDPM(), 0)
    assert c.c_skip == 1 and c.c_out == 0
    np.testing.assert_allclose(boundary(DDPM(), 1).c_skip, 0.0024938, atol=5e-8)


def test_trigonometric_oracle_25(x64):
    process, t, x, sd = Trigonometric(0.5), 1.0, 1.0, 0.5
    c = precondition.trigonometric(sd)(process, t)
    np.testing.assert_allclose(c, (math.cos(t), -math.sin(t) * sd, 1 / sd, t), rtol=1e-12)
    std = lambda s, t: math.sqrt((math.cos(t) * s) ** 2 + (math.sin(t) * sd) ** 2)
    for s, f, f_cm, f_diff in (
        (0.5, 1.0, -math.tan(0.5) * x / sd, 0.0),
        (0.3, 0.66536719, -0.29725299, 0.71565910),
    ):
        consistent, posterior_mean = x * s / std(s, t), math.cos(t) * s**2 / std(s, t) ** 2 * x
        np.testing.assert_allclose(consistent, f, atol=5e-9)
        np.testing.assert_allclose((consistent - c.c_skip * x) / c.c_out, f_cm, atol=5e-9)
        np.testing.assert_allclose((posterior_mean - c.c_skip * x) / c.c_out, f_diff, atol=5e-9)
    assert -math.tan(0.5) / 0.5 == pytest.approx(-1.09260498, abs=5e-9)
    # dx / dt = sd F along the flow
    f_diff = (posterior_mean - c.c_skip * x) / c.c_out
    velocity = conversions.velocity_from_x0(process, jnp.array([x]), t, jnp.array([posterior_mean]))
    np.testing.assert_allclose(velocity, [sd * f_diff], rtol=1e-12)


def test_mean_flow_oracle_24(x64):
    s, r, t, x = 0.5, 0.2, 0.7, 1.3
    process = FlowMatching()
    std = lambda t: jnp.sqrt((1 - t) ** 2 * s**2 + t**2)
    average = lambda x, r, t: x * (1 - std(r) / std(t)) / (t - r)
    x0 = jnp.array([(1 - t) * s**2 / std(t) ** 2 * x])
    velocity = conversions.velocity_from_x0(process, jnp.array([x]), t, x0)[0]
    np.testing.assert_allclose(velocity, x * (t - (1 - t) * s**2) / std(t) ** 2, rtol=1e-12)
    _, slope = jax.jvp(average, (x, r, t), (velocity, 0.0, 1.0))
    # v = u + (t - r) du/dt: the oracle's figure is the value of both sides
    np.testing.assert_allclose(velocity, 1.5853658537, atol=5e-11)
    np.testing.assert_allclose(average(x, r, t) + (t - r) * slope, 1.5853658537, atol=5e-11)
    np.testing.assert_allclose(average(1.0, 0.0, 1.0), 1 - s, rtol=1e-12)


def test_velocity_of_flow_matching_is_noise_minus_image(x64):
    x0, noise, t = jnp.array([0.3]), jnp.array([-1.1]), 0.35
    x_t = (1 - t) * x0 + t * noise
    np.testing.assert_allclose(
        conversions.velocity_from_x0(FlowMatching(), x_t, t, x0), noise - x0, rtol=1e-12
    )
    np.testing.assert_allclose(predict_velocity(FlowMatching(), t)[:2], (1, -t), rtol=1e-12)


def test_bridge_residual_is_i2sbs_label(x64):
    process, t = Bridge(), 0.6
    x0, x1, noise = jnp.array([0.2]), jnp.array([0.9]), jnp.array([0.4])
    x_t = process.mix(process.estimate(x0, 0.0, x0, x1)._replace(noise=noise), t)
    label = (x_t - x0) / jnp.sqrt(process.schedule.variance(t))
    c = predict_residual(process, t)
    np.testing.assert_allclose(c.c_skip * x_t + c.c_out * label, x0, atol=1e-14)
    assert predict_residual(process, 0.0).c_out == 0


@pytest.mark.parametrize("z", [1e-3, 0.5, 4.9, 5.1, 40.0])
def test_poisson_field_round_trip(x64, z):
    x, x0 = jnp.array([3.0, -2.0, 0.5]), jnp.array([0.4, 0.1, -0.3])
    v_x, v_z = poisson_field(x, z, x0)
    e = np.append(x0 - x, -z)
    np.testing.assert_allclose(np.append(v_x, v_z), math.sqrt(3) * e / (np.linalg.norm(e) + 5), rtol=1e-12)
    if z > 5:
        np.testing.assert_allclose(x0_from_poisson_field(x, z, v_x, v_z), x0, atol=1e-12)
    else:
        # The substitution takes |e_x| for |e|, as PFGM does; it is exact only as z -> 0.
        q = jnp.linalg.norm(v_x) / math.sqrt(3)
        rho = math.sqrt((5 * q / (1 - q)) ** 2 + z**2)
        v_z = -math.sqrt(3) * z / (rho + 5)
        np.testing.assert_allclose(x0_from_poisson_field(x, z, v_x, 1e9), x - z * v_x / v_z, atol=1e-12)
    if z < 0.01:
        np.testing.assert_allclose(x0_from_poisson_field(x, z, v_x, v_z), x0, atol=1e-5)


def test_poisson_field_of_an_imperfect_network_stays_finite():
    x = jnp.ones(4)
    for z, v_x, v_z in ((0.0, jnp.zeros(4), 0.0), (0.1, 9 * jnp.ones(4), -1.0), (10.0, jnp.ones(4), 0.3)):
        value, grad = jax.value_and_grad(
            lambda v, z=z, v_z=v_z: jnp.sum(x0_from_poisson_field(x, z, v, v_z))
        )(v_x)
        assert jnp.isfinite(value) and jnp.all(jnp.isfinite(grad))


def test_coefficients_transform():
    t = jnp.linspace(0.1, 0.9, 5)
    for name in ("velocity", "consistency", "iddpm"):
        coefficients = {**PLAIN, **PRECONDITIONED}[name]
        batched = jax.jit(jax.vmap(lambda t, f=coefficients: f(VP(), t)))(t)
        single = coefficients(VP(), t[2])
        for a, b in zip(batched, single, strict=True):
            np.testing.assert_allclose(a[2], b, rtol=1e-5, err_msg=name)


def test_refusals(x64):
    x = jnp.zeros(2)
    with pytest.raises(ValueError, match="no time derivative"):
        predict_velocity(DDPM(), 3.0)
    with pytest.raises(ValueError, match="bridge"):
        predict_noise(Bridge(), 0.5)
    with pytest.raises(ValueError, match="finite D"):
        predict_score(PFGM(), 1.0)
    with pytest.raises(ValueError, match="finite D"):
        conversions.score_from_x0(PFGMpp(8), x, 1.0, x)
    with pytest.raises(ValueError, match="D > 2"):
        precondition.student_t(0.5, 2)
    with pytest.raises(ValueError, match="falling"):
        precondition.iddpm([0.1, 1.0])
    with pytest.raises(ValueError, match="Bridge"):
        predict_residual(EDM(), 1.0)
