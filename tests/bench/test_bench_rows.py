"""Rows and their JSON, FLOPs against hand counts, and `pgm bench` end to end on a tiny case."""

import json
import math

import jax
import jax.numpy as jnp
import pytest

from pgm_jax import bench
from pgm_jax.cli import main as cli
from pgm_jax.core import program_bytes
from pgm_jax.networks.convolution import plain_conv
from pgm_jax.networks.winograd import winograd

FIELDS = "name case dtype device peer compile_s run_s peer_run_s ratio flops mfu peak_bytes".split()


def conv(x, kernel, **options):
    return jax.lax.conv_general_dilated(
        x, kernel, dimension_numbers=("NHWC", "HWIO", "NHWC"), **({"padding": "SAME"} | options)
    )


X, K = jnp.zeros((2, 8, 6, 4)), jnp.zeros((3, 3, 4, 5))


@pytest.mark.parametrize(
    ("function", "arguments", "expected"),
    [
        # 2 x outputs x (places x channels)
        (lambda x, k: conv(x, k, window_strides=(1, 1)), (X, K), 2 * (2 * 8 * 6 * 5) * 36),
        (lambda x, k: conv(x, k, window_strides=(2, 2)), (X, K), 2 * (2 * 4 * 3 * 5) * 36),
        (
            lambda x, k: conv(x, k, window_strides=(1, 1), feature_group_count=4),
            (X, jnp.zeros((3, 3, 1, 8))),
            2 * (2 * 8 * 6 * 8) * 9,
        ),
        # The transpose of a convolution of stride 2 takes as many operations as it.
        (
            lambda x, k: conv(x, k, window_strides=(1, 1), lhs_dilation=(2, 2), padding=((1, 2), (1, 2))),
            (jnp.zeros((2, 4, 3, 4)), K),
            2 * (2 * 8 * 6 * 5) * 36 / 4,
        ),
        (lambda a, b: a @ b, (jnp.zeros((3, 7)), jnp.zeros((7, 5))), 2 * 3 * 7 * 5),
        (
            lambda a, b: jnp.einsum("bij,bjk->bik", a, b),
            (jnp.zeros((2, 3, 7)), jnp.zeros((2, 7, 5))),
            2 * 2 * 3 * 7 * 5,
        ),
    ],
)
def test_flops_of_one_operation(function, arguments, expected):
    assert bench.count_flops(function, *arguments) == expected


def test_flops_inside_loops_branches_and_wrappers():
    a, product = jnp.zeros((4, 4)), 2 * 4**3

    def scanned(a):
        body = jax.checkpoint(lambda c: jax.nn.relu(jax.jit(jnp.matmul)(c, c)))
        return jax.lax.scan(lambda c, _: (body(c), None), a, length=6)[0]

    def branches(a):
        return jax.lax.cond(a[0, 0] > 0, lambda a: a @ a @ a, lambda a: a @ a, a)

    @jax.custom_vjp
    def wrapped(a):
        return a @ a

    wrapped.defvjp(lambda a: (a @ a, a), lambda a, g: (g @ a,))
    assert bench.count_flops(scanned, a) == 6 * product
    assert bench.count_flops(branches, a) == 2 * product
    assert bench.count_flops(wrapped, a) == product
    assert bench.count_flops(lambda a: jax.grad(lambda a: (a @ a).sum())(a), a) == 2 * product + product
    # The rule of the forward pass, and that of the backward pass.
    assert bench.count_flops(jax.grad(lambda a: wrapped(a).sum()), a) == 2 * product


def test_winograds_form_counts_as_the_plain_convolution():
    x, kernel = jnp.zeros((2, 8, 12, 3)), jnp.zeros((3, 3, 3, 5))
    of = lambda conv: lambda x, kernel: jax.grad(lambda k: conv(x, k).sum())(kernel)
    plain = jax.eval_shape(plain_conv, x, kernel)
    expected = 2 * plain.size * 3 * 3 * 3
    assert bench.count_flops(winograd, x, kernel) == bench.count_flops(plain_conv, x, kernel) == expected
    assert bench.count_flops(of(winograd), x, kernel) == 2 * expected


