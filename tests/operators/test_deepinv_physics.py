"""deepinv's own checks of a linear physics, on our operators through a shim. Optional: `pip install deepinv`.

Its test suite asks of every physics: the adjoint test (below 1e-3), the norm of A^T A (its power iteration), a
pseudo-inverse that reproduces the measurement to 1 %, and an adjoint equal to the one that autograd derives from A.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pgm_jax import operators as op
from pgm_jax.operators.emission.spect import SPECT

torch = pytest.importorskip("torch")
try:
    import deepinv
except (ImportError, RuntimeError) as error:  # a torchvision that was built for another torch
    pytest.skip(f"deepinv cannot be imported: {error}", allow_module_level=True)
pytestmark = pytest.mark.slow

ANGLES = np.linspace(0, np.pi, 24, endpoint=False)
TURN = np.linspace(0, 2 * np.pi, 24, endpoint=False)


def _sense():
    return op.Sense(jnp.asarray(op.birdcage_maps(4, 16, 16)), np.tile([1, 1, 0, 1], 4))


CASES = {
    "parallel": lambda: op.ParallelBeam(op.ImageGrid((16, 16)), op.Parallel(ANGLES, 25)),
    "parallel strip": lambda: op.ParallelBeam(op.ImageGrid((16, 16)), op.Parallel(ANGLES, 25), "strip"),
    "fan": lambda: op.FanBeam(op.ImageGrid((16, 16)), op.Fan(TURN, 40.0, 80.0, 25, 2.0)),
    "cone": lambda: op.ConeBeam(op.VolumeGrid((8, 12, 12)), op.Cone(TURN, 40.0, 80.0, 12, 20, (2.0, 2.0))),
    "sense": _sense,
    "spect": lambda: SPECT.create(TURN, (12, 12, 1), 4.0, radius=40.0, fwhm=4.0, growth=0.05),
    "blur": lambda: op.Blur(op.gaussian_psf((2.0, 2.0), (1.0, 1.0)), (16, 16, 1)),
    "wavelet": lambda: op.Wavelet((16, 16, 1), "db2", 2),
}


def _to_torch(array):
    return torch.from_numpy(np.array(array))[None]


def _physics(operator):
    """A deepinv physics: batch axis first, autograd through JAX's own reverse mode."""
    forward, adjoint = jax.jit(operator.__call__), jax.jit(operator.adjoint)
    pullback = jax.jit(lambda x, g: jnp.conj(jax.vjp(operator, x)[1](jnp.conj(g))[0]))
    to_jax = lambda tensor: jnp.asarray(tensor.detach()[0].numpy())

    class Apply(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return _to_torch(forward(to_jax(x)))

        @staticmethod
        def backward(ctx, grad):
            return _to_torch(pullback(to_jax(*ctx.saved_tensors), to_jax(grad)))

    return deepinv.physics.LinearPhysics(
        A=lambda x, **_: Apply.apply(x), A_adjoint=lambda y, **_: _to_torch(adjoint(to_jax(y)))
    )


@pytest.fixture(params=CASES)
def case(request):
    operator = CASES[request.param]()
    shape = operator.domain
    rng = np.random.default_rng(0)
    x = rng.normal(size=shape.shape)
    x = x + 1j * rng.normal(size=shape.shape) if jnp.issubdtype(shape.dtype, jnp.complexfloating) else x
    return operator, _physics(operator), _to_torch(x.astype(shape.dtype))


def test_its_adjoint_test(case):
    _, physics, x = case
    assert abs(physics.adjointness_test(x)) < 1e-3


def test_its_norm_is_ours(case):
    operator, physics, x = case
    theirs = float(physics.compute_sqnorm(x, max_iter=1000, tol=1e-6, verbose=False).abs())
    np.testing.assert_allclose(float(operator.norm()) ** 2, theirs, rtol=0.02)


def test_its_pseudo_inverse_reproduces_the_measurement(case):
    _, physics, x = case
    y = physics.A(x)
    again = physics.A(physics.A_dagger(y, solver="lsqr", max_iter=300, tol=1e-6))
    assert torch.linalg.vector_norm(again - y) < 0.01 * torch.linalg.vector_norm(y)


def test_the_automatic_adjoint_is_ours(case):
    _, physics, x = case
    x = x.requires_grad_()
    y = physics.A(x)
    (found,) = torch.autograd.grad(y, x, y.detach())
    expected = physics.A_adjoint(y)
    assert torch.linalg.vector_norm(found - expected) < 1e-5 * torch.linalg.vector_norm(expected)
