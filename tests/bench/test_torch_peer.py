"""The peer computes what we compute: network, samplers and the gradient of the loss, on the same weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pgm_jax import samplers
from pgm_jax.bench import Case, methods, torch_peer, torch_samplers
from pgm_jax.bench.model import build, noise
from pgm_jax.bench.sampling import _plan
from pgm_jax.networks import as_denoiser

torch = pytest.importorskip("torch")

SMALL = {"multipliers": (1, 2), "blocks": 1}
CASES = {
    "ddpmpp": {"attention": (1,)},
    "ncsnpp": {"patch": 2, "skip": "add"},
    "adm": {"attention": (1,), "head_channels": 8},
}
ONE_LEVEL = Case("unet", size=4, batch=2, width=4, options={"multipliers": (1,), "blocks": 1})


def case_of(name, size=8):
    return Case(network=name, size=size, batch=2, width=8, channels=2, options=SMALL | CASES[name])


@pytest.fixture(autouse=True)
def no_compiler(monkeypatch):
    # torch.compile takes a minute a network.
    monkeypatch.setattr(torch_peer, "_compiler", lambda: False)


@pytest.mark.parametrize("name", CASES)
def test_networks_agree(name):
    case = case_of(name)
    assert torch_peer.check_network(case, build(case), "cpu") < 1e-5


def test_another_network_is_refused():
    model = build(ONE_LEVEL)
    other = model._replace(options=model.options._replace(rescale=False))
    with pytest.raises(ArithmeticError, match="would compare two networks"):
        torch_peer.check_network(ONE_LEVEL, other, "cpu")


@pytest.mark.parametrize("name", ["heun", "ddim", "dpmpp_2m"])
def test_sampling_loops_agree(name):
    method = methods()[name]
    grid = method.grid(5)
    plan, start = _plan(method, grid), noise(ONE_LEVEL, float(method.process.sigma(grid[0])))
    # Curved in x and in the level, so that the order of a method shows.
    shrink = lambda sigma: 1 / (1 + sigma**2)
    ours = jax.jit(
        lambda x: samplers.sample(
            jax.random.key(0),
            method.sampler,
            lambda x, t, cond: jnp.tanh(shrink(method.process.sigma(t)) * x),
            method.process,
            grid,
            x_init=x,
        )
    )(start)
    loop = getattr(torch_samplers, name)
    theirs = loop(lambda x, n: torch.tanh(shrink(plan.sigma[n]) * x), plan, torch.from_numpy(start))
    np.testing.assert_allclose(ours, theirs.numpy(), rtol=1e-4, atol=1e-5, equal_nan=False)


def test_runs_sample_the_same_images():
    model, method = build(ONE_LEVEL), methods()["ddim"]
    grid = method.grid(4)
    start = noise(ONE_LEVEL, float(method.process.sigma(grid[0])))
    denoise = as_denoiser(model.network, model.params, method.process, method.parameterisation)
    draw = lambda x: samplers.sample(
        jax.random.key(0), method.sampler, denoise, method.process, grid, x_init=x
    )
    ours = jax.jit(draw)(start)
    runs = torch_peer.sampling_runs(ONE_LEVEL, model, "ddim", _plan(method, grid), start)
    assert list(runs) == ["eager", "channels_last"]
    for run in runs.values():
        theirs = run().permute(0, 2, 3, 1).numpy()
        # 1 / alpha is 150 at the first time: that much of the float32 error of the network stays.
        np.testing.assert_allclose(ours, theirs, atol=1e-3 * np.abs(ours).max(), equal_nan=False)


def test_losses_and_gradients_agree():
    case, model = ONE_LEVEL, build(ONE_LEVEL)
    draw = np.random.default_rng(3).standard_normal
    x0, z = (draw((2, 4, 4, 1)).astype(np.float32) for _ in range(2))
    level = np.array([0.1, 2.0], np.float32)

    def ours(params):
        # EDM's loss as the paper has it: weight (sigma^2 + d^2) / (sigma d)^2 on the error of the image.
        process, parameterisation = methods()["heun"][:2]
        denoise = as_denoiser(model.network, params, process, parameterisation)
        x = x0 + level[:, None, None, None] * z
        error = jnp.mean((jax.vmap(denoise)(x, level) - x0) ** 2, axis=(1, 2, 3))
        return jnp.mean((level**2 + 0.25) / (0.5 * level) ** 2 * error)

    value, gradient = jax.jit(jax.value_and_grad(ours))(model.params)
    variant = torch_peer.variants(case, model, "cpu", "float32")["channels_last"]
    leaves = [leaf.requires_grad_() for leaf in jax.tree.leaves(variant.params)]
    images = (torch_peer.channels_first(torch, x) for x in (x0, z))
    x0_first, z_first = images
    loss = torch_peer.edm_loss(
        torch, variant.apply, variant.params, x0_first, torch.from_numpy(level), z_first
    )
    loss.backward()
    assert abs(float(value) - loss.item()) < 1e-5 * float(value)
    for mine, leaf in zip(jax.tree.leaves(gradient), leaves, strict=True):
        theirs = leaf.grad.numpy()
        axes = () if theirs.ndim < 2 else (*range(2, theirs.ndim), 1, 0)
        theirs = theirs.transpose(axes) if axes else theirs
        np.testing.assert_allclose(mine, theirs, rtol=1e-3, atol=1e-5, equal_nan=False)


def test_a_training_run_lowers_the_loss():
    case = ONE_LEVEL._replace(batch=64)
    model = build(case)
    runs = torch_peer.training_runs(case, model, np.full((64, 4, 4, 1), 0.5, np.float32), 1e-2, 0.9)
    torch.manual_seed(0)
    losses = [runs["channels_last"]() for _ in range(40)]
    assert np.mean(losses[-5:]) < 0.8 * np.mean(losses[:5])


def test_no_peer_where_there_is_no_twin():
    case = Case(
        "drunet", size=8, batch=1, channels=1, options={"widths": (4, 4), "encoder": (1, 1), "decoder": (1,)}
    )
    model = build(case)
    assert torch_peer.device_of(case, model) is None
    assert torch_peer.device_of(case._replace(devices=2), model) is None
