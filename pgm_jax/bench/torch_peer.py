"""The peer: the same network, samplers and training step in PyTorch, in the variants that its users have.

Variants: "eager"; "channels_last"; "compile", which is channels_last under `torch.compile` (where a C++ compiler is
found). The fastest is what a row reports.
"""

import functools
import shutil
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from pgm_jax.bench.torch_samplers import Plan, ddim, dpmpp_2m, heun
from pgm_jax.bench.torch_unet import TorchUNet, torch_params
from pgm_jax.core import MissingExtra, require

TOLERANCE = 1e-4


class Variant(NamedTuple):
    """One way to run the network.

    Attributes:
        wrap: what a function that calls the network is wrapped in.
        apply: `(params, x, t) -> output`, images (b, c, height, width).
        params: nested dict of tensors.
        layout: `x -> x` in this variant's memory format.
    """

    wrap: Callable
    apply: Callable
    params: Any
    layout: Callable


def label(runs) -> str | None:
    """Returns PyTorch's name and version for a row, or None without runs."""
    return f"torch {require('torch', 'torch').__version__}" if runs else None


def device_of(case, model) -> str | None:
    """Says on which device PyTorch can be compared in a case.

    Args:
        case: `Case`.
        model: `Model`.

    Returns:
        "cpu" or "cuda", or None: without PyTorch, with more than one device, on a kind of device that PyTorch does
        not see, or for a network without a twin.
    """
    try:
        torch = require("torch", "torch")
    except MissingExtra:
        return None
    if model.options is None or case.devices > 1:
        return None
    available = {"cpu": "cpu"} | ({"gpu": "cuda"} if torch.cuda.is_available() else {})
    return available.get(jax.default_backend())


def variants(case, model, device, dtype) -> dict[str, Variant]:
    """Builds the variants of the network.

    Args:
        case: `Case`.
        model: `Model`.
        device: "cpu" or "cuda".
        dtype: name of the dtype of the weights.

    Returns:
        Dict from the variant's name.
    """
    torch = require("torch", "torch")
    unet = TorchUNet(model.options)
    unet.frequencies = unet.frequencies.to(device)

    def variant(last, compiled):
        move = lambda p: p.to(device, getattr(torch, dtype))
        memory = torch.channels_last if last else torch.contiguous_format
        return Variant(
            torch.compile if compiled else lambda function: function,
            lambda params, x, t: unet(params, x, t),
            jax.tree.map(move, torch_params(model.params, last)),
            lambda x: x.contiguous(memory_format=memory),
        )

    # Its limit of recompilations counts over the whole process; beyond it, it runs eagerly without a word.
    torch.compiler.reset()
    found = {"eager": variant(False, False), "channels_last": variant(True, False)}
    return found | ({"compile": variant(True, True)} if _compiler() else {})


def check_network(case, model, device) -> float:
    """Compares the twin's network with ours in float32.

    Args:
        case: `Case`.
        model: `Model`.
        device: "cpu" or "cuda".

    Returns:
        The largest difference over the largest output.

    Raises:
        ArithmeticError: if it is above 1e-4.
    """
    torch = require("torch", "torch")
    draw = np.random.default_rng(1).standard_normal
    x = draw((case.batch, case.size, case.size, case.channels)).astype(np.float32)
    t = np.linspace(-1.5, 1.0, case.batch).astype(np.float32)
    with jax.default_matmul_precision("highest"):
        ours = np.asarray(jax.jit(model.full.apply)(model.params, x, t))
    torch.backends.cuda.matmul.allow_tf32 = False
    exact = torch.backends.cudnn.flags(allow_tf32=False, benchmark=False)
    with torch.inference_mode(), exact:
        params = jax.tree.map(lambda p: p.to(device), torch_params(model.params))
        unet = TorchUNet(model.options)
        unet.frequencies = unet.frequencies.to(device)
        theirs = unet(params, channels_first(torch, x).to(device), torch.from_numpy(t).to(device))
    theirs = theirs.permute(0, 2, 3, 1).cpu().numpy()
    gap = float(np.abs(ours - theirs).max() / np.abs(ours).max())
    if not gap <= TOLERANCE:
        raise ArithmeticError(
            f"the PyTorch twin of {case.network} differs from it by {gap:.1e} of its largest output, more than "
            f"{TOLERANCE:g}: the timing would compare two networks; use --no-torch"
        )
    return gap


def ready(case, model, device):
    """Compares the networks and sets PyTorch to the precision and kernels that JAX has.

    Args:
        case: `Case`.
        model: `Model`.
        device: "cpu" or "cuda".

    Returns:
        The module torch.

    Raises:
        ArithmeticError: as `check_network`.
    """
    torch = require("torch", "torch")
    check_network(case, model, device)
    # JAX's default precision for float32 products on NVIDIA GPUs is TF32 too.
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = True
    return torch


