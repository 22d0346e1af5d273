"""Every operator against its adjoint, its dense matrix and the transforms of JAX."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pgm_jax import operators as op
from pgm_jax.core import LinearOperator as OperatorProtocol


def _values(seed, *shape, complex_values=False):
    rng = np.random.default_rng(seed)
    values = rng.normal(size=shape)
    values = values + 1j * rng.normal(size=shape) if complex_values else values
    return jnp.asarray(values, jnp.result_type(complex if complex_values else float))


def _sense(height=5, width=4, coils=3):
    maps = jnp.asarray(op.birdcage_maps(coils, height, width, dtype=np.complex128), jnp.result_type(complex))
    return op.Sense(maps, op.random_mask(1, width, 2, 0.25))


def _complex_matrix():
    return op.Matrix(_values(0, 6, 8, complex_values=True), (2, 4, 1), (3, 2))


CASES = {
    "identity": lambda: op.Identity((2, 3, 1)),
    "diagonal": lambda: op.Diagonal(_values(1, 3, 2, 1, complex_values=True)),
    "matrix": lambda: op.Matrix(_values(2, 5, 6)),
    "complex_matrix": _complex_matrix,
    "fourier_odd_even": lambda: op.Fourier((5, 4, 1)),
    "hartley_odd_even": lambda: op.Hartley((5, 4, 1)),
    "difference": lambda: op.FiniteDifference((4, 3, 1)),
    "difference_periodic": lambda: op.FiniteDifference((4, 3, 1), (0, 1), (0.5, 2.0), "periodic"),
    "difference_zero": lambda: op.FiniteDifference((4, 3, 1), (0, 1), (0.5, 2.0), "zero"),
    "difference_volume_z": lambda: op.FiniteDifference((3, 2, 2, 1), (0,)),
    "sense": _sense,
    "sense_single": lambda: op.Sense.single(5, 4, np.ones((5, 1))),
    "adjoint": lambda: _sense().H,
    "transpose": lambda: _sense().T,
    "composed": lambda: _sense() @ op.Diagonal(_values(3, 5, 4, 1, complex_values=True)),
    "sum": lambda: _sense() + (2 - 1j) * _sense(),
    "difference_of_two": lambda: _sense() - _sense() / 3,
    "scaled": lambda: np.float32(-1.5) * _complex_matrix(),
}
REAL_LINEAR = {"real_image": lambda: op.RealImage(_sense())}
TUPLES = {"stacked": lambda: op.stack(_sense(), op.Fourier((5, 4, 1)))}
ALL = CASES | REAL_LINEAR | TUPLES


def _draw(space, seed=0):
    leaves, tree = jax.tree.flatten(space)
    draws = [
        _values(seed + i, *leaf.shape, complex_values=jnp.issubdtype(leaf.dtype, jnp.complexfloating))
        for i, leaf in enumerate(leaves)
    ]
    return jax.tree.unflatten(tree, draws)


def _close(a, b, tolerance=1e-5):
    jax.tree.map(lambda p, q: np.testing.assert_allclose(p, q, rtol=tolerance, atol=tolerance), a, b)


@pytest.mark.parametrize("name", ALL)
def test_dot_test_in_single_precision(name):
    operator = ALL[name]()
    assert isinstance(operator, OperatorProtocol)
    gaps = [float(op.adjoint_gap(operator, jax.random.key(seed))) for seed in range(5)]
    assert max(gaps) < 1e-6


@pytest.mark.parametrize("name", ALL)
def test_dot_test_in_double_precision(name, x64):
    assert float(op.adjoint_gap(ALL[name](), jax.random.key(3))) < 1e-12


@pytest.mark.parametrize("name", CASES)
def test_every_element_of_the_adjoint(name, x64):
    assert float(op.element_gap(CASES[name]())) < 1e-12


@pytest.mark.parametrize("name", ALL)
def test_gram_is_adjoint_of_forward(name, x64):
    operator = ALL[name]()
    x = _draw(operator.domain)
    _close(operator.gram(x), operator.adjoint(operator(x)), 1e-12)


@pytest.mark.parametrize("name", ALL)
def test_norm_is_the_largest_singular_value(name, x64):
    operator = ALL[name]()
    matrix = operator.matrix()
    singular = np.linalg.svd(np.concatenate([matrix.real, matrix.imag]), compute_uv=False)
    if name not in REAL_LINEAR:
        singular = np.linalg.svd(matrix, compute_uv=False)
    np.testing.assert_allclose(operator.norm(steps=300), singular[0], rtol=1e-3)


@pytest.mark.parametrize("name", ALL)
def test_autodiff_gives_the_adjoint(name, x64):
    operator = ALL[name]()
    x, y = _draw(operator.domain), _draw(operator.range, 7)
    # JAX transposes without conjugation, so the Hermitian adjoint is conj(transpose(conj(y))).
    conjugate = jax.tree.map(jnp.conj, y)
    pullback = jax.vjp(operator, x)[1](conjugate)[0]
    _close(jnp.conj(pullback), operator.adjoint(y), 1e-12)
    _close(jnp.conj(jax.linear_transpose(operator, x)(conjugate)[0]), operator.adjoint(y), 1e-12)
    _close(jax.jvp(operator, (x,), (x,))[1], operator(x), 1e-12)


@pytest.mark.parametrize("name", ALL)
def test_vmap_is_a_loop_and_jit_changes_nothing(name):
    operator = ALL[name]()
    xs = [_draw(operator.domain, seed) for seed in range(3)]
    batched = jax.vmap(operator)(jnp.stack(xs))
    loop = jax.tree.map(lambda *parts: jnp.stack(parts), *[operator(x) for x in xs])
    _close(batched, loop, 2e-6)
    # The operator crosses the border of jit as an argument.
    _close(jax.jit(lambda a, x: a.adjoint(a(x)))(operator, xs[0]), operator.adjoint(operator(xs[0])), 1e-4)


def test_double_and_single_precision_agree():
    x = np.random.default_rng(0).normal(size=(5, 4, 1))
    single = np.asarray(_sense()(jnp.asarray(x, jnp.float32)))
    with jax.enable_x64(True):
        double = np.asarray(_sense()(jnp.asarray(x, jnp.float64)))
    assert double.dtype == np.complex128
    np.testing.assert_allclose(single, double, atol=1e-6)


def test_algebra_matches_the_algebra_of_matrices(x64):
    a, b = op.Matrix(_values(0, 4, 3, complex_values=True)), op.Matrix(_values(1, 3, 5, complex_values=True))
    c = op.Matrix(_values(2, 4, 3))
    m = {name: np.asarray(operator.matrix()) for name, operator in {"a": a, "b": b, "c": c}.items()}
    _close((a @ b).matrix(), m["a"] @ m["b"], 1e-12)
    _close((a + c).matrix(), m["a"] + m["c"], 1e-12)
    _close((a - c).matrix(), m["a"] - m["c"], 1e-12)
    _close((jnp.asarray(2j) * a).matrix(), 2j * m["a"], 1e-12)
    _close((a / 4).matrix(), m["a"] / 4, 1e-12)
    _close((-a).matrix(), -m["a"], 1e-12)
    _close(a.H.matrix(), m["a"].conj().T, 1e-12)
    _close(a.T.matrix(), m["a"].T, 1e-12)
    _close(a.T.H.matrix(), m["a"].conj(), 1e-12)
    _close((a @ b).H.matrix(), (m["a"] @ m["b"]).conj().T, 1e-12)
    assert a.H.H is a and a.T.T is a
    assert type(c.T) is type(c.H)


def test_adjoint_is_complex_linear(x64):
    operator = _sense()
    y = _draw(operator.range)
    _close(operator.adjoint(1j * y), 1j * operator.adjoint(y), 1e-12)
    _close(operator(jnp.zeros((5, 4, 1))), jnp.zeros((3, 5, 4)), 0)


def test_subsets_of_a_stack_make_up_the_whole(x64):
    parts = [op.Matrix(_values(seed, 2, 6)) for seed in range(3)]
    whole = op.stack(*parts)
    scaled = 2.0 * (whole @ op.Diagonal(_values(9, 6)))
    x, y = _values(4, 6), whole(_values(5, 6))
    for operator in (whole, scaled):
        _close(tuple(operator.subset(i)(x) for i in range(3)), operator(x), 1e-12)
        sums = sum(operator.subset(i).adjoint(operator.restrict(y, i)) for i in range(3))
        _close(sums, operator.adjoint(y), 1e-12)


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda: op.Matrix(jnp.ones((2, 3))) @ op.Matrix(jnp.ones((4, 5))), r"A @ B.*\(3,\).*\(4,\)"),
        (lambda: op.Matrix(jnp.ones((2, 3))) + op.Matrix(jnp.ones((2, 4))), r"A \+ B.*\(3,\).*\(4,\)"),
        (lambda: jnp.ones(3) * op.Identity((3,)), "one number"),
        (lambda: op.Identity((3,))(jnp.ones(4)), r"shape \(3,\), got \(4,\)"),
        (lambda: op.Identity((3,))(jnp.ones((2, 3))), "jax.vmap"),
        (lambda: op.Hartley((3, 3, 1))(1j * jnp.ones((3, 3, 1))), "real image"),
        (lambda: op.Matrix(jnp.ones((2, 3)), (4,)).domain, "image_shape"),
        (lambda: op.FiniteDifference((3, 1), boundary="mirror")(jnp.ones((3, 1))), "neumann"),
        (lambda: op.FiniteDifference((3, 3, 1), spacing=(1.0,)).range, "spacings"),
        (lambda: op.Sense(jnp.ones((2, 4, 4)), np.ones(3))(jnp.ones((4, 4, 1))), "mask"),
        (lambda: op.Sense(jnp.ones((4, 4)), np.ones(4)).domain, "coils, height, width"),
        (lambda: op.Identity((3,)).subset(0), "no subsets"),
        (lambda: op.stack(op.Identity((3,)), op.Identity((4,))), "one image"),
        (lambda: op.stack(op.Identity((3,))).adjoint((jnp.ones(3), jnp.ones(3))), "one for each"),
    ],
)
def test_wrong_use_says_what_is_needed(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_wrong_shape_raises_while_tracing():
    with pytest.raises(ValueError, match="needs one image"):
        jax.jit(_sense())(jnp.ones((4, 4, 1)))
