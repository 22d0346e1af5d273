"""Draws by deepinv with the exact denoiser of a Gaussian prior, the problem scaled to its grey values."""

# Greys are in [0, 1]: 5 is the largest deviation from 0 of the problem's prior.
_GREY = 0.1


def deepinv_dps(torch, library, target, steps, samples):
    """Draws by `DPS` on its default process and grid; arguments and result as `peer_draws.diffusers_heun`.

    Images are the problem's times 0.2, within [-1, 1], where it clips. Its weight scales with them: this is ours
    of 1 in the problem's own units.
    """
    scale = 2 * _GREY
    denoiser, physics = _parts(torch, library, target, scale, 0.0)
    rng = torch.Generator().manual_seed(torch.initial_seed())
    model = library.sampling.DPS(
        denoiser, num_steps=steps + 1, weight=1 / scale, rng=rng, minus_one_one=False
    )
    y = (scale * target.y).float().expand(samples, -1)
    x = model(y, physics, x_init=(samples, 1, 1, target.size))
    return x[:, 0, 0] / scale


def deepinv_diffpir(torch, library, target, steps, samples):
    """Draws by `DiffPIR` with lambda 1 and its default mixing; arguments and result as `peer_draws.diffusers_heun`.

    Images are 0.5 plus the problem's times 0.1: it clips to [0, 1].
    """
    denoiser, physics = _parts(torch, library, target, _GREY, 0.5)
    fidelity = library.optim.data_fidelity.L2()
    model = library.sampling.DiffPIR(
        denoiser, fidelity, sigma=_GREY * target.noise_std, max_iter=steps, lambda_=1.0
    )
    y = (_GREY * target.y + 0.5 * target.matrix.sum(1)).float().expand(samples, -1)
    x = model(y, physics, x_init=torch.full((samples, 1, 1, target.size), 0.5))
    return (x[:, 0, 0] - 0.5) / _GREY


def _parts(torch, library, target, scale, offset):
    """Denoiser and physics of images `offset + scale x`, shaped (samples, 1, 1, N)."""

    class Exact(library.models.Denoiser):
        def forward(self, x, sigma, **_):
            level = self._handle_sigma(sigma, reference_tensor=x)[:, 0, 0] / scale
            x0 = target.denoise((x[:, 0, 0] - offset) / scale, level)
            return offset + scale * x0[:, None, None]

    matrix = target.matrix.float()
    physics = library.physics.LinearPhysics(
        A=lambda x, **_: x[:, 0, 0].float() @ matrix.T,
        A_adjoint=lambda y, **_: (y @ matrix)[:, None, None],
        noise_model=library.physics.GaussianNoise(scale * target.noise_std),
    )
    return Exact(), physics
