"""Likelihoods against scipy densities and dense linear algebra."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from pgm_jax import operators as op
from pgm_jax.core import Likelihood as LikelihoodProtocol

STD = 0.3


def _normal(seed, *shape, complex_values=False):
    rng = np.random.default_rng(seed)
    values = rng.normal(size=shape) + (1j * rng.normal(size=shape) if complex_values else 0)
    return jnp.asarray(values)


def _problem(complex_values, rows=5, columns=6, seed=0):
    operator = op.Matrix(_normal(seed, rows, columns, complex_values=complex_values), (2, 3, 1), (rows,))
    return operator, _normal(seed + 1, rows, complex_values=complex_values)


def _dense(likelihood):
    """The matrix of A, flat y, and precisions w / s^2 of each entry."""
    y = np.asarray(likelihood.y).ravel()
    weights = 1.0 if likelihood.weights is None else likelihood.weights
    weights = np.broadcast_to(weights, likelihood.y.shape).ravel()
    return np.asarray(likelihood.operator.matrix()), y, weights / float(likelihood.noise_std) ** 2


WEIGHTS = {"plain": None, "weighted": np.array([1.0, 0.0, 2.0, 0.5, 1.0])}


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("complex_values", [False, True])
def test_log_prob_is_the_normal_density(complex_values, weights, x64):
    operator, y = _problem(complex_values)
    likelihood = op.GaussianLikelihood(operator, y, STD, WEIGHTS[weights])
    assert isinstance(likelihood, LikelihoodProtocol)
    x = _normal(2, 2, 3, 1, complex_values=complex_values)
    matrix, y, precision = _dense(likelihood)
    residual, kept = y - matrix @ np.ravel(x), precision > 0
    components = [residual.real, residual.imag] if complex_values else [residual]
    expected = sum(np.sum(stats.norm.logpdf(c[kept], scale=precision[kept] ** -0.5)) for c in components)
    np.testing.assert_allclose(likelihood.log_prob(x), expected, rtol=1e-12)


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("complex_values", [False, True])
def test_grad_is_the_steepest_ascent_of_log_prob(complex_values, weights, x64):
    operator, y = _problem(complex_values)
    likelihood = op.GaussianLikelihood.create(operator, y, STD, WEIGHTS[weights])
    x = _normal(2, 2, 3, 1, complex_values=complex_values)
    np.testing.assert_allclose(likelihood.grad(x), op.Likelihood.grad(likelihood, x), rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(likelihood.residual(x), y - operator(x), rtol=1e-12)
    if complex_values:
        real = likelihood.grad(x.real)
        assert real.dtype == x.real.dtype
        np.testing.assert_allclose(real, jax.grad(likelihood.log_prob)(x.real), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("cached", [False, True])
@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("complex_values", [False, True])
def test_prox_is_the_dense_solution(complex_values, weights, cached, x64):
    operator, y = _problem(complex_values)
    make = op.GaussianLikelihood.create if cached else op.GaussianLikelihood
    likelihood = make(operator, y, STD, WEIGHTS[weights])
    v, gamma = _normal(3, 2, 3, 1, complex_values=complex_values), 0.7
    matrix, data, precision = _dense(likelihood)
    hermitian = matrix.conj().T * precision
    exact = np.linalg.solve(np.eye(6) + gamma * hermitian @ matrix, np.ravel(v) + gamma * hermitian @ data)
    for start in (None, _normal(9, 2, 3, 1, complex_values=complex_values)):
        np.testing.assert_allclose(likelihood.prox(v, gamma, 8, start).ravel(), exact, rtol=1e-6, atol=1e-8)
    objective = [
        float(jnp.sum(jnp.abs(u - v) ** 2) / 2 - gamma * likelihood.log_prob(u))
        for u in [v, *(likelihood.prox(v, gamma, steps) for steps in range(1, 6))]
    ]
    assert np.all(np.diff(objective) < 1e-9)


def test_prox_of_a_real_image_is_real_and_optimal_among_real_images(x64):
    operator, y = _problem(True)
    likelihood = op.GaussianLikelihood.create(operator, y, STD)
    v = _normal(3, 2, 3, 1)
    found = likelihood.prox(v, 0.7, 12)
    assert found.dtype == v.dtype
    np.testing.assert_allclose(found - v, 0.7 * likelihood.grad(found), atol=1e-9)
    wrapped = op.GaussianLikelihood.create(op.RealImage(operator), y, STD)
    np.testing.assert_allclose(wrapped.prox(v, 0.7, 12), found, atol=1e-9)


def test_prox_with_a_variance_at_each_voxel(x64):
    operator, y = _problem(True)
    likelihood = op.GaussianLikelihood(operator, y, STD)
    v = _normal(3, 2, 3, 1, complex_values=True)
    gamma = jnp.asarray(np.random.default_rng(0).uniform(0.1, 2, size=(2, 3, 1))).at[0, 0, 0].set(0.0)
    found = likelihood.prox(v, gamma, 12)
    np.testing.assert_allclose(found - v, gamma * likelihood.grad(found), atol=1e-8)
    assert found[0, 0, 0] == v[0, 0, 0]


def test_prox_at_the_ends_of_gamma_and_noise(x64):
    operator, y = _problem(False)
    v = _normal(3, 2, 3, 1)
    np.testing.assert_array_equal(op.GaussianLikelihood(operator, y, STD).prox(v, 0.0, 5), v)
    np.testing.assert_array_equal(op.GaussianLikelihood(operator, y, 0.0).prox(v, 0.0, 5), v)
    projected = op.GaussianLikelihood(operator, y, 0.0).prox(v, 2.0, 30)
    np.testing.assert_allclose(operator(projected), y, atol=1e-8)
    matrix = np.asarray(operator.matrix())
    nearest = np.ravel(v) + np.linalg.pinv(matrix) @ (y - matrix @ np.ravel(v))
    np.testing.assert_allclose(projected.ravel(), nearest, atol=1e-8)


def test_prox_without_noise_stays_at_data_that_are_fitted_already():
    """The right-hand side is then rounding, which steps without an end would follow through the null space."""
    matrix = jax.random.normal(jax.random.key(0), (12, 40))
    v = jax.random.normal(jax.random.key(1), (40,))
    likelihood = op.GaussianLikelihood(op.Matrix(matrix), matrix @ v, 0.0)
    once = likelihood.prox(v, 1.0, 400)
    again = likelihood.prox(once, 1.0, 400)
    np.testing.assert_allclose(once, v, atol=1e-4)
    np.testing.assert_allclose(again, v, atol=1e-4)


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("complex_values", [False, True])
def test_solve_is_the_dense_inverse_of_the_data_covariance(complex_values, weights, x64):
    operator, r = _problem(complex_values)
    likelihood = op.GaussianLikelihood(operator, r, STD, WEIGHTS[weights])
    root = np.asarray(_normal(5, 6, 6, complex_values=complex_values))
    prior = root @ root.conj().T + np.eye(6)
    matrix, _, precision = _dense(likelihood)
    kept = precision > 0
    expected = np.zeros(5, r.dtype)
    covariance = matrix[kept] @ prior @ matrix[kept].conj().T + np.diag(1 / precision[kept])
    expected[kept] = np.linalg.solve(covariance, np.asarray(r)[kept])
    cov = op.Matrix(jnp.asarray(prior), (2, 3, 1), (2, 3, 1))
    np.testing.assert_allclose(
        likelihood.solve(r, cov, rtol=1e-12, max_steps=60), expected, rtol=1e-7, atol=1e-9
    )


def test_solve_is_differentiable_in_the_covariance(x64):
    operator, r = _problem(True)
    likelihood = op.GaussianLikelihood(operator, r, STD)
    matrix = operator.matrix()

    def ours(scale):
        return jnp.sum(jnp.abs(likelihood.solve(r, lambda v: scale * v, rtol=1e-12, max_steps=50)) ** 2)

    def dense(scale):
        covariance = scale * matrix @ matrix.conj().T + STD**2 * jnp.eye(5)
        return jnp.sum(jnp.abs(jnp.linalg.solve(covariance, r)) ** 2)

    np.testing.assert_allclose(jax.jit(jax.grad(ours))(0.8), jax.grad(dense)(0.8), rtol=1e-8)


def test_solve_for_a_real_prior_and_a_complex_operator(x64):
    operator, r = _problem(True)
    likelihood = op.GaussianLikelihood(op.RealImage(operator), r, STD)
    matrix = np.asarray(operator.matrix())
    real = np.concatenate([matrix.real, matrix.imag])
    expected = np.linalg.solve(real @ real.T + STD**2 * np.eye(10), np.concatenate([r.real, r.imag]))
    found = likelihood.solve(r, lambda v: v, rtol=1e-12, max_steps=60)
    np.testing.assert_allclose(np.concatenate([found.real, found.imag]), expected, rtol=1e-8)


def _pair():
    (a, y1), (b, y2) = _problem(True), _problem(False, rows=4, seed=5)
    return op.GaussianLikelihood.create(a, y1, 0.3), op.GaussianLikelihood(
        b, y2, 0.6, np.array([1.0, 2, 0, 1])
    )


def test_a_joint_likelihood_is_one_likelihood_of_the_stacked_data(x64):
    first, second = _pair()
    joint = first + second
    x, gamma = _normal(3, 2, 3, 1, complex_values=True), 0.4
    np.testing.assert_allclose(joint.log_prob(x), first.log_prob(x) + second.log_prob(x), rtol=1e-12)
    np.testing.assert_allclose(joint.grad(x), first.grad(x) + second.grad(x), rtol=1e-12)
    assert [r.shape for r in joint.residual(x)] == [(5,), (4,)]
    found = joint.prox(x, gamma, 12)
    np.testing.assert_allclose(found - x, gamma * joint.grad(found), atol=1e-8)
    assert len((joint + first).parts) == 3 and len((first + joint).parts) == 3


def test_a_joint_solve_couples_the_measurements(x64):
    first, _ = _pair()
    operator, y2 = _problem(True, rows=4, seed=5)
    second = op.GaussianLikelihood(operator, y2, 0.6)
    u = (first + second).solve((first.y, y2), lambda v: 1.5 * v, rtol=1e-12, max_steps=80)
    matrix = np.concatenate([first.operator.matrix(), operator.matrix()])
    noise = np.diag(np.repeat([0.3, 0.6], [5, 4]) ** 2)
    expected = np.linalg.solve(1.5 * matrix @ matrix.conj().T + noise, np.concatenate([first.y, y2]))
    np.testing.assert_allclose(np.concatenate(u), expected, rtol=1e-7)


def test_the_likelihood_of_a_latent(x64):
    operator, y = _problem(True)
    likelihood = op.GaussianLikelihood(operator, y, STD)
    basis = _normal(7, 6, 4, complex_values=True)

    def decode(basis, z):
        return (basis @ z).reshape(2, 3, 1)

    z = _normal(8, 4, complex_values=True)
    latent = likelihood.through(jax.tree_util.Partial(decode, basis))
    np.testing.assert_allclose(latent.log_prob(z), likelihood.log_prob(decode(basis, z)), rtol=1e-12)
    expected = basis.conj().T @ likelihood.grad(decode(basis, z)).ravel()
    np.testing.assert_allclose(jax.jit(lambda l, z: l.grad(z))(latent, z), expected, rtol=1e-10)
    np.testing.assert_allclose(latent.residual(z), y - operator(decode(basis, z)), rtol=1e-12)
    for refused in (lambda: latent.prox(z, 1.0, 3), lambda: latent.solve(y, lambda v: v)):
        with pytest.raises(ValueError, match="latent|Latent"):
            refused()
    with pytest.raises(ValueError, match="normal equations"):
        (latent + latent).prox(z, 1.0, 3)


def test_subsets_of_a_likelihood_add_up(x64):
    parts = [_problem(True, seed=seed) for seed in range(3)]
    joint = op.GaussianLikelihood(parts[0][0], parts[0][1], STD) + op.GaussianLikelihood(*parts[1], STD)
    with pytest.raises(ValueError, match="no subsets"):
        joint.subset(0)
    with pytest.raises(ValueError, match="one likelihood a part"):
        stacked = op.stack(*(operator for operator, _ in parts))
        op.GaussianLikelihood(stacked, tuple(y for _, y in parts), STD).log_prob(jnp.ones((2, 3, 1)))


class _Rows(op.Matrix):
    """A matrix whose subset i is every second row from row i; i may be traced."""

    def subset(self, i):
        rows = self.values.reshape(-1, 2, self.values.shape[1])[:, i]
        return op.Matrix(rows, self.image_shape)

    def restrict(self, y, i):
        return y.reshape(-1, 2)[:, i]


def test_ordered_subsets_under_a_scan(x64):
    operator = _Rows(_normal(0, 6, 6), (2, 3, 1))
    likelihood = op.GaussianLikelihood.create(operator, _normal(1, 6), STD, np.arange(6.0))
    x = _normal(2, 2, 3, 1)

    def add(total, i):
        part = likelihood.subset(i)
        return total + part.grad(x), part.log_prob(x)

    total, log_probs = jax.lax.scan(add, jnp.zeros_like(x), jnp.arange(2))
    np.testing.assert_allclose(total, likelihood.grad(x), rtol=1e-10)
    np.testing.assert_allclose(log_probs.sum(), likelihood.log_prob(x), rtol=1e-10)


def test_a_new_measurement_does_not_recompile_and_a_batch_is_vmapped():
    operator = op.Sense(jnp.asarray(op.birdcage_maps(2, 5, 6)), jnp.asarray(op.random_mask(0, 6, 2, 0.2)))
    traces = []

    @jax.jit
    def prox(likelihood, v):
        traces.append(1)
        return likelihood.prox(v, 0.5, 4)

    v = jnp.ones((5, 6, 1), jnp.complex64)
    keys = jax.random.split(jax.random.key(0), 3)
    ys = jax.vmap(lambda key: op.measure(key, operator, v, STD, operator.mask))(keys)
    loop = [prox(op.GaussianLikelihood.create(operator, y, jnp.asarray(STD)), v) for y in ys]
    assert len(traces) == 1
    batched = jax.vmap(lambda y: op.GaussianLikelihood.create(operator, y, STD).prox(v, 0.5, 4))(ys)
    np.testing.assert_allclose(batched, jnp.stack(loop), atol=1e-5)


def test_measured_noise_has_its_level_per_real_component():
    key, sense = jax.random.key(1), op.Sense.single(64, 64, op.random_mask(0, 64, 2))
    noise = op.measure(key, sense, jnp.zeros((64, 64, 1)), STD, sense.mask)
    kept = np.asarray(noise)[:, :, np.asarray(sense.mask) > 0]
    assert np.all(np.asarray(noise)[:, :, np.asarray(sense.mask) == 0] == 0)
    # 2048 entries: the standard error of a standard deviation is 1.6 %.
    np.testing.assert_allclose([kept.real.std(), kept.imag.std()], STD, rtol=0.06)
    real = op.measure(key, op.Identity((64, 64)), jnp.zeros((64, 64)), STD, jnp.full((64, 64), 4.0))
    np.testing.assert_allclose(real.std(), STD / 2, rtol=0.06)


def test_weights_of_a_mask_only_change_the_constant():
    sense = op.Sense(jnp.asarray(op.birdcage_maps(2, 8, 8)), op.random_mask(0, 8, 2, 0.25))
    y = op.measure(jax.random.key(0), sense, jnp.ones((8, 8, 1)), STD, sense.mask)
    plain, masked = op.GaussianLikelihood(sense, y, STD), op.GaussianLikelihood(sense, y, STD, sense.mask)
    xs = jnp.stack([jnp.ones((8, 8, 1)), jnp.full((8, 8, 1), 0.7)])
    offsets = [plain.log_prob(x) - masked.log_prob(x) for x in xs]
    unmeasured = 2 * 8 * 4 * 2
    np.testing.assert_allclose(offsets, -unmeasured * (np.log(STD) + 0.5 * np.log(2 * np.pi)), rtol=1e-4)
    np.testing.assert_allclose(plain.grad(xs[1]), masked.grad(xs[1]), rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(
    "y, noise_std, weights, words",
    [
        (np.ones(4), 1.0, None, r"\(4,\).*\(5,\)"),
        (np.array([1, np.nan, 1, 1, np.inf]), 1.0, None, "2 entries that are not finite"),
        (np.ones(5), np.ones(5), None, "one number"),
        (np.ones(5), -1.0, None, "noise_std"),
        (np.ones(5), 1.0, -np.ones(5), "weights"),
    ],
)
def test_bad_data_is_refused(y, noise_std, weights, words):
    with pytest.raises(ValueError, match=words):
        op.GaussianLikelihood.create(op.Matrix(jnp.ones((5, 6))), y, noise_std, weights)


def test_methods_can_be_compiled_directly():
    likelihood = op.GaussianLikelihood(op.Identity((3, 1)), jnp.ones((3, 1)), 2.0)
    np.testing.assert_allclose(jax.jit(likelihood.grad)(jnp.zeros((3, 1))), 0.25)
    np.testing.assert_allclose(jax.jit(likelihood.operator)(jnp.ones((3, 1))), 1.0)
