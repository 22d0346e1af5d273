"""Oblique patches: geometry against an analytic volume, and draws that depend on seed and number alone."""

import numpy as np
import pytest

from pgm_jax.data import Source, oblique_patches


def ball(size=40, radius=14.0):
    grid = np.indices((size,) * 3) - (size - 1) / 2
    return (np.sqrt((grid**2).sum(0)) < radius).astype(np.float32)


def test_tilts_of_a_ball_are_that_ball():
    # A rotated ball is the same ball, so every patch shows a disc no larger than it, at the scale of the step.
    batches = oblique_patches([Source(ball(), step=(0.5, 0.5))], 24, 64, seed=0, rotation=90.0)
    patches = next(batches)["x0"]
    assert patches.shape == (24, 64, 64, 1) and patches.dtype == np.float32
    area = (patches > 0.5).sum((1, 2, 3)) * 0.25
    assert area.max() <= 1.05 * np.pi * 14**2
    assert np.all(patches.max((1, 2, 3)) > 0.5)


def test_an_untilted_unrotated_patch_is_the_interpolated_slice():
    # A linear ramp along the columns stays a ramp with the slope of the step; a mirror turns its sign. Rows are
    # many, so few patches touch the upper and lower border, where the volume ends in zeros.
    volume = np.broadcast_to(np.linspace(1, 2, 60)[None, None], (10, 400, 60)).astype(np.float32)
    source = Source(volume, step=(0.5, 0.5))
    patches = next(oblique_patches([source], 32, 8, seed=1, tilts=0, rotation=0.0, axial=1.0))["x0"][..., 0]
    inner = patches[(patches.min((1, 2)) > 1.2) & (patches.max((1, 2)) < 1.8)]
    slopes = np.abs(np.diff(inner, axis=2)) * 59
    ramps = np.abs(np.diff(inner, axis=1)).max((1, 2)) < 2e-3
    # The stretch is exp(u), |u| <= 0.07, and float16 holds three digits.
    assert len(inner) > 10 and ramps.mean() > 0.8
    assert np.all((slopes[ramps] > 0.4) & (slopes[ramps] < 0.6))


def test_draws_depend_on_seed_and_number_alone():
    sources = [Source(ball(), 2.0), Source(ball(radius=10.0), 1.0)]
    made = lambda size, **options: oblique_patches(sources, size, 16, seed=3, tilts=1, **options)
    whole = made(8)
    first, second = next(whole)["x0"], next(whole)["x0"]
    again = made(8)
    again.set_state(_after(made(8), 1))
    np.testing.assert_array_equal(next(again)["x0"], second)
    parts = [next(made(8, process_index=i, process_count=2))["x0"] for i in range(2)]
    np.testing.assert_array_equal(np.concatenate(parts), first)
    assert not np.array_equal(first, second)


def _after(batches, count):
    for _ in range(count):
        next(batches)
    return batches.get_state()


@pytest.mark.parametrize(
    ("sources", "message"),
    [
        ([], "no volumes"),
        ([Source(np.zeros((8, 8, 8), np.float32))], "not a finite volume"),
        ([Source(ball()[0])], "not a finite volume"),
        ([Source(ball() * np.nan)], "not a finite volume"),
        ([Source(ball(), weight=0.0)], "positive weight"),
        ([Source(ball(), step=(2.0, 1.0))], "smaller first"),
    ],
)
def test_wrong_sources_are_named(sources, message):
    with pytest.raises(ValueError, match=message):
        oblique_patches(sources, 4, 16, seed=0)
