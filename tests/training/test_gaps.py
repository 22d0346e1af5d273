"""Curricula, pairs of times and distances against the numbers of their papers (foundations 2.11 to 2.13, O28)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pgm_jax.processes import DDPM, EDM, VP, karras
from pgm_jax.training.objectives import curricula, distances, gaps, levels


def test_consistency_trainings_levels_and_rates():
    levels = curricula.progressive(1000, 2, 150)
    rates = curricula.following(levels, 0.9, 2)
    steps = [0, 500, 1000]
    np.testing.assert_array_equal([levels(k) for k in steps], [2, 107, 151])
    np.testing.assert_allclose([rates(k) for k in steps], [0.81, 0.998014, 0.998596], atol=1e-6)


def test_improved_trainings_levels_double():
    levels = curricula.doubling(400_000, 10, 1280)
    found = [int(levels(50_000 * n + 49_999)) for n in range(8)] + [int(levels(400_000))]
    assert found == [11, 21, 41, 81, 161, 321, 641, 1281, 1281] and int(levels(0)) == 11


def test_the_law_of_improved_trainings_index():
    """A drawn level's neighbours follow erf differences; quantiles spread evenly stand for the law."""
    pairs = gaps.on_grid(11, emphasis=(-1.1, 2.0))
    u = (jnp.arange(200_000) + 0.5) / 200_000
    t, s = jax.vmap(lambda u: pairs(EDM(), u, 0))(u)
    grid = karras(11)[:-1][::-1]
    np.testing.assert_allclose(np.unique(s), grid[:-1], rtol=1e-4)
    shares = [np.mean(np.isclose(t, level, rtol=1e-4)) for level in grid[1:]]
    published = [0.0626, 0.1817, 0.2455, 0.2135, 0.1425, 0.0806, 0.0411, 0.0196, 0.0089, 0.0040]
    np.testing.assert_allclose(shares, published, atol=1e-4)


def test_uniform_neighbours_and_skips():
    u = (jnp.arange(1000) + 0.5) / 1000
    grid = karras(6)[:-1][::-1]
    for skip in (1, 3):
        t, s = jax.vmap(lambda u, skip=skip: gaps.on_grid(6, skip=skip)(EDM(), u, 0))(u)
        places = [np.abs(np.log(grid)[None] - np.log(np.asarray(x))[:, None]).argmin(1) for x in (t, s)]
        assert np.array_equal(places[1], np.maximum(places[0] - skip, 0)) and set(places[0]) == set(
            range(1, 6)
        )


def test_easy_consistency_tunings_stages():
    ratio = lambda level, stage: (
        float(
            gaps.relative(lambda process, u: jnp.float32(level), curricula.constant(stage))(EDM(), 0.5, 0)[1]
        )
        / level
    )
    assert ratio(1.05, 0) == 0 and ratio(0.01, 0) == 0
    np.testing.assert_allclose([ratio(5, 0), ratio(80, 0)], [0.4732, 0.5], atol=1e-4)
    np.testing.assert_allclose([ratio(0.002, 6), ratio(80, 6)], [0.961, 0.992], atol=1e-3)
    assert int(curricula.stages(10, most=3)(100)) == 3 and int(curricula.stages(10)(25)) == 2


def test_pairs_are_levels_on_any_process():
    t, s = gaps.relative(lambda process, u: process.time(5.0))(VP(), 0.5, 0)
    ratio = lambda t: float(VP().sigma(t) / VP().alpha(t))
    assert ratio(t) == pytest.approx(5, rel=1e-4) and ratio(s) == pytest.approx(5 * 0.4732, rel=1e-3)


def test_latent_consistencys_chain():
    u = (jnp.arange(50) + 0.5) / 50
    t, s = jax.vmap(lambda u: gaps.on_chain(np.arange(20, 1001, 20), 20)(DDPM(), u, 0))(u)
    np.testing.assert_array_equal(t, np.arange(20, 1001, 20))
    np.testing.assert_array_equal(s, np.arange(0, 981, 20))