def test_formula_and_compiled_program_agree_on_a_product():
    a = jnp.zeros((64, 64))
    compiled, seconds = bench.compile_apart(jax.jit(jnp.matmul), a, a)
    assert bench.program_flops(compiled) == bench.count_flops(jnp.matmul, a, a) == 2 * 64**3
    assert seconds > 0 and program_bytes(compiled) >= 3 * a.nbytes


def test_utilisation():
    kind = "NVIDIA H100 80GB HBM3"
    assert math.isclose(bench.mfu(989.4e12, 2.0, kind, "bfloat16", devices=2), 0.25)
    assert bench.peak_flops("TPU v5 lite", "bfloat16") == 197e12
    assert bench.peak_flops("TPU v5p", "bfloat16") == 459e12
    assert bench.mfu(1e12, 1.0, "cpu", "float32") is None


def test_parties_take_turns_and_the_median_is_taken(monkeypatch):
    clock, called = [0.0], []
    lasts = {"a": iter([9.0, 1.0, 5.0, 2.0]), "b": iter([9.0, 7.0, 7.0, 8.0])}

    def party(name):
        called.append(name)
        clock[0] += next(lasts[name])

    monkeypatch.setattr("time.perf_counter", lambda: clock[0])
    found = bench.interleaved({name: lambda name=name: party(name) for name in "ab"}, 3)
    assert called == list("abababab") and found == {"a": 2.0, "b": 7.0}
    called.clear()
    lasts |= {"a": iter([9.0, 4.0, 1.0]), "b": iter([9.0, 5.0, 7.0])}
    found = bench.interleaved({name: lambda name=name: party(name) for name in "ab"}, 1, settle=1)
    assert called == list("abaabb") and found == {"a": 1.0, "b": 7.0}
    with pytest.raises(ValueError, match="at least 1 repeat"):
        bench.interleaved({}, 0)


NETWORK = ("widths=4,", "encoder=1,", "decoder=[]", "embedding=8")
TINY = ("--network", "drunet", "--options", *NETWORK, "--sizes", "4")
QUICK = ("--batch", "2", "--repeats", "1", "--no-torch")


def rows_of(path, *argv):
    assert cli.main(["bench", *argv, *TINY, *QUICK, "--json", str(path)]) == 0
    stored = json.loads(path.read_text(), parse_constant=lambda text: pytest.fail(text))
    assert stored["setup"]["jax"] == jax.__version__ and stored["setup"]["cores"] >= 1
    assert all(list(row) == FIELDS for row in stored["rows"])
    return stored["rows"]


def test_sampling_rows(tmp_path):
    heun, ddim = rows_of(tmp_path / "rows.json", "sampling", "--samplers", "heun", "ddim", "--steps", "3")
    for row, evaluations in ((heun, 5), (ddim, 3)):
        case = row["case"]
        assert (row["name"], row["dtype"], case["size"]) == ("sampling", "float32", 4)
        assert case["evaluations"] == evaluations and case["options"]["widths"] == [4]
        assert math.isclose(case["images_per_s"] * row["run_s"], case["batch"])
        assert math.isclose(case["steps_per_s"] * row["run_s"], 3)
        assert row["peer"] is row["peer_run_s"] is row["ratio"] is row["mfu"] is None
        assert row["compile_s"] > 0 and row["peak_bytes"] > 0
    assert heun["flops"] * 3 == ddim["flops"] * 5


def test_a_training_row_on_two_devices(tmp_path):
    (row,) = rows_of(tmp_path / "rows.json", "training", "--devices", "2")
    assert (row["name"], row["case"]["devices"], row["case"]["optimiser"]) == ("training", 2, "adam")
    assert row["flops"] > 0 and math.isclose(row["case"]["images_per_s"] * row["run_s"], 2)
    assert row["case"]["steps_per_call"] == 1


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--network", "unit"], "choose one of unet"),
        (["--samplers", "hune"], "choose one of heun"),
        (["--devices", "3", "--batch", "4"], "does not divide over 3 devices"),
        (["--devices", "99", "--batch", "99"], "99 devices are asked for"),
        (["--repeats", "0", *TINY, "--samplers", "ddim", "--steps", "2", "--no-torch"], "at least 1 repeat"),
    ],
)
def test_a_mistake_is_one_line(argv, words, capsys):
    jax.devices()
    assert cli.main(["bench", "sampling", *argv]) == 2
    err = capsys.readouterr().err
    assert err.startswith("pgm: ") and err.count("\n") == 1 and words in err
