"""Trained priors on disk: what is saved is what is loaded, and a wrong file is one clear line."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pgm_jax
from pgm_jax import networks, priors, processes

OPTIONS = {"channels": 2, "widths": [8, 8], "encoder": [1, 1], "decoder": [1], "embedding": 8}
CARD = {
    "network": ["drunet", OPTIONS],
    "process": ["PFGMpp", {"D": "128"}],
    "sigma_data": 0.5,
    "unit": "99.5th percentile",
}


@pytest.fixture(scope="module")
def params():
    shapes = jax.eval_shape(networks.drunet(**OPTIONS).init, jax.random.key(0))
    leaves, tree = jax.tree.flatten(shapes)
    values = [jax.random.normal(jax.random.key(i), leaf.shape) / 8 for i, leaf in enumerate(leaves)]
    return jax.tree.unflatten(tree, values)


def test_the_loaded_prior_is_the_rounded_one(params, tmp_path):
    file = tmp_path / "mine.npz"
    priors.save_prior(file, params, CARD)
    prior = pgm_jax.load_prior(file)
    rounded = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16).astype(jnp.float32), params)
    jax.tree.map(np.testing.assert_array_equal, prior.params, rounded)
    assert prior.card == CARD and float(prior.process.law.df) == 128
    x = jax.lax.complex(*jax.random.normal(jax.random.key(1), (2, 8, 8, 1)))
    scaling = processes.precondition.edm(0.5)
    by_hand = networks.as_denoiser(networks.drunet(**OPTIONS), rounded, processes.PFGMpp(128.0), scaling)
    through_jit = jax.jit(lambda prior, x: prior.denoiser()(x, 0.3))(prior, x)
    np.testing.assert_allclose(through_jit, by_hand(x, 0.3), rtol=1e-5, atol=1e-6, equal_nan=False)
    assert b"pickle" not in file.read_bytes() and not list(tmp_path.glob("*.partial"))


def test_an_infinite_dimension_survives_the_card(params, tmp_path):
    priors.save_prior(tmp_path / "edm.npz", params, CARD | {"process": ["PFGMpp", {"D": "inf"}]})
    assert isinstance(priors.load_prior(tmp_path / "edm.npz").process.law, processes.Normal)


def _damaged(file):
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])


def _foreign(file):
    np.savez(file, x=np.zeros(3))


def _without_unit(file):
    np.savez(file, card=np.array(json.dumps({k: v for k, v in CARD.items() if k != "unit"})))


def _of_another_network(file):
    options = OPTIONS | {"widths": [8, 16]}
    small = dict(np.load(file))
    np.savez(file, **(small | {"card": np.array(json.dumps(CARD | {"network": ["drunet", options]}))}))


def _of_the_future(file):
    np.savez(file, card=np.array(json.dumps(CARD | {"network": ["supernet", {}]})))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_damaged, "cannot be read as a prior"),
        (_foreign, "cannot be read as a prior"),
        (_without_unit, "its card lacks 'unit'"),
        (_of_another_network, "do not fit the network of its card"),
        (_of_the_future, "cannot build supernet"),
        (lambda file: file.unlink(), "cannot be read as a prior"),
    ],
)
def test_wrong_files_are_named(spoil, message, params, tmp_path):
    file = tmp_path / "prior.npz"
    priors.save_prior(file, params, CARD)
    spoil(file)
    with pytest.raises(priors.PriorError, match=message) as raised:
        priors.load_prior(file)
    assert str(file) in str(raised.value)


def test_an_unknown_name_lists_the_known():
    with pytest.raises(priors.PriorError, match="no prior 'brian'"):
        priors.load_prior("brian")


def test_nothing_is_written_of_a_wrong_prior(params, tmp_path):
    with pytest.raises(priors.PriorError, match="lacks 'unit'"):
        priors.save_prior(tmp_path / "a.npz", params, {k: v for k, v in CARD.items() if k != "unit"})
    spoiled = jax.tree.map(lambda leaf: leaf * jnp.nan, params)
    with pytest.raises(priors.PriorError, match="not finite"):
        priors.save_prior(tmp_path / "a.npz", spoiled, CARD)
    assert not list(tmp_path.iterdir())


def test_eight_bits_are_half_a_step_of_each_output_away(params, tmp_path):
    file = tmp_path / "small.npz"
    priors.save_prior(file, params, CARD, bits=8)
    found = priors.load_prior(file).params

    def near(given, kept):
        given, kept = np.asarray(given), np.asarray(kept)
        if given.ndim == 1:
            np.testing.assert_array_equal(kept, jnp.asarray(given).astype(jnp.bfloat16).astype(jnp.float32))
            return
        inputs = tuple(range(given.ndim - 1))
        step = np.abs(given).max(axis=inputs) / 127
        assert np.max(np.abs(kept - given) / step) <= 0.5001
        np.testing.assert_allclose(np.abs(kept).max(axis=inputs), 127 * step, rtol=1e-6)

    jax.tree.map(near, params, found)
    priors.save_prior(tmp_path / "large.npz", params, CARD)
    assert file.stat().st_size < (tmp_path / "large.npz").stat().st_size
    with pytest.raises(priors.PriorError, match="bits is 4"):
        priors.save_prior(file, params, CARD, bits=4)


def test_a_bounded_consistency_function_is_the_identity_at_its_boundary(params, tmp_path):
    priors.save_prior(tmp_path / "cd.npz", params, CARD | {"objective": "cd", "boundary": 0.01})
    prior = priors.load_prior(tmp_path / "cd.npz")
    x = jax.lax.complex(*jax.random.normal(jax.random.key(1), (2, 8, 8, 1)))
    np.testing.assert_array_equal(prior.denoiser()(x, jnp.float32(0.01)), x)
    assert float(jnp.abs(prior.denoiser()(x, 0.5) - x).max()) > 0.1
    with pytest.raises(priors.PriorError, match="trained for cd, which is not told"):
        prior.jump_denoiser()


def test_a_prior_of_jumps_and_one_that_reads_an_image(tmp_path):
    """Both are the plain calls on images that their network takes, and take images of any size."""
    told = networks.Conditions(image=1, vector=networks.TARGET_FEATURES)
    options = OPTIONS | {"channels": 1, "conditions": told._asdict()}
    network = networks.drunet(**(options | {"conditions": told}))
    params = jax.tree.map(
        lambda leaf: 0.1 * jax.random.normal(jax.random.key(leaf.size), leaf.shape),
        jax.eval_shape(network.init, jax.random.key(0)),
    )
    card = CARD | {"network": ["drunet", options], "objective": "ctm", "multiple": 4}
    priors.save_prior(tmp_path / "ctm.npz", params, card)
    prior = priors.load_prior(tmp_path / "ctm.npz")
    x, image = jax.random.normal(jax.random.key(1), (2, 8, 8, 1))
    cond, t, s = {"image": image}, jnp.float32(0.4), jnp.float32(0.1)
    jump = networks.as_jump_denoiser(network, prior.params, prior.process, processes.precondition.edm(0.5))
    found = prior.jump_denoiser()(x, t, cond, s)
    np.testing.assert_allclose(found, jump(x, t, cond, s), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(prior.denoiser()(x, t, cond), jump(x, t, cond, t), rtol=1e-5, atol=1e-6)
    assert float(jnp.abs(found - prior.denoiser()(x, t, cond)).max()) > 1e-4
    assert prior.jump_denoiser()(x[:7, :5], t, {"image": image[:7, :5]}, s).shape == (7, 5, 1)
