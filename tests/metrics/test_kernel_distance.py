"""The kernel distance against sums by hand, an exact law, and the coverage of its interval."""

import itertools

import numpy as np
import pytest

from pgm_jax.metrics import kernel_distance, standardised


def _kernel(x, y):
    return (x @ y / len(x) + 1) ** 3


def _by_hand(a, b):
    pairs = lambda x: np.mean([_kernel(p, q) for p, q in itertools.permutations(x, 2)])
    return pairs(a) + pairs(b) - 2 * np.mean([_kernel(p, q) for p in a for q in b])


def test_value_and_jackknife_by_hand():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(5, 3)), rng.normal(0.3, 1.2, size=(6, 3))
    groups = np.array([7, 7, 2, 2, 2, 5])
    found = kernel_distance(a, b, groups_b=groups)
    assert found.value == pytest.approx(_by_hand(a, b), rel=1e-12)
    left_a = [_by_hand(np.delete(a, i, 0), b) for i in range(5)]
    left_b = [_by_hand(a, b[groups != g]) for g in (2, 5, 7)]
    variance = 4 / 5 * np.sum((left_a - np.mean(left_a)) ** 2)
    variance += 2 / 3 * np.sum((left_b - np.mean(left_b)) ** 2)
    assert found.high - found.value == pytest.approx(1.959964 * np.sqrt(variance), rel=1e-6)
    assert found.value - found.low == pytest.approx(found.high - found.value)


# Two laws on four points each, whose distance is an exact sum.
POINTS_A = np.array([[0.0, 1.0], [1.0, 0.0], [-1.0, 0.5], [0.3, -0.8]])
POINTS_B = np.array([[0.5, 1.0], [1.2, 0.1], [-0.6, 0.5], [0.8, -0.8]])


def _exact(p, q):
    mean = lambda x, y: np.mean([_kernel(u, v) for u in x for v in y])
    return mean(p, p) + mean(q, q) - 2 * mean(p, q)


def test_unbiased_and_the_interval_covers_the_distance():
    rng = np.random.default_rng(1)
    truth = _exact(POINTS_A, POINTS_B)
    draws = [
        kernel_distance(POINTS_A[rng.integers(4, size=40)], POINTS_B[rng.integers(4, size=60)])
        for _ in range(400)
    ]
    values = np.array([draw.value for draw in draws])
    assert abs(values.mean() - truth) < 4 * values.std() / 20
    covered = np.mean([draw.low <= truth <= draw.high for draw in draws])
    # Four standard errors around 95 %.
    assert abs(covered - 0.95) < 0.045


def test_groups_widen_the_interval_of_samples_that_repeat():
    rng = np.random.default_rng(2)
    truth, covered = _exact(POINTS_A, POINTS_B), []
    for _ in range(100):
        first, second = POINTS_A[rng.integers(4, size=60)], POINTS_B[rng.integers(4, size=24)]
        # Each of b comes four times, as patches of one slice do.
        groups = np.repeat(np.arange(24), 4)
        found = [kernel_distance(first, np.repeat(second, 4, axis=0), groups_b=g) for g in (None, groups)]
        covered.append([one.low <= truth <= one.high for one in found])
    alone, grouped = np.mean(covered, axis=0)
    assert grouped > 0.9 and grouped - alone > 0.05


def test_equal_laws_are_at_zero():
    rng = np.random.default_rng(3)
    values = [kernel_distance(rng.normal(size=(20, 4)), rng.normal(size=(25, 4))).value for _ in range(200)]
    assert abs(np.mean(values)) < 4 * np.std(values) / np.sqrt(200)


def test_standardised_features_have_deviation_one_and_an_end():
    reference = np.array([[1.0, 5.0, 2.0], [3.0, 5.0, 4.0], [5.0, 5.0, 0.0]])
    found = standardised(reference, reference)
    np.testing.assert_allclose(found.mean(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(found.std(axis=0), [1, 0, 1], rtol=1e-12)
    np.testing.assert_array_equal(standardised([[1e9, 7.0, -1e9]], reference), [[5.0, 0.0, -5.0]])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"a": np.zeros((4, 2)), "b": np.zeros((4, 3))}, "feature vectors"),
        ({"a": np.zeros((2, 2)), "b": np.zeros((4, 2))}, "set a of 2 vectors has 2 groups"),
        (
            {"a": np.zeros((4, 2)), "b": np.zeros((4, 2)), "groups_b": [0, 0, 0, 1]},
            "set b of 4 vectors has 2",
        ),
        ({"a": np.zeros((4, 2)), "b": np.zeros((4, 2)), "groups_a": [0, 1, 2]}, "one label a vector"),
    ],
)
def test_refusals(arguments, words):
    with pytest.raises(ValueError, match=words):
        kernel_distance(**arguments)
