"""The same reconstruction by deepinv's DPS and DiffPIR: the same weights and the same operator."""

import time
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np

from pgm_jax.bench import torch_peer
from pgm_jax.core import MissingExtra
from pgm_jax.processes import Normal
from pgm_jax.verify.peers import peer_module

TOLERANCE = 1e-4
# Of deepinv's DPS, its default.
_WEIGHT = 1.0


class DeepinvRuns(NamedTuple):
    """What deepinv can run of a case.

    Attributes:
        runs: functions without arguments by name, each of which returns the images (slices, size, size, 1).
        physics: whose operators they apply, or None.
        note: why there are none, or None.
    """

    runs: dict[str, Callable[[], Any]]
    physics: str | None
    note: str | None


def deepinv_runs(names, case, scene, parts, strength, zeta) -> DeepinvRuns:
    """Builds deepinv's reconstructions of a volume.

    CT, each method twice: with our compiled projector and its adjoint behind a `LinearPhysics`, arrays handed over
    by DLPack, so that the operator costs both parties the same; and as its users have it, with deepinv's own
    `Tomography` (the same views, its cheaper adjoint, its own data). Its prox takes `case.cg` conjugate gradient
    steps. MRI: deepinv's own `MRI`, whose prox is in closed form. DPS: its defaults (variance preserving, DDPM's
    solver) with `case.steps` evaluations.

    Args:
        names: "DPS" and "DiffPIR", or one of them.
        case: `PosteriorCase`.
        scene: `Scene`.
        parts: `DenoiserParts`.
        strength: lambda of DiffPIR.
        zeta: zeta of DiffPIR.

    Returns:
        `DeepinvRuns`.

    Raises:
        ArithmeticError: if the twin's network or deepinv's operator is not ours.
    """
    device = torch_peer.device_of(parts.case, parts.model)
    if device is None:
        return DeepinvRuns(
            {}, None, "deepinv: PyTorch is missing, sees no such device, or has no such network"
        )
    if not isinstance(parts.process.law, Normal):
        return DeepinvRuns({}, None, "deepinv: it has no Student-t process, which the prior was trained for")
    try:
        deepinv = peer_module("deepinv")
    except MissingExtra as error:
        return DeepinvRuns({}, None, str(error))
    torch = torch_peer.ready(parts.case, parts.model, device)
    y = _to_torch(torch, scene.y, device)
    known = _projectors if case.modality == "ct" else _mri
    physics = known(deepinv, torch, case, scene, device, y)
    variant, params, apply = _fastest(torch, parts, device)
    denoiser = _denoiser(deepinv, torch, parts, params, apply)
    shape = tuple(_to_torch(torch, scene.truth, device).shape)

    def dps(physics, y):
        rng = torch.Generator(device).manual_seed(0)
        model = deepinv.sampling.DPS(
            denoiser, num_steps=case.steps + 1, weight=_WEIGHT, device=device, rng=rng, minus_one_one=False
        )
        return model(y, physics, x_init=shape)

    def diffpir(physics, y):
        torch.manual_seed(0)
        fidelity, noise = deepinv.optim.data_fidelity.L2(), float(scene.noise_std)
        options = {
            "sigma": noise,
            "max_iter": case.steps,
            "zeta": zeta,
            "lambda_": strength,
            "device": device,
        }
        model = deepinv.sampling.DiffPIR(denoiser, fidelity, **options)
        return model(y, physics, x_init=torch.zeros(shape, device=device))

    label, made = f"deepinv {deepinv.__version__}", {"DPS": dps, "DiffPIR": diffpir}
    runs = {
        f"{label} {name}, {whose}, torch {variant}": _finished(torch, device, partial(made[name], *problem))
        for name in names
        for whose, problem in physics.items()
    }
    return DeepinvRuns(runs, "; ".join(physics), None)


def _projectors(deepinv, torch, case, scene, device, y):
    """Both operators of CT with their data."""
    ours = _projector(deepinv, torch, case, scene, device)
    _require_same(torch, ours, scene, device)
    angles = torch.linspace(0, 180, case.views + 1)[:-1]
    options = {"circle": True, "normalize": True, "adjoint_via_backprop": False, "device": device}
    own = deepinv.physics.Tomography(
        angles, case.size, max_iter=case.cg, tol=0.0, implicit_backward_solver=False, **options
    )
    with torch.no_grad():
        clean = own.A(_to_torch(torch, scene.truth, device))
        measured = clean + float(scene.noise_std) * torch.randn(clean.shape, device=device)
    return {"our projector": (ours, y), "its own Tomography": (own, measured)}


