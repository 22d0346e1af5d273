"""ML-EM, OSEM, BSREM, ML-TR and paraboloids against their theory, dense oracles and each other."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import optimize

from pgm_jax import operators as op
from pgm_jax.operators.ct.geometry import ImageGrid, Parallel
from pgm_jax.operators.ct.parallel import ParallelBeam
from pgm_jax.operators.emission.list_mode import ListModePET
from pgm_jax.operators.emission.list_mode_likelihood import ListModeEmission
from pgm_jax.operators.emission.pet import PET
from pgm_jax.operators.poisson import PoissonEmission
from pgm_jax.operators.roughness import Quadratic, RelativeDifference
from pgm_jax.operators.transmission import PoissonTransmission
from pgm_jax.reconstruction.bsrem import bsrem
from pgm_jax.reconstruction.iteration import run
from pgm_jax.reconstruction.mlem import list_mode_mlem, mlem
from pgm_jax.reconstruction.mltr import mltr, paraboloids
from pgm_jax.reconstruction.osem import osem, osem_iteration

N, VIEWS, BINS = 8, 12, 11


def _beam(subsets=1, channels=1):
    angles = 0.05 + np.arange(VIEWS) * np.pi / VIEWS
    return ParallelBeam(
        ImageGrid((N, N), 2.0), Parallel(angles, BINS, 2.0), subsets=subsets, channels=channels
    )


def _pet(subsets=1):
    factors = np.random.default_rng(1).uniform(0.4, 1, (VIEWS, BINS, 1))
    return PET.create(_beam(subsets), normalisation=factors)


@functools.cache
def _dense():
    with jax.enable_x64(True):
        return np.asarray(jax.jit(lambda a: a.matrix())(_pet()))


def _matrix():
    """The same scanner as a matrix, which compiles in no time."""
    return op.Matrix(jnp.asarray(_dense()), (N, N, 1), (VIEWS, BINS, 1))


def _activity(seed=0):
    image = np.random.default_rng(seed).gamma(2.0, 1.0, (N, N, 1))
    image[:2] = 0
    return jnp.asarray(image)


def _scan(operator, background=0.0, scale=1.0, seed=2):
    mean = scale * np.asarray(operator(_activity().astype(operator.domain.dtype))) + background
    return np.random.default_rng(seed).poisson(mean).astype(float)


@pytest.mark.parametrize("background", [0.0, 3.0])
def test_mlem_rises_for_300_steps_and_keeps_the_counts(background, x64):
    operator = _matrix()
    y = _scan(operator, background)
    image, trace = jax.jit(lambda y: mlem(operator, y, 300, background=background))(y)
    rise = np.diff(np.asarray(trace.objective))
    assert np.all(rise >= -1e-9) and rise[0] > 1 and trace.taken == 300
    likelihood = PoissonEmission.create(operator, y, background)
    np.testing.assert_allclose(trace.objective[-1], likelihood.log_prob(image), rtol=1e-12)
    if background == 0:
        # Sum A x = sum y after every step, to rounding: the bins that see no voxel have no counts.
        step = jax.jit(lambda x: mlem(operator, jnp.asarray(y), 1, x_init=x)[0])
        image = jnp.asarray(np.random.default_rng(0).uniform(0.5, 9, (N, N, 1)))
        for _ in range(5):
            image = step(image)
            np.testing.assert_allclose(operator(image).sum(), y.sum(), rtol=1e-13)


def test_mlem_ends_where_the_conditions_of_karush_kuhn_and_tucker_hold(x64):
    operator = _matrix()
    y = _scan(operator, 3.0)
    image, trace = jax.jit(lambda y: mlem(operator, y, 60000, background=3.0))(y)
    slope = -PoissonEmission.create(operator, y, 3.0).grad(image)
    assert image.min() >= 0 and slope.min() > -1e-3 * operator.column_sums().max()
    assert np.abs(slope * image).sum() < 1e-6 * y.sum()
    # The residual of the trace is that product, one step earlier.
    assert trace.residual[-1] < 1e-6 * y.sum()


def test_mlem_of_the_identity_takes_one_step():
    y = np.array([0.0, 1.0, 5.0, 1e6], np.float32).reshape(2, 2, 1)
    image, _ = mlem(op.Identity((2, 2, 1)), y, 1)
    np.testing.assert_allclose(image, y, rtol=1e-6)


def test_mlem_is_the_fixed_point_of_dense_algebra(x64):
    """Twenty steps written out with numpy, background and a start included."""
    rng = np.random.default_rng(0)
    a, y, b = rng.uniform(size=(9, 6)), rng.poisson(5, 9).astype(float), rng.uniform(size=9)
    x = start = rng.uniform(0.5, 2, 6)
    for _ in range(20):
        x = x / a.sum(0) * (a.T @ (y / (a @ x + b)))
    found, _ = mlem(op.Matrix(jnp.asarray(a)), y, 20, background=b, x_init=start)
    np.testing.assert_allclose(found, x, rtol=1e-12)


def test_mlem_is_finite_in_single_precision_at_the_ends():
    """A voxel that nothing sees, a ray that sees nothing, no counts at all, and six decades of them."""
    a = np.random.default_rng(0).uniform(size=(6, 5)).astype(np.float32)
    a[:, 2] = a[3] = 0
    operator = op.Matrix(jnp.asarray(a), (5, 1, 1), (6,))
    for y in (np.zeros(6), np.array([0, 1, 1e6, 0, 3, 10])):
        image, trace = mlem(operator, y, 200)
        assert np.isfinite(image).all() and np.isfinite(trace.objective).all() and image[2, 0, 0] == 0
    assert mlem(operator, np.zeros(6), 3)[0].max() == 0
    with pytest.raises(ValueError, match="1 bins have counts but see no voxel"):
        mlem(operator, np.ones(6), 3)


def test_the_stopping_rule_of_mlem():
    operator = _matrix()
    y = _scan(operator, 3.0)
    _, trace = mlem(operator, y, 400, background=3.0, rtol=1e-3)
    full = mlem(operator, y, int(trace.taken), background=3.0)[1]
    moved = np.asarray(full.residual)
    total = float(jnp.sum(operator.column_sums()) * y.sum() / jnp.sum(operator.column_sums()))
    assert 5 < trace.taken < 400 and moved[-1] <= 1e-3 * total < moved[-2]


def test_osem_of_one_subset_is_mlem(x64):
    operator = _matrix()
    y = _scan(operator, 2.0)
    ours, theirs = (solve(operator, y, 12, background=2.0) for solve in (osem, mlem))
    np.testing.assert_allclose(ours[0], theirs[0], rtol=1e-12)
    np.testing.assert_allclose(ours[1].objective, theirs[1].objective, rtol=1e-12)
    np.testing.assert_allclose(ours[1].residual, theirs[1].residual, rtol=1e-9)


def test_osem_is_its_sub_steps_in_the_order_of_herman_and_meyer(x64):
    operator = _pet(4)
    y = _scan(operator, 2.0)
    matrix = _dense().reshape(VIEWS, BINS, -1)
    x = np.full(N * N, y.sum() / matrix.sum())
    for _ in range(2):
        for i in (0, 2, 1, 3):
            a, counts = matrix[i::4].reshape(-1, N * N), y[i::4].ravel()
            x = x / a.sum(0) * (a.T @ (counts / (a @ x + 2.0)))
    found, trace = jax.jit(lambda y: osem(operator, y, 2, background=2.0))(y)
    np.testing.assert_allclose(found.ravel(), x, rtol=1e-9)
    # Two passes of four subsets are ahead of two steps of ML-EM.
    assert trace.objective[-1] > mlem(_matrix(), y, 4, background=2.0)[1].objective[-1]


@pytest.mark.parametrize("name", ["emission", "transmission", "list mode"])
def test_subset_gradients_average_to_the_full_gradient(name, x64):
    operator = _pet(4)
    x = _activity() + 0.1
    if name == "emission":
        likelihood = PoissonEmission.create(operator, _scan(operator, 2.0), 2.0)
    elif name == "transmission":
        x = 0.02 * x
        y = np.random.default_rng(0).poisson(80.0, operator.range.shape)
        likelihood = PoissonTransmission.create(operator, y, 100.0, 3.0)
    else:
        starts = np.random.default_rng(0).normal(size=(20, 2)) * 30
        events = ListModePET.create(starts, -starts + 1.0, (N, N, 1), (2.0, 2.0), subsets=4)
        likelihood = ListModeEmission.create(events, np.ones((N, N, 1)), 0.3)
    gradients = jax.lax.map(lambda i: likelihood.subset(i).grad(x), jnp.arange(4))
    np.testing.assert_allclose(gradients.sum(0), likelihood.grad(x), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("solve", [osem, lambda a, y: bsrem(a, y, Quadratic(), 0.1)])
def test_unbalanced_subsets_are_refused(solve):
    operator = _beam(5)
    with pytest.raises(
        ValueError, match=r"5 subsets of 12 views or events differ in size: use one of \[1, 2, 3"
    ):
        solve(operator, np.ones(operator.range.shape))


def _events(y, geometry):
    """Lists every count of a sinogram as an event."""
    t = geometry.lines(np.arange(BINS)).t.ravel()
    angle = np.repeat(geometry.angles, BINS)
    foot = t[:, None] * np.stack([np.cos(angle), np.sin(angle)], 1)
    along = 40 * np.stack([-np.sin(angle), np.cos(angle)], 1)
    bins = np.repeat(np.arange(VIEWS * BINS), y.ravel().astype(int))
    return (foot - along)[bins], (foot + along)[bins], bins


def test_list_mode_mlem_is_mlem_of_the_binned_events(x64):
    beam = _beam()
    y = _scan(beam, 1.5, scale=0.2)
    starts, ends, _ = _events(y, beam.geometry)
    events = ListModePET.create(starts, ends, (N, N, 1), (2.0, 2.0))
    sensitivity = beam.column_sums()
    start = jnp.ones((N, N, 1))
    binned, trace = mlem(beam, y, 15, background=1.5, x_init=start)
    listed, listed_trace = list_mode_mlem(events, sensitivity, 15, background=1.5, x_init=start)
    np.testing.assert_allclose(listed, binned, rtol=1e-9)
    np.testing.assert_allclose(
        np.diff(listed_trace.objective), np.diff(trace.objective), rtol=1e-7, atol=1e-9
    )
    np.testing.assert_allclose(listed_trace.residual, trace.residual, rtol=1e-7)


def test_ordered_subsets_of_events_and_a_blur_composed(x64):
    """OSEM over interleaved events approaches the maximum of ML-EM, through `events @ psf`."""
    beam = _beam()
    y = _scan(beam, 0.0, scale=2.0)
    starts, ends, bins = _events(y, beam.geometry)
    order = np.random.default_rng(0).permutation(len(bins))[: len(bins) // 4 * 4]
    blur = op.Matrix(jnp.eye(N * N) * 0.8 + 0.2 / N**2, (N, N, 1), (N, N, 1))
    sensitivity = blur.adjoint(beam.column_sums())
    rises = {}
    for subsets in (1, 4):
        events = ListModePET.create(starts[order], ends[order], (N, N, 1), (2.0, 2.0), subsets=subsets)
        likelihood = ListModeEmission.create(events @ blur, sensitivity)
        rises[subsets] = np.asarray(run(osem_iteration(likelihood), 6)[1].objective)
    assert rises[4][0] > rises[1][2]


PRIORS = {"relative difference": RelativeDifference(), "quadratic": Quadratic()}


@pytest.mark.parametrize(
    ("name", "spacing"), [("relative difference", None), ("quadratic", None), ("quadratic", (2.0, 1.0))]
)
def test_roughness_penalties_written_out(name, spacing, x64):
    """Value over explicit pairs, gradient by autodiff of it, and a diagonal above the Hessian."""
    prior = PRIORS[name].replace(spacing=spacing)
    x = np.random.default_rng(0).uniform(0.1, 2, (3, 4, 2))
    dy, dx = (1.0, 1.0) if spacing is None else spacing
    total = 0.0
    for i, j, k in np.ndindex(x.shape):
        for di, dj in ((0, 1), (1, -1), (1, 0), (1, 1)):
            if i + di < 3 and 0 <= j + dj < 4:
                a, b = x[i, j, k], x[i + di, j + dj, k]
                relative = (a - b) ** 2 / (a + b + 2 * abs(a - b))
                phi = relative if name == "relative difference" else (a - b) ** 2 / 2
                total += phi * min(dy, dx) / np.hypot(di * dy, dj * dx)
    x = jnp.asarray(x)
    np.testing.assert_allclose(prior.value(x), total, rtol=1e-12)
    np.testing.assert_allclose(prior.grad(x), jax.grad(prior.value)(x), rtol=1e-9, atol=1e-12)
    hessian = jax.jit(jax.hessian(prior.value))(x).reshape(x.size, x.size)
    gap = np.diag(np.ravel(prior.curvature(x))) - np.asarray(hessian)
    assert np.linalg.eigvalsh(gap)[0] > -1e-10


def test_the_relative_difference_is_finite_at_zero_and_scales_with_the_image():
    prior = RelativeDifference(axes=(0,))
    x = jnp.asarray(np.array([0.0, 0.0, 1e-12, 1.0, 1e6], np.float32))[:, None, None]
    for result in (prior.value(x), prior.grad(x), prior.curvature(x + 1e-15)):
        assert np.isfinite(result).all()
    np.testing.assert_allclose(prior.value(3 * x), 3 * prior.value(x), rtol=1e-5)
    np.testing.assert_allclose(prior.grad(3 * x), prior.grad(x), rtol=1e-4, atol=1e-6)
    assert Quadratic(axes=(1,)).value(x) == 0
    with pytest.raises(ValueError, match="1 spacings for axes"):
        Quadratic(spacing=(1.0,)).value(x)


@pytest.mark.parametrize("name", ["relative difference", pytest.param("quadratic", marks=pytest.mark.slow)])
def test_bsrem_finds_the_penalised_maximum(name, x64):
    """Against scipy's bounded quasi-Newton method; one subset closely, four with relaxation nearly."""
    y = _scan(_matrix(), 2.0)
    prior, weight = PRIORS[name], {"relative difference": 3.0, "quadratic": 0.5}[name]
    likelihood = PoissonEmission.create(_matrix(), y, 2.0)

    def objective(x):
        return weight * prior.value(x) - likelihood.log_prob(x)

    both = jax.jit(jax.value_and_grad(objective))

    def flat(x):
        value, gradient = both(jnp.asarray(x).reshape(N, N, 1))
        return float(value), np.asarray(gradient).ravel()

    found = optimize.minimize(
        flat, np.ones(N * N), jac=True, bounds=[(0, None)] * N * N, method="L-BFGS-B",
        options={"maxiter": 5000, "maxfun": 20000, "ftol": 1e-15, "gtol": 1e-9, "maxcor": 50},
    )  # fmt: skip
    size = np.abs(found.x).max()
    one, trace = jax.jit(lambda y: bsrem(_matrix(), y, prior, weight, 3000, background=2.0, relaxation=0.0))(
        y
    )
    np.testing.assert_allclose(one.ravel(), found.x, atol=2e-3 * size)
    assert trace.objective[-1] >= -found.fun - 1e-5
    four, trace = jax.jit(lambda y: bsrem(_pet(4), y, prior, weight, 600, background=2.0))(y)
    np.testing.assert_allclose(four.ravel(), found.x, atol=0.02 * size)
    assert trace.objective[-1] > -found.fun - 1e-2
    # Early on four subsets are ahead of one.
    slow = bsrem(_matrix(), y, prior, weight, 2, background=2.0)[1]
    assert trace.objective[1] > slow.objective[1]


