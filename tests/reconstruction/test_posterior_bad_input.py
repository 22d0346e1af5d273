"""What `posterior` refuses, each in one clear line and before anything is compiled or drawn."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles.problems import gaussian_problem
from tables import rest_slow

from pgm_jax import networks, operators as op, priors
from pgm_jax.cli import main as cli
from pgm_jax.guidance import dps, mcg
from pgm_jax.processes import EDM, PFGMpp, StudentT
from pgm_jax.reconstruction import posterior, posterior_cost
from pgm_jax.samplers import ancestral, ddim

KEY = jax.random.key(0)
SIDE = 8


@pytest.fixture(scope="module")
def problem():
    return gaussian_problem()


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A real prior of CT with small random weights."""
    options = {"channels": 1, "widths": [4, 4], "encoder": [1, 1], "decoder": [1], "embedding": 4}
    shapes = jax.eval_shape(networks.drunet(**options).init, jax.random.key(0))
    params = jax.tree.map(lambda leaf: jnp.full(leaf.shape, 0.01), shapes)
    file = tmp_path_factory.mktemp("prior") / "ct.npz"
    card = {"network": ["drunet", options], "process": ["PFGMpp", {"D": 64.0}], "sigma_data": 0.5}
    priors.save_prior(file, params, card | {"unit": "attenuation of water", "multiple": 2})
    return file


def projector():
    angles = np.pi * np.arange(6) / 6
    return op.ParallelBeam(op.ImageGrid((SIDE, SIDE), (2.0, 2.0)), op.Parallel(angles, 11, 2.0))


def likelihood_of(operator):
    data = operator.range
    return op.GaussianLikelihood.create(operator, jnp.ones(data.shape, data.dtype), 0.1)


def one_line(words, prior, likelihood, **request):
    """The same line from the run and from its estimate."""
    for call in (posterior, posterior_cost):
        with pytest.raises(ValueError, match=words) as error:
            call(KEY, prior, likelihood, **{"steps": 2, "draws": 2} | request)
        assert "\n" not in str(error.value)


def test_units_that_disagree(trained):
    prior, ct = priors.load_prior(trained), likelihood_of(projector())
    assert prior.unit == "attenuation of water"
    one_line("'attenuation of water' and the operator's in '1/mm'", prior, ct, unit="1/mm")
    found = posterior(KEY, prior, ct, unit="attenuation of water", steps=2, draws=1)
    assert np.isfinite(found.draws).all()


def test_images_that_the_prior_does_not_know(trained, problem):
    mri = likelihood_of(op.Sense.single(SIDE, SIDE, np.ones(SIDE)))
    one_line("network has 1 channels and the images are .8, 8, 1. complex64", priors.load_prior(trained), mri)
    short = op.GaussianLikelihood.create(op.Identity((6,)), jnp.ones(6), 0.1)
    one_line("GaussianPrior.*8", problem.prior, short, process=EDM())


def test_data_that_do_not_match_the_geometry(trained):
    with pytest.raises(ValueError, match=r"y has shape \(5, 11, 1\) but ParallelBeam measures \(6, 11, 1\)"):
        op.GaussianLikelihood.create(projector(), jnp.ones((5, 11, 1)), 0.1)
    unchecked = op.GaussianLikelihood(projector(), jnp.ones((5, 11, 1)), 0.1)
    prior = priors.load_prior(trained)
    for method in ("dds", "moment_matching", "dps"):
        one_line("y has shape .5, 11, 1. but ParallelBeam measures", prior, unchecked, method=method)
    one_line("start has shape .4, 4, 1. and", prior, likelihood_of(projector()), start=jnp.ones((4, 4, 1)))
    latent = likelihood_of(projector()).through(lambda z: z)
    one_line("LatentLikelihood does not tell the shape", prior, latent, method="dps")


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        ({"sampler": ancestral}, "finite D"),
        ({"sampler": lambda: ddim(0.5, of="marginal")}, "cannot be refreshed in part"),
        ({"method": mcg}, "cannot be refreshed in part"),
    ],
)
def test_what_is_not_valid_at_finite_d(problem, request_, words):
    one_line(words, problem.prior, problem.likelihood, process=PFGMpp(D=8.0), **request_)


def test_a_noise_level_of_zero_where_it_divides(problem):
    silent = problem.likelihood.replace(noise_std=0.0)
    asked = {"process": EDM(), "method": "dps", "normalise": False}
    own = lambda likelihood: dps(likelihood, normalise=False)
    one_line("divides by the noise level, and noise_std is 0", problem.prior, silent, **asked)
    one_line("noise_std is 0", problem.prior, silent, process=EDM(), method=own)
    for method in ("dds", "diffpir"):
        one_line("noise_std is 0", problem.prior, silent + problem.likelihood, process=EDM(), method=method)


@pytest.mark.parametrize("method", rest_slow(["dds", "diffpir", "moment_matching", "pigdm"]))
def test_a_noise_level_of_zero_where_it_does_not_divide(problem, method):
    """Where the paper's steps need no noise, the draws reproduce the data or come close."""
    silent = problem.likelihood.replace(noise_std=0.0)
    found = posterior(KEY, problem.prior, silent, process=EDM(), method=method, steps=8, draws=2)
    residual = jax.vmap(silent.residual)(found.draws)
    bound = 0.5 if method == "diffpir" else 0.05
    assert float(jnp.linalg.norm(residual)) < bound * float(jnp.linalg.norm(silent.y)), method


def test_a_gain_without_a_mean():
    """The inverse-gamma posterior of the noise variance has a mean above N + D = 2 only."""
    for df, size in ((0.5, 1), (jnp.float32(1.0), 1)):
        with pytest.raises(ValueError, match="size . D must exceed 2"):
            StudentT(df).gain(0.3, 1.0, size)
    assert float(StudentT(1.5).gain(0.3, 1.0, 1)) == pytest.approx((1.5 * 0.09 + 1) / 0.5)
    assert np.isfinite(jax.jit(lambda df: StudentT(df).gain(0.3, 1.0, 2))(0.5))


@pytest.mark.parametrize(
    ("more", "line"),
    [
        ((), "give --water"),
        (("--water", 0.02, "--scale", 1.0), "--scale 1 and --water 0.02 disagree"),
        (("--water", 0.02, "--noise-std", 0), "above 0"),
        (("--water", 0.02, "--method", "ddss"), "ddss takes no --prior"),
    ],
)
def test_the_command_line_asks_for_the_unit_of_a_ct_prior(trained, tmp_path, capsys, more, line):
    angles = {"unit": "degrees", "start": 0, "stop": 180, "count": 6}
    image = {"shape": [SIDE, SIDE], "spacing": [2.0, 2.0]}
    geometry = {"geometry": "parallel", "angles": angles, "bins": 11, "spacing": 2.0, "image": image}
    (tmp_path / "ct.json").write_text(json.dumps(geometry))
    np.save(tmp_path / "scan.npy", np.ones((6, 1, 11), np.float32))
    argv = [
        "reconstruct",
        tmp_path / "scan.npy",
        "--geometry",
        tmp_path / "ct.json",
        "--out",
        tmp_path / "out",
    ]
    argv += ["--method", "dds", "--prior", trained, "--noise-std", 0.01, "--format", "npy", *more]
    assert cli.main([str(word) for word in argv]) == 2
    err = capsys.readouterr().err
    assert err.startswith("pgm: ") and err.count("\n") == 1 and line in err, err
    assert not (tmp_path / "out" / "image.npy").exists()
