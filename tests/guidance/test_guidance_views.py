"""Volumes from denoisers of slices, and images from denoisers of tiles, against dense forms of the same map."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pgm_jax.core import lift
from pgm_jax.guidance import alternate, dps, slabs, tile, tiles, untile, views
from pgm_jax.operators import GaussianLikelihood, Identity
from pgm_jax.processes import EDM, PFGMpp, StudentT, karras
from pgm_jax.samplers import heun, sample_one

SHAPE = (5, 5, 5, 2)


def _volume(shape=SHAPE, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape))


def _symmetric(x, t, cond=None):
    """A linear denoiser of slices that treats both axes alike: it mixes neighbours on a ring."""
    return (x + 0.2 * sum(jnp.roll(x, s, a) for s in (-1, 1) for a in (0, 1))) / (1 + t**2)


def _one_way(x, t, cond=None):
    return (x + 0.3 * jnp.roll(x, 1, 0) - 0.2 * jnp.roll(x, 1, 1)) / (1 + t)


# Views.


def test_symmetric_denoisers_give_equal_views(x64):
    """On a volume that is symmetric in its axes the three views agree, and so does their mean."""
    x = _volume()
    x = sum(
        jnp.transpose(x, (*order, 3))
        for order in [(0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)]
    )
    one = [views(_symmetric, axis, process=EDM())(x, 0.7) for axis in range(3)]
    for axis in (1, 2):
        np.testing.assert_allclose(jnp.swapaxes(one[axis], 0, axis), one[0], atol=1e-14)
    mean = views(_symmetric, (0, 1, 2), process=EDM())(x, 0.7)
    np.testing.assert_allclose(mean, sum(one) / 3, atol=1e-14)


@pytest.mark.parametrize("chunk", [None, 2, 5])
def test_views_by_hand(x64, chunk):
    """Every slice on its own, and the mean over the axes; a denoiser an axis; averaging equal maps is no change."""
    x, t = _volume(), 0.7
    given = (_one_way, _symmetric)
    found = jax.jit(views(given, (0, 2), process=EDM(), chunk=chunk))(x, t)
    first = np.stack([_one_way(x[i], t) for i in range(5)], axis=0)
    second = np.stack([_symmetric(x[:, :, i], t) for i in range(5)], axis=2)
    np.testing.assert_allclose(found, (first + second) / 2, atol=1e-14)
    twice = views(_one_way, (0, -4), process=EDM(), chunk=chunk)(x, t)
    np.testing.assert_allclose(twice, first, atol=1e-14)
    # The gradient passes the chunks.
    loss = lambda denoise: jax.grad(lambda x: jnp.sum(denoise(x, t) ** 3))(x)
    whole, cut = (views(given, (0, 2), process=EDM(), chunk=c) for c in (None, chunk))
    np.testing.assert_allclose(loss(cut), loss(whole), atol=1e-13)


def _neighbours(volume, i, k, axis):
    """Slices i - k to i + k, borders repeated, as channels."""
    last = volume.shape[axis] - 1
    return jnp.concatenate(
        [jnp.take(volume, min(max(j, 0), last), axis) for j in range(i - k, i + k + 1)], -1
    )


@pytest.mark.parametrize("chunk", [None, 2])
def test_slabs_of_the_condition(x64, chunk):
    """MADM: slice i sees slices i - k to i + k of the condition; None hands all of it to each."""
    x, cond, weights = _volume(), {"scan": _volume(seed=1)}, _volume((10, 2), seed=2)
    sees = lambda x, t, c: x + jnp.tanh(c["scan"] @ weights)
    for axis in (0, 1):
        found = views(sees, axis, process=EDM(), cond_neighbours=2, chunk=chunk)(x, 0.7, cond)
        expected = [
            jnp.take(x, i, axis) + jnp.tanh(_neighbours(cond["scan"], i, 2, axis) @ weights) for i in range(5)
        ]
        np.testing.assert_allclose(found, jnp.stack(expected, axis), atol=1e-14)
    shared = views(lambda x, t, c: x * c, 0, process=EDM(), chunk=chunk)(x, 0.7, 3.0)
    np.testing.assert_allclose(shared, 3 * x, rtol=1e-14)


def test_slabs_of_the_state(x64):
    """A 2.5-D denoiser: the noisy neighbours are channels; k = 0 is one view."""
    x, cond, weights = _volume(), _volume(seed=1), _volume((6, 2), seed=2)
    mixes = lambda slab, t, c=None: jnp.tanh(slab @ weights) + (0 if c is None else c)
    for axis in (0, 2):
        found = slabs(mixes, axis, 1, process=EDM(), cond_neighbours=0, chunk=3)(x, 0.7, cond)
        expected = [
            jnp.tanh(_neighbours(x, i, 1, axis) @ weights) + jnp.take(cond, i, axis) for i in range(5)
        ]
        np.testing.assert_allclose(found, jnp.stack(expected, axis), atol=1e-14)
    flat = slabs(_one_way, 1, 0, process=EDM())(x, 0.7)
    np.testing.assert_allclose(flat, views(_one_way, 1, process=EDM())(x, 0.7), atol=1e-14)


def test_slices_of_their_own_radius_at_finite_d(x64, key):
    """One axis and one radius a slice: a run on the volume is a run of PFGM++ on each slice, and draws as such."""
    flat, process = PFGMpp(4.0), PFGMpp(4.0, event_axes=(1, 2, 3))
    start = process.prior(key, (50, 2, 2, 1), 80.0)
    run = lambda denoise, process, x: sample_one(key, heun(), denoise, process, karras(6), x_init=x)
    volume = jax.jit(lambda x: run(views(_symmetric, 0, process=process), process, x))(start)
    slices = jax.jit(jax.vmap(lambda x: run(_symmetric, flat, x)))(start)
    np.testing.assert_allclose(volume, slices, atol=1e-12)
    # Sums of squares of 4 normals each with its own radius scatter far more than with a shared one.
    energy = jnp.sum(start**2, axis=(1, 2, 3))
    assert float(energy.std() / energy.mean()) > 0.9


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: views(_one_way, 0, process=PFGMpp(4.0)), r"StudentT\(D, event_axes=\(1, 2, 3\)\)"),
        (lambda: views(_one_way, 1, process=PFGMpp(4.0, event_axes=(1, 2, 3))), r"event_axes=\(0, 2, 3\)\)"),
        (lambda: views(_one_way, (0, 1), process=PFGMpp(4.0, event_axes=(1, 2, 3))), "overlap or cross"),
        (lambda: slabs(_one_way, 0, process=PFGMpp(4.0, event_axes=(1, 2, 3))), "overlap or cross"),
        (lambda: tiles(_one_way, 3, process=EDM(StudentT(4.0))), "tiles that overlap"),
        (lambda: views(_one_way, 3, process=EDM()), "axes of space"),
        (lambda: views((_one_way, _one_way), 0, process=EDM()), "2 denoisers for axes"),
        (lambda: tiles(_one_way, 9, process=EDM()), "do not fit"),
        (lambda: tiles(_one_way, (3, 3), process=EDM()), "do not fit"),
        (lambda: tiles(_one_way, 3, 3, process=EDM()), "overlap < size"),
    ],
)
def test_refusals(make, message):
    with pytest.raises(ValueError, match=message):
        make()(_volume(), 0.7)


@pytest.mark.parametrize("make", [views, slabs, functools.partial(tiles, size=3)])
def test_one_time_for_all_voxels(make):
    with pytest.raises(ValueError, match="one time"):
        make(_one_way, process=EDM())(_volume(), jnp.full(SHAPE, 0.7))


# Alternation.


def test_alternation_takes_each_view_with_its_probability(x64):
    """TPDM: 0 and 1 are one view, between them a coin a call and a sample; the inner state is handed on."""
    x, t = _volume(), 0.7
    first, second = (views(_one_way, axis, process=EDM()) for axis in (0, 1))
    inner = lift(EDM(), first)

    def run(key, probability):
        return alternate(second, probability)(inner).apply(key, x, t, ())[0]

    for probability, denoise in ((0.0, first), (1.0, second)):
        estimate = run(jax.random.key(0), probability)
        np.testing.assert_allclose(estimate.x0, denoise(x, t), rtol=1e-14)
        np.testing.assert_allclose(EDM().mix(estimate, t), x, rtol=1e-13)
    keys = jax.random.split(jax.random.key(1), 400)
    found = jax.jit(jax.vmap(run, (0, None)))(keys, 0.3).x0
    taken = np.array([np.allclose(v, second(x, t), atol=1e-12) for v in found])
    assert all(np.allclose(v, first(x, t), atol=1e-12) for v in found[~taken])
    assert abs(taken.mean() - 0.3) < 5 * np.sqrt(0.3 * 0.7 / 400)


def test_a_gradient_goes_through_the_view_that_was_drawn(x64):
    """DPS around an alternation is DPS around the drawn view."""
    x, t = _volume(), 0.7
    likelihood = GaussianLikelihood.create(Identity(SHAPE), _volume(seed=3), 0.5)
    first, second = (views(_one_way, axis, process=EDM()) for axis in (0, 1))
    for probability, denoise in ((0.0, first), (1.0, second)):
        both = dps(likelihood)(alternate(second, probability)(lift(EDM(), first)))
        one = dps(likelihood)(lift(EDM(), denoise))
        found, expected = (e.apply(jax.random.key(0), x, t, e.init(x))[0].x0 for e in (both, one))
        np.testing.assert_allclose(found, expected, rtol=1e-12)


# Tiles.

SIZES = [
    ((9, 7, 1), 4, 2),
    ((9, 7, 1), (4, 7), (3, 0)),
    ((8, 8, 2), 4, 0),
    ((10, 6, 5, 1), (4, 3, 5), (1, 2, 4)),
]


@pytest.mark.parametrize("shape, size, overlap", SIZES)
def test_untile_inverts_tile(x64, shape, size, overlap):
    """`untile(tile(x)) = x`, tiles cut as they should be, and any pointwise denoiser unchanged by tiling."""
    x = _volume(shape)
    parts = tile(x, size, overlap)
    np.testing.assert_allclose(untile(parts, shape, size, overlap), x, atol=1e-15)
    np.testing.assert_array_equal(parts[0], x[tuple(slice(n) for n in parts.shape[1:])])
    np.testing.assert_array_equal(parts[-1], x[tuple(slice(-n, None) for n in parts.shape[1:])])
    denoise = tiles(lambda x, t, cond: jnp.tanh(x) / (1 + t), size, overlap, process=EDM(), chunk=2)
    np.testing.assert_allclose(jax.jit(denoise)(x, 0.5), jnp.tanh(x) / 1.5, atol=1e-14)


def test_the_weights_are_ramps_that_sum_to_one(x64):
    """Tiles of their own number: across an overlap of 3 the image goes from one to the next in equal steps."""
    parts = jnp.stack([jnp.full((6, 1), 0.0), jnp.full((6, 1), 1.0)])
    joined = untile(parts, (9, 1), 6, 3)
    np.testing.assert_allclose(joined[:, 0], [0, 0, 0, 0.25, 0.5, 0.75, 1, 1, 1], atol=1e-15)


def test_a_local_denoiser_is_exact_away_from_the_seams(x64):
    """A map that reaches one voxel errs only where a border tile shows it: less than voxels of weight would."""
    local = lambda x, t, cond=None: (
        jax.lax.reduce_window(x, 0.0, jax.lax.add, (3, 3, 1), (1, 1, 1), "SAME") / 9
    )
    x = _volume((20, 20, 1))
    whole = local(x, 0.5)
    gaps = [jnp.abs(tiles(local, 8, overlap, process=EDM())(x, 0.5) - whole) for overlap in (0, 4)]
    assert float(gaps[0][10, 10, 0]) == pytest.approx(0, abs=1e-15)
    # No overlap shows the full error at every seam, an overlap its border at a fifth of the weight.
    assert float(gaps[1].max()) < 0.5 * float(gaps[0].max())


@pytest.mark.parametrize("chunk", [1, 3, 100])
def test_cut_and_shared_conditions_and_their_gradient(x64, chunk):
    x, cond = _volume((9, 7, 2)), _volume((9, 7, 1), seed=1)
    sees = lambda x, t, c: x * jnp.exp(c)
    cut = tiles(sees, 4, 2, process=EDM(), cut_cond=True, chunk=chunk)
    np.testing.assert_allclose(cut(x, 0.5, cond), x * jnp.exp(cond), rtol=1e-13)
    shared = tiles(sees, 4, 2, process=EDM(), chunk=chunk)
    np.testing.assert_allclose(shared(x, 0.5, 0.3), x * np.exp(0.3), rtol=1e-13)
    slope = jax.grad(lambda x: jnp.sum(cut(x, 0.5, cond) ** 2))(x)
    np.testing.assert_allclose(slope, 2 * x * jnp.exp(2 * cond), rtol=1e-12)


@pytest.mark.parametrize(
    "denoise",
    [views(_one_way, (0, 1), process=EDM(), chunk=2), slabs(_symmetric, 0, 0, process=EDM())]
    + [tiles(_symmetric, (3, 5, 4), (1, 0, 2), process=EDM(), chunk=2)],
    ids=["views", "slabs", "tiles"],
)
def test_a_batch_is_its_samples(x64, denoise):
    """Under `vmap`, with a time each."""
    x, t = _volume((3, *SHAPE)), jnp.array([0.3, 0.7, 2.0])
    batch = jax.jit(jax.vmap(denoise))(x, t)
    np.testing.assert_allclose(batch[1], jax.jit(denoise)(x[1], t[1]), atol=1e-14)


@pytest.mark.parametrize("reverse", [False, True])
def test_a_chunk_bounds_the_memory(reverse):
    """A denoiser with 64 times the memory of its tile: one tile at a time needs a fifth of all at once."""

    def wide(x, t, cond=None):
        for layer in range(3):
            x = jnp.tanh(x @ jnp.full((1, 64), 0.5 + layer)) @ jnp.full((64, 1), 0.1)
        return x

    def memory(chunk):
        denoise = tiles(wide, 8, 2, process=EDM(), chunk=chunk)
        run = jax.grad(lambda x: jnp.sum(denoise(x, 0.5) ** 2)) if reverse else lambda x: denoise(x, 0.5)
        compiled = jax.jit(run).lower(jax.ShapeDtypeStruct((64, 64, 1), jnp.float32)).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    assert memory(1) < 0.2 * memory(121)