def test_bsrem_without_penalty_starts_as_em_and_fills_what_nothing_sees(x64):
    operator = _matrix()
    y = _scan(operator, 2.0)
    em, step = (
        f(operator, y, *a, 1, background=2.0)[0] for f, a in ((mlem, ()), (bsrem, (Quadratic(), 0.0)))
    )
    np.testing.assert_allclose(step, em, rtol=1e-9)
    a = np.random.default_rng(0).uniform(size=(9, 6))
    a[:, 2] = 0
    blind = op.Matrix(jnp.asarray(a), (6, 1, 1), (9,))
    filled, _ = bsrem(blind, np.random.default_rng(1).poisson(20, 9), Quadratic(), 0.05, 400, relaxation=0.0)
    np.testing.assert_allclose(filled[2], (filled[1] + filled[3]) / 2, rtol=1e-4)


def _transmission(background, blank=50.0):
    operator = _matrix()
    mu = 0.01 * np.asarray(_activity())
    mean = blank * np.exp(-np.asarray(operator(jnp.asarray(mu)))) + background
    return operator, np.random.default_rng(3).poisson(mean).astype(float)


@pytest.mark.parametrize("background", [pytest.param(0.0, marks=pytest.mark.slow), 20.0])
def test_paraboloids_rise_and_both_methods_find_the_maximum(background, x64):
    operator, y = _transmission(background)
    run_for = lambda solve, steps: jax.jit(lambda y: solve(operator, y, 50.0, steps, background=background))(
        y
    )
    image, trace = run_for(paraboloids, 300)
    assert np.all(np.diff(np.asarray(trace.objective)) >= -1e-9)
    fast, fast_trace = run_for(mltr, 4000)
    likelihood = PoissonTransmission.create(operator, y, 50.0, background)
    np.testing.assert_allclose(fast_trace.objective[-1], likelihood.log_prob(fast), rtol=1e-12)
    slope = -likelihood.grad(fast)
    scale = float(np.max(operator.adjoint(jnp.asarray(y))))
    assert slope.min() > -1e-4 * scale and np.abs(slope * fast).sum() < 1e-5 * scale
    assert fast_trace.objective[-1] >= trace.objective[-1] - 1e-6
    np.testing.assert_allclose(trace.objective[-1], fast_trace.objective[-1], atol=0.05)