def test_pseudo_huber_is_its_formula_and_has_a_gradient_at_zero():
    a, b = jax.random.normal(jax.random.key(0), (2, 3, 4, 4, 2))
    d = np.asarray(a - b, np.float64).reshape(3, -1)
    c = 0.00054 * np.sqrt(32)
    np.testing.assert_allclose(distances.pseudo_huber()(a, b), np.sqrt((d**2).sum(1) + c**2) - c, rtol=1e-6)
    np.testing.assert_allclose(
        distances.pseudo_huber(10.0)(a, b), np.sqrt((d**2).sum(1) + 100) - 10, rtol=1e-5
    )
    for distance in (distances.squared, distances.pseudo_huber(), distances.pyramid()):
        gradient = jax.grad(lambda a, distance=distance: distance(a, b).sum())(b)
        assert not jnp.any(gradient) and not jnp.any(distance(b, b))
    both = distances.pseudo_huber()(a + 1j * b, jnp.zeros_like(a, jnp.complex64))
    np.testing.assert_allclose(
        both,
        distances.pseudo_huber()(jnp.concatenate([a, b], -1), 0 * d.reshape(3, 4, 4, 2).repeat(2, -1)),
        rtol=1e-5,
    )


def test_the_pyramid_is_its_formula():
    a, b = np.asarray(jax.random.normal(jax.random.key(1), (2, 1, 8, 12, 1)), np.float64)
    bent = lambda d: np.mean(np.sqrt(d**2 + 1e-6) - 1e-3)
    d, expected = (a - b)[0, ..., 0], 0.0
    for _ in range(2):
        expected += bent(d) + bent(d[1:] - d[:-1]) + bent(d[:, 1:] - d[:, :-1])
        d = (d[::2, ::2] + d[1::2, ::2] + d[::2, 1::2] + d[1::2, 1::2]) / 4
    found = distances.pyramid(levels=2)(jnp.float32(a), jnp.float32(b))
    np.testing.assert_allclose(found, [expected], rtol=1e-5)
    # A third level, and no fourth: 2 by 3 cannot be halved.
    assert distances.pyramid(9)(jnp.float32(a), jnp.float32(b)) == distances.pyramid(3)(
        jnp.float32(a), jnp.float32(b)
    )


@pytest.mark.parametrize(
    "make, told",
    [
        (lambda: gaps.on_grid(1), "at least 2 levels"),
        (lambda: gaps.on_grid(18, 80.0, 0.002), "sigma_min < sigma_max"),
        (lambda: gaps.relative(q=1.0), "q > 1"),
        (lambda: gaps.on_chain([0, 20], 20), "times > 0"),
        (lambda: curricula.doubling(3), "too few"),
        (lambda: curricula.progressive(0), "total >= 1"),
        (lambda: curricula.following(curricula.constant(3), 1.0), r"\(0, 1\)"),
        (lambda: curricula.stages(0), "every >= 1"),
        (lambda: distances.pseudo_huber(0.0), "c > 0"),
        (lambda: distances.pyramid(0), "levels >= 1"),
    ],
)
def test_wrong_numbers_are_refused(make, told):
    with pytest.raises(ValueError, match=told):
        make()


def test_below_a_floor_pairs_end_at_the_clean_image():
    """The others are those without one."""
    u = (jnp.arange(400) + 0.5) / 400
    law = levels.lognormal(-2.0, 1.5)
    plain = jax.vmap(lambda u: gaps.relative(law, lambda step: 4)(EDM(), u, 0))(u)
    held = jax.vmap(lambda u: gaps.relative(law, lambda step: 4, floor=0.02)(EDM(), u, 0))(u)
    np.testing.assert_array_equal(held[0], plain[0])
    np.testing.assert_array_equal(held[1], jnp.where(plain[1] < 0.02, 0.0, plain[1]))
    assert 0 < float(jnp.mean(held[1] == 0)) < 1
    with pytest.raises(ValueError, match="floor of 0 or more"):
        gaps.relative(floor=-1.0)