def sampling_runs(case, model, method: str, plan: Plan, start) -> dict[str, Callable]:
    """Builds the runs that sample one batch under `torch.inference_mode`.

    Args:
        case: `Case`.
        model: `Model`.
        method: "heun", "pfgmpp", "ddim", "dpmpp_2m" or "one_step".
        plan: `Plan`.
        start: (batch, size, size, channels) state at the first time.

    Returns:
        Dict from the variant's name to a function that returns the images (b, c, height, width) once they exist;
        empty where there is no comparison, see `device_of`.

    Raises:
        ArithmeticError: as `check_network`.
    """
    device = device_of(case, model)
    if device is None:
        return {}
    torch = ready(case, model, device)
    # To sigma 0 in one step, every sampler returns the denoised image.
    steps = {"heun": heun, "pfgmpp": heun, "ddim": ddim, "dpmpp_2m": dpmpp_2m, "one_step": ddim}[method]

    def run_of(variant):
        apply = variant.wrap(variant.apply)
        x_init = variant.layout(channels_first(torch, start).to(device))
        times = [torch.full((case.batch,), value, device=device) for value in plan.c_noise]

        def denoise(x, n):
            seen = (plan.c_in[n] * x).to(getattr(torch, case.dtype))
            return plan.c_skip[n] * x + plan.c_out[n] * apply(variant.params, seen, times[n]).float()

        def run():
            with torch.inference_mode():
                x = steps(denoise, plan, x_init)
                if device == "cuda":
                    torch.cuda.synchronize()
                return x

        return run

    return _working({name: run_of(v) for name, v in variants(case, model, device, case.dtype).items()})


def training_runs(case, model, images, rate: float, decay: float) -> dict[str, Callable]:
    """Builds the runs that take one training step: EDM's loss, Adam and an average of the weights.

    Args:
        case: `Case`.
        model: `Model`.
        images: (batch, size, size, channels) clean images.
        rate: learning rate.
        decay: decay of the average.

    Returns:
        Dict from the variant's name to a function that returns once the step is made; empty where there is no
        comparison, see `device_of`.

    Raises:
        ArithmeticError: as `check_network`.
    """
    device = device_of(case, model)
    if device is None:
        return {}
    torch = ready(case, model, device)
    mixed = torch.autocast(device, torch.bfloat16, enabled=case.dtype == "bfloat16")

    def run_of(variant):
        leaves = [leaf.requires_grad_() for leaf in jax.tree.leaves(variant.params)]
        average = [leaf.detach().clone() for leaf in leaves]
        optimiser = torch.optim.Adam(leaves, rate, fused=True)
        loss_of = variant.wrap(functools.partial(edm_loss, torch, variant.apply))
        x0 = variant.layout(channels_first(torch, images).to(device))

        def run():
            level = torch.exp(-1.2 + 1.2 * torch.randn(case.batch, device=device))
            with mixed:
                loss = loss_of(variant.params, x0, level, torch.randn_like(x0))
            loss.backward()
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
            torch._foreach_lerp_(average, [leaf.detach() for leaf in leaves], 1 - decay)
            if device == "cuda":
                torch.cuda.synchronize()
            return loss.item()

        return run

    return _working({name: run_of(v) for name, v in variants(case, model, device, "float32").items()})


def edm_loss(torch, apply, params, x0, level, noise, sigma_data: float = 0.5):
    """Returns EDM's loss in units of the network's output, `mean (F - (x0 - c_skip x) / c_out)^2`.

    Karras et al. 2022, Eq. 8 with the weight 1 / c_out^2.

    Args:
        torch: the module.
        apply: `(params, x, t) -> output`.
        params: nested dict of tensors.
        x0: (b, c, height, width).
        level: (b,) noise levels.
        noise: (b, c, height, width) unit normal.
        sigma_data: standard deviation of the data.

    Returns:
        The loss ().
    """
    sigma = level[:, None, None, None]
    x = x0 + sigma * noise
    total = sigma**2 + sigma_data**2
    target = (x0 - sigma_data**2 / total * x) * torch.sqrt(total) / (sigma * sigma_data)
    output = apply(params, x / torch.sqrt(total), torch.log(level) / 4)
    return torch.mean((output.float() - target) ** 2)


def channels_first(torch, x):
    """Copies images (b, height, width, c) to a contiguous tensor (b, c, height, width).

    Args:
        torch: the module.
        x: NumPy array.

    Returns:
        The tensor.
    """
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(np.asarray(x), -1, 1)))


def _compiler():
    return any(shutil.which(name) for name in ("c++", "g++", "clang++"))


def _working(runs):
    """Leaves `torch.compile` out where it fails: the other variants are a fair peer."""
    if "compile" in runs:
        try:
            runs["compile"]()
        except Exception:
            del runs["compile"]
    return runs