def test_one_step_of_mltr_is_the_formula_of_its_paper(x64):
    """r = 0: x + A^T(I0 e^{-Ax} - y) / A^T((A 1) I0 e^{-Ax}), written out."""
    operator, y = _transmission(0.0)
    start = 0.01 * np.ones((N, N, 1))
    a = _dense()
    passed = 50 * np.exp(-a @ start.ravel())
    x = start.ravel() + (a.T @ (passed - y.ravel())) / (a.T @ (a.sum(1) * passed))
    found, _ = mltr(operator, y, 50.0, 1, x_init=start)
    np.testing.assert_allclose(found.ravel(), np.maximum(x, 0), rtol=1e-10, atol=1e-14)


def test_transmission_is_finite_in_single_precision_without_a_photon():
    """Starved rays, a dead detector and a blank scan of 1e6, where logarithms of the data fail."""
    operator, _ = _transmission(0.0)
    y, blank = np.zeros(operator.range.shape), np.full(operator.range.shape, 1e6)
    y[:6], blank[3] = 1e6, 0
    y[3] = 0
    for solve in (mltr, paraboloids):
        image, trace = solve(operator, y, blank, 50)
        assert np.isfinite(image).all() and np.isfinite(trace.objective).all() and image.min() >= 0


def test_a_batch_of_scans_is_each_of_them():
    operator = _pet(3)
    y = jnp.asarray(np.stack([_scan(operator, 2.0, seed=s) for s in range(2)]), jnp.float32)
    solve = lambda y: osem(operator, y, 2, background=2.0)[0]
    batch, one = jax.jit(jax.vmap(solve))(y), jax.jit(solve)
    for image, counts in zip(batch, y, strict=True):
        np.testing.assert_allclose(image, one(counts), rtol=1e-4, atol=1e-5)


def test_the_derivative_by_the_background_goes_through_the_steps(x64):
    operator, y = _matrix(), jnp.asarray(_scan(_matrix(), 2.0))
    total = jax.jit(jax.value_and_grad(lambda b: jnp.sum(mlem(operator, y, 3, background=b)[0])))
    (ahead, _), (behind, _), (_, slope) = total(2.001), total(1.999), total(2.0)
    np.testing.assert_allclose(slope, (ahead - behind) / 0.002, rtol=1e-5)