def _projector(deepinv, torch, case, scene, device):
    """Our operator on (slices, 1, height, width), its reverse mode the adjoint."""
    operator = scene.operator
    batched = lambda apply: jax.jit(jax.vmap(lambda a, x: apply(a, x[..., None])[..., 0], (None, 0)))
    forward, backward = batched(lambda a, x: a(x)), batched(lambda a, y: a.adjoint(y))

    def handed(apply, tensor):
        array = jax.dlpack.from_dlpack(tensor.detach()[:, 0].contiguous())
        return torch.from_dlpack(jax.block_until_ready(apply(operator, array)))[:, None]

    class Apply(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return handed(forward, x)

        @staticmethod
        def backward(ctx, grad):
            return handed(backward, grad)

    return deepinv.physics.LinearPhysics(
        A=lambda x, **_: Apply.apply(x.float()),
        A_adjoint=lambda y, **_: handed(backward, y),
        noise_model=deepinv.physics.GaussianNoise(float(scene.noise_std)),
        max_iter=case.cg,
        tol=0.0,
        implicit_backward_solver=False,
        device=device,
    )


def _mri(deepinv, torch, case, scene, device, y):
    mask = np.broadcast_to(np.asarray(scene.operator.mask), (case.size, case.size)).copy()
    noise = deepinv.physics.GaussianNoise(float(scene.noise_std))
    physics = deepinv.physics.MRI(mask=torch.from_numpy(mask).to(device), noise_model=noise, device=device)
    _require_same(torch, physics, scene, device)
    return {"its own MRI": (physics, y)}


def _require_same(torch, physics, scene, device):
    ours = np.asarray(jax.jit(lambda a, x: jax.vmap(a)(x))(scene.operator, scene.truth))
    with torch.no_grad():
        theirs = physics.A(_to_torch(torch, scene.truth, device)).cpu().numpy()
    gap = np.abs(theirs - _to_torch(torch, ours, "cpu").numpy()).max() / np.abs(ours).max()
    if not gap <= TOLERANCE:
        raise ArithmeticError(
            f"deepinv's operator differs from ours by {gap:.1e} of the largest datum, more than {TOLERANCE:g}: the "
            "timing would compare two problems; use --no-peers"
        )


def _to_torch(torch, x, device):
    """From (slices, *image, 1), or k-space (slices, 1, *image), to (slices, 1 or real and imaginary, *image)."""
    x = np.asarray(x)
    x = x[:, 0] if np.iscomplexobj(x) and x.shape[-1] != 1 else x[..., 0]
    parts = [x.real, x.imag] if np.iscomplexobj(x) else [x]
    return torch.from_numpy(np.stack(parts, 1).astype(np.float32)).to(device)


def _from_torch(x):
    x = x.detach().float().cpu().numpy()
    return (x[:, 0] if x.shape[1] == 1 else x[:, 0] + 1j * x[:, 1])[..., None]


def _denoiser(deepinv, torch, parts, params, apply):
    class Twin(deepinv.models.Denoiser):
        def forward(self, x, sigma, **_):
            level = self._handle_sigma(sigma, reference_tensor=x)
            total = level**2 + parts.sigma_data**2
            seen = x / torch.sqrt(total)
            output = apply(params, seen, torch.log(level[:, 0, 0, 0]) / 4)
            return parts.sigma_data**2 / total * x + level * parts.sigma_data / torch.sqrt(total) * output

    return Twin()


def _fastest(torch, parts, device):
    """Chooses the variant of the network by its forward pass; `torch.compile` is left out where it fails."""
    case = parts.case
    x = torch.zeros(case.batch, case.channels, case.size, case.size, device=device)
    t, seconds, kept = torch.zeros(case.batch, device=device), {}, {}
    for name, variant in torch_peer.variants(case, parts.model, device, "float32").items():
        kept[name] = variant.params, _applied(variant)
        seconds[name] = _forward_seconds(torch, *kept[name], x, t)
    best = min(seconds, key=seconds.get)
    return best, *kept[best]


def _applied(variant):
    compiled = variant.wrap(variant.apply)
    return lambda params, x, t: compiled(params, variant.layout(x), t)


def _forward_seconds(torch, params, apply, x, t):
    try:
        with torch.no_grad():
            for _ in range(2):
                begun = time.perf_counter()
                apply(params, x, t)
                if x.is_cuda:
                    torch.cuda.synchronize()
    except Exception:
        return float("inf")
    return time.perf_counter() - begun


def _finished(torch, device, run):
    def call():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            x = run()
        if device == "cuda":
            torch.cuda.synchronize()
        return _from_torch(x)

    return call
